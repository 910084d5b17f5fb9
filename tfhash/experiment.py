"""One experiment: splits -> learn -> encode -> evaluate -> run folder. Knows no flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash import codes, config_values, figures, methods, provenance, retrieval
from tfhash.data import sources, splits
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.data.triplets import read_csv
from tfhash.errors import UserError
from tfhash.hasher import Hasher, Run, setting
from tfhash.triplet_accuracy import triplet_accuracy

TOP_QUERIES, TOP_RESULTS = 10, 10
SAMPLES = "samples.npz"  # images that a run keeps of a data set that cannot be loaded by its name
MOST_SEED = 10**9  # sums of it and small numbers seed the parts of a run, and have to fit int32


@dataclass(frozen=True)
class Experiment:
    """Which data, which split of it, which method, and how it is judged."""

    method: str = setting("ssgah", "what learns the codes")
    dataset: str = setting(
        "digits",
        "digits, cifar10, folder: one subfolder of --data_dir a class, and unlabelled/; csv: files "
        "of --data_dir with the labels of --labels_csv; images: files of --data_dir without labels",
    )
    data_dir: str | None = setting(None, "where the data set is", decides=False)
    labels_csv: str | None = setting(
        None, "CSV of columns path and labels (a;b), or path and one column of 0 and 1 a class"
    )
    triplets_csv: str | None = setting(
        None, "CSV of query,positive,negative paths, in place of triplets from labels"
    )
    unreadable: str = setting("refuse", "refuse or skip images that cannot be read, or are missing")
    image_size: int | None = setting(
        None, "side in px that images are resized to; by default that of the data set"
    )
    protocol: str = setting(
        "per_class", "how the images are split: per_class, unseen_classes, triplets"
    )
    queries_per_class: int = setting(20, "query images a class; 0 in unseen_classes: all")
    labelled_per_class: int = setting(10, "labelled images a class, those for validation included")
    validation_fraction: float = setting(
        0.1, "part of the labelled images that is not trained on but watched"
    )
    held_out_fraction: float = setting(
        0.2, "part of the queries of --triplets_csv that judges, not learned from (triplets)"
    )
    seed: int = setting(0, "seed of everything random")
    split_seed: int | None = setting(None, "seed of the split alone; by default --seed")
    code_length: int = setting(24, "bits of a code")
    map_at: tuple[int, ...] = setting((), "depths R of mAP@R, beside mAP over the whole ranking")
    precision_at: tuple[int, ...] = setting(
        (10, 20, 50, 100, 200, 500, 1000), "depths N of precision@N; 100 is always there"
    )
    radius: int = setting(2, "Hamming radius of precision within a radius")
    ties: str = setting("expected", "order of items at one distance: expected, stable, best, worst")
    convention: str = setting(
        "tfhash", "whose mAP: tfhash, deephash-pytorch, hashnet, thulab; theirs passes --ties over"
    )
    name: str | None = setting(None, "a label for the report", decides=False)

    def __post_init__(self) -> None:
        """Refuses what would else be found out after the training."""
        positive = dict.fromkeys(("code_length", "map_at", "precision_at"), 1)
        config_values.check(
            self,
            choices={
                "protocol": (*splits.PROTOCOLS, splits.TRIPLETS),
                "ties": retrieval.TIES,
                "convention": retrieval.CONVENTIONS,
            },
            least={**positive, "radius": 0, "seed": 0, "split_seed": 0},
        )
        if self.seed > MOST_SEED:
            raise UserError(f"--seed: {self.seed}; at most {MOST_SEED} is allowed")


def run(
    config: Experiment,
    method_config: Any,
    settings: Any,
    target: Run,
    command: str = "",
    image_set: ImageSet | None = None,
) -> dict[str, Any]:
    """Learns, encodes, judges and draws; the content of metrics.json.

    image_set: by default what config names is loaded; of another, made in Python, samples are kept
    for an export. What target.directory already holds is used, so that an interrupted run goes on.
    Raises UserError for what the user can mend and NonFiniteError where training diverged.
    """
    methods.get(config.method).start(settings)
    if image_set is None:
        image_set = load_images(config)
    if not image_set.images.shape[1] and getattr(settings, "features", None) != "bow":
        raise UserError("--data_dir: missing; without images only --features=bow can be used")
    config = dataclasses.replace(config, dataset=image_set.name)
    image_set = with_triplets(config, image_set)
    parts = split(config, image_set)
    keras.utils.set_random_seed(config.seed)
    if not getattr(settings, "xla", False):  # Keras leaves XLA off where it is enabled
        tf.config.experimental.enable_op_determinism()
    hasher = _hasher(config, method_config, settings, image_set)
    facts = hasher.learn(image_set, parts, target)
    if target.writes:
        hasher.save(target.directory / "checkpoints")
    packed = hasher.encode_set(image_set)
    of_part = codes_of_parts(packed, image_set, parts)
    metrics = judge(config, **of_part)
    content = {
        "method": config.method,
        "variant": hasher.variant,
        "name": config.name,
        "dataset": config.dataset,
        "protocol": parts.protocol,
        "split_fingerprint": parts.fingerprint,
        "seed": config.seed,
        "code_length": config.code_length,
        **metrics,
        "train_seconds": sum(v for fact, v in facts.items() if fact.endswith("_seconds")),
        "steps": hasher.steps,
        **facts,
        "image_size": hasher.image_size,
        "class_count": len(image_set.class_names),
        "data_notes": list(image_set.notes),
        "hardware": provenance.hardware(),
        "command": command,
        "flags": {
            **dataclasses.asdict(config),
            **dataclasses.asdict(settings),
            **{f"{config.method}.{k}": v for k, v in dataclasses.asdict(method_config).items()},
        },
        "versions": provenance.versions(),
    }
    if target.writes:
        for part, arrays in of_part.items():
            save_codes(target.directory, part, arrays)
        draw(target.directory, content, packed, image_set, parts)
        hasher.draw(image_set, parts, target.directory / "figures")
        if image_set.name not in sources.names():
            np.savez_compressed(target.directory / SAMPLES, images=spread(image_set.images, 256))
        target.write_json("metrics.json", content)
    return content


def load_data(config: Experiment) -> tuple[ImageSet, RetrievalSplits]:
    """The images that config names, and their split."""
    image_set = with_triplets(config, load_images(config))
    return image_set, split(config, image_set)


def load_images(config: Experiment) -> ImageSet:
    """The images that config names; says what the source has to report."""
    image_set = sources.load(
        config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        unreadable=config.unreadable,
        labels_csv=config.labels_csv,
    )
    for note in image_set.notes:
        print(f"{config.dataset}: {note}", flush=True)
    return image_set


def with_triplets(config: Experiment, image_set: ImageSet) -> ImageSet:
    """The images, with the triplets that config names for them."""
    if config.triplets_csv is None:
        return image_set
    triplets = read_csv(config.triplets_csv, image_set.ids)
    return dataclasses.replace(image_set, triplets=triplets)


def split(config: Experiment, image_set: ImageSet) -> RetrievalSplits:
    """The split of images that config asks for; says how large its parts are."""
    seed = config.seed if config.split_seed is None else config.split_seed
    if config.protocol == splits.TRIPLETS:
        parts = splits.from_triplets(
            image_set, seed=seed, held_out_fraction=config.held_out_fraction
        )
    else:
        parts = splits.make(
            image_set,
            protocol=config.protocol,
            seed=seed,
            queries_per_class=config.queries_per_class or None,
            labelled_per_class=config.labelled_per_class,
            validation_fraction=config.validation_fraction,
        )
    sizes = ", ".join(f"{len(getattr(parts, part)):,} {part}" for part in splits.PARTS)
    print(f"{image_set.name} {parts.protocol}: {sizes}; split {parts.fingerprint}", flush=True)
    return parts


def codes_of_parts(
    packed: np.ndarray, image_set: ImageSet, parts: RetrievalSplits
) -> dict[str, dict[str, np.ndarray]]:
    """What `judge` takes, and the run folder keeps, of the packed codes of a whole image set."""
    ids = np.asarray(image_set.ids)
    of_part = {
        part: {"codes": packed[rows], "labels": image_set.labels[rows], "ids": ids[rows]}
        for part, rows in (("query", parts.query), ("database", parts.database))
    }
    if len(parts.held_out):
        of_part["triplets"] = {"codes": packed[parts.held_out], "ids": ids[parts.held_out]}
    return of_part


def judge(
    config: Experiment,
    query: Mapping[str, np.ndarray],
    database: Mapping[str, np.ndarray],
    triplets: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """The retrieval metrics under the keys of metrics.json.

    query, database: `codes` packed uint8 [n, ceil(k/8)] and `labels` multi-hot uint8 [n, C].
    triplets: `codes` packed uint8 [T, 3, ceil(k/8)] of held-out triplets; with them they alone
    are judged, and mAP is None, since nobody said what is relevant.
    """
    if triplets is not None:
        return {
            "query_count": len(query["codes"]),
            "database_size": len(database["codes"]),
            "triplet_count": len(triplets["codes"]),
            "ties": "expected",
            "map": None,
            "triplet_accuracy": triplet_accuracy(triplets["codes"]),
        }
    return retrieval.evaluate(
        query["codes"],
        database["codes"],
        query["labels"],
        database["labels"],
        code_length=config.code_length,
        map_at=(None, *config.map_at),
        precision_at=sorted({*config.precision_at, 100}),
        radius=config.radius,
        ties=config.ties,
        convention=config.convention,
    ).to_json()


def save_codes(directory: Path, part: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes codes/PART.npz: codes, labels and ids of its images, without pickle."""
    path = directory / "codes" / f"{part}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{part}.tmp-{os.getpid()}.npz")
    np.savez_compressed(temporary, **arrays)
    os.replace(temporary, path)


