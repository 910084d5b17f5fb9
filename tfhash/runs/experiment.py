"""One experiment: splits -> learn -> encode -> evaluate -> run folder. Knows no flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash import codes, figures
from tfhash.data import mosaics, sources, splits
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.data.triplets import read_csv
from tfhash.errors import UserError
from tfhash.evaluation import retrieval
from tfhash.evaluation.triplet_accuracy import triplet_accuracy
from tfhash.evaluation.validation import AMONG_LABELLED, HELD_OUT, validation_maps
from tfhash.hashers.base import Hasher
from tfhash.names import shown
from tfhash.runs import folder, provenance
from tfhash.runs.configurations import Configurations
from tfhash.runs.experiment_settings import Experiment
from tfhash.storage.place import Storage
from tfhash.training.run import CHECKPOINTS, Run

TOP_QUERIES, TOP_RESULTS = 10, 10


def run(
    given: Configurations,
    target: Run,
    command: str = "",
    image_set: ImageSet | None = None,
) -> dict[str, Any]:
    """Learns, encodes, judges and draws; the content of metrics.json.

    image_set: by default what given.experiment names is loaded; of another, made in Python, samples
    are kept for an export. What target.directory already holds is used, so that an interrupted run
    goes on. Raises UserError for what the user can mend and NonFiniteError where training diverged.
    """
    method = given.hasher_class
    method.start(given.settings)
    given, image_set = with_images(given, image_set)
    settings, experiment = given.settings, given.experiment
    parts = split(experiment, image_set)
    folder.occupy_for(target, image_set, parts)
    keras.utils.set_random_seed(experiment.seed)
    if method.is_repeatable(settings):
        tf.config.experimental.enable_op_determinism()
    hasher = given.hasher(image_set.images.shape[1])
    facts = hasher.learn(image_set, parts, target)
    if target.writes and target.directory is not None:
        hasher.save_weights(target.directory / CHECKPOINTS)
    packed = hasher.encode_set(image_set)
    of_part = codes_of_parts(packed, image_set, parts)
    content = {
        "method": experiment.method,
        "variant": hasher.variant,
        "name": experiment.name,
        "dataset": experiment.dataset,
        "proxy": mosaics.PROXY if experiment.dataset == mosaics.NAME else None,
        "protocol": parts.protocol,
        "split_fingerprint": parts.fingerprint,
        "seed": experiment.seed,
        "code_length": experiment.code_length,
        **judge(experiment, **of_part),
        **_validated(experiment, packed, image_set, parts),
        "labels_used": _labels_used(method, image_set, parts),
        "train_seconds": sum(v for fact, v in facts.items() if fact.endswith("_seconds")),
        "steps": hasher.steps,
        **facts,
        "image_size": hasher.image_size,
        "class_count": len(image_set.class_names),
        "data_notes": list(image_set.notes),
        "hardware": provenance.hardware(),
        "command": command,
        "flags": given.values,
        "not_as_published": given.not_as_published,
        "places": {} if target.directory is None else given.places(target.directory),
        "versions": provenance.versions(),
    }
    if target.writes and target.directory is not None:
        for part, arrays in of_part.items():
            folder.write_codes(target.directory, part, arrays)
        if image_set.name not in sources.names():
            folder.write_samples(target.directory, folder.spread(image_set.images, 256))
        target.write_json(folder.METRICS, content)  # the run is finished, whatever pictures do
        draw(target.directory, content, packed, image_set, parts)
        with figures.optional(f"the figures of {experiment.method}"):
            hasher.draw(image_set, parts, target.directory / "figures")
    method.end(settings)
    return content


def _labels_used(method: type[Hasher], image_set: ImageSet, parts: RetrievalSplits) -> int:
    """The labelled images that a method is given; one that takes fewer of them says so itself."""
    by_labels = method.learns_from_labels and image_set.triplets is None
    return len(parts.labelled) if by_labels else 0


def with_images(
    given: Configurations, image_set: ImageSet | None
) -> tuple[Configurations, ImageSet]:
    """What a run learns from, which is told, and its configurations, which name it.

    Arguments: as of `run`. UserError where there are no images, and the method needs them.
    """
    if image_set is None or image_set.name in sources.names():
        given = with_descriptors(given)
    if image_set is None:
        image_set = load_images(given.experiment, given.settings.storage)
    notes = (*image_set.notes, *notes_on(given.settings))
    image_set = dataclasses.replace(image_set, notes=notes)
    tell(image_set)
    if not image_set.images.shape[1] and given.hasher_class.needs_pixels(given.settings):
        raise UserError("`data_dir`: missing; without images only `features`=bow can be used")
    experiment = dataclasses.replace(given.experiment, dataset=image_set.name)
    given = dataclasses.replace(given, experiment=experiment)
    return given, with_triplets(experiment, image_set)


def with_descriptors(given: Configurations) -> Configurations:
    """given; where `features`=bow names no file, with the one that goes with the data set.

    UserError where none does.
    """
    settings = given.settings
    if getattr(settings, "features", None) != "bow" or settings.features_file is not None:
        return given
    path = sources.own_descriptors(**given.experiment.loading)
    settings = dataclasses.replace(settings, features_file=os.fspath(path))
    return dataclasses.replace(given, settings=settings)


def notes_on(settings: Any) -> tuple[str, ...]:
    """What is to be told of features that are not computed of the images."""
    path = getattr(settings, "features_file", None)
    return () if path is None else (f"features are given descriptors, not of pixels: {path}",)


def load_data(
    config: Experiment, storage: Storage | None = None
) -> tuple[ImageSet, RetrievalSplits]:
    """The images that config names, and their split; storage: as `load_images` has it."""
    image_set = load_images(config, storage)
    tell(image_set)
    image_set = with_triplets(config, image_set)
    return image_set, split(config, image_set)


def load_images(config: Experiment, storage: Storage | None = None) -> ImageSet:
    """The images that config names; storage: where the pixels are, None: in memory."""
    return sources.load(**config.loading, storage=storage)


def tell(image_set: ImageSet) -> None:
    """Prints the classes with the numbers of their images, and what the source has to report."""
    for note in (image_set.summary(), *image_set.notes):
        print(f"{image_set.name}: {shown(note)}", flush=True)


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
    elif config.protocol == splits.LISTS:
        parts = splits.from_lists(
            image_set, seed=seed, validation_fraction=config.validation_fraction
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
    name = shown(image_set.name)
    print(f"{name} {parts.protocol}: {sizes}; split {parts.fingerprint}", flush=True)
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
    are judged, and mAP is None, since nobody said what is relevant. Where an item has several
    labels, NDCG@100, ACG@100 and weighted mAP are there without being asked for: of one label, the
    latter two would repeat precision and mAP.
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
    labels = query["labels"], database["labels"]
    several = any((of.sum(axis=1, dtype=int) > 1).any() for of in labels)
    usual = {100} if several else set()
    whole = (None,) if several or config.weighted_map_at else ()
    return retrieval.evaluate(
        query["codes"],
        database["codes"],
        *labels,
        code_length=config.code_length,
        map_at=(None, *config.map_at),
        precision_at=sorted({*config.precision_at, 100}),
        ndcg_at=sorted({*config.ndcg_at} | usual),
        acg_at=sorted({*config.acg_at} | usual),
        weighted_map_at=(*whole, *config.weighted_map_at),
        radius=config.radius,
        ties=config.ties,
        convention=config.convention,
    ).to_json()


def _validated(
    config: Experiment, packed: np.ndarray, image_set: ImageSet, parts: RetrievalSplits
) -> dict[str, float | None]:
    """By these settings are chosen: they need no query and no label of an unlabelled image."""
    labels = image_set.labels
    maps = validation_maps(
        packed[parts.validation],
        packed[parts.labelled],
        labels[parts.validation],
        labels[parts.labelled],
        config.code_length,
    )
    return {AMONG_LABELLED: None, HELD_OUT: None, **maps}


def draw(
    directory: Path,
    metrics: Mapping[str, Any],
    packed: np.ndarray,
    image_set: ImageSet,
    parts: RetrievalSplits,
) -> None:
    """The figures that every method has: curves, and the top results of a query of each class.

    None where only triplets tell what is near: then no image is known to be relevant. One that
    fails leaves a warning.
    """
    if len(parts.held_out):
        return
    pictures = directory / "figures"
    label = f"{metrics['method']}, {metrics['code_length']} bits"
    for plot in (figures.precision_recall, figures.precision_at):
        path = pictures / f"{plot.__name__}.png"
        with figures.optional(path):
            plot({label: metrics}, path)
    if image_set.images.size:  # not given descriptors alone
        path = pictures / "top_results.png"
        with figures.optional(path):
            _draw_top_results(path, packed, image_set, parts)


def _draw_top_results(
    path: Path, packed: np.ndarray, image_set: ImageSet, parts: RetrievalSplits
) -> None:
    queries = parts.query[one_of_each_class(image_set.labels[parts.query], TOP_QUERIES)]
    top = parts.database[codes.nearest(packed[queries], packed[parts.database], TOP_RESULTS)]
    shared = np.einsum("qc,qrc->qr", image_set.labels[queries], image_set.labels[top])
    names = [
        "\n".join(np.array(image_set.class_names)[labels == 1][:3])
        for labels in image_set.labels[queries]
    ]
    figures.top_results(
        image_set.images[queries],
        image_set.images[top],
        shared > 0,
        path,
        query_names=names,
    )


def one_of_each_class(labels: np.ndarray, most: int) -> np.ndarray:
    """The first row of each class, in the order of classes: multi-hot [n, C] -> int64 [c].

    Of more than `most` classes that occur, as many, evenly spread; each row once.
    """
    classes = np.flatnonzero(labels.any(axis=0))
    spread = np.linspace(0, len(classes) - 1, min(most, len(classes))).astype(int)
    first = labels[:, classes[spread]].argmax(axis=0)
    return np.array(list(dict.fromkeys(first.tolist())), np.int64)