def draw(
    directory: Path,
    metrics: Mapping[str, Any],
    packed: np.ndarray,
    image_set: ImageSet,
    parts: RetrievalSplits,
) -> None:
    """The figures that every method has: curves, and the top results of ten queries.

    None where only triplets tell what is near: then no image is known to be relevant.
    """
    if len(parts.held_out):
        return
    folder = directory / "figures"
    label = f"{metrics['method']}, {metrics['code_length']} bits"
    figures.precision_recall({label: metrics}, folder / "precision_recall.png")
    figures.precision_at({label: metrics}, folder / "precision_at.png")
    if not image_set.images.size:  # given descriptors, no images
        return
    queries = parts.query[np.linspace(0, len(parts.query) - 1, TOP_QUERIES).astype(int)]
    distances = codes.hamming_distance(packed[queries], packed[parts.database])
    top = parts.database[np.argsort(distances, axis=1, kind="stable")[:, :TOP_RESULTS]]
    shared = np.einsum("qc,qrc->qr", image_set.labels[queries], image_set.labels[top])
    names = [
        "\n".join(np.array(image_set.class_names)[labels == 1][:3])
        for labels in image_set.labels[queries]
    ]
    figures.top_results(
        image_set.images[queries],
        image_set.images[top],
        shared > 0,
        folder / "top_results.png",
        query_names=names,
    )


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of images, evenly spread."""
    return images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]


def _hasher(
    config: Experiment, method_config: Any, settings: Any, image_set: ImageSet
) -> Hasher:
    return methods.get(config.method)(
        method_config,
        settings,
        code_length=config.code_length,
        image_size=image_set.images.shape[1],
        seed=config.seed,
    )
