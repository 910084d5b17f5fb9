"""Judges the codes of a finished run again: `python -m tfhash.evaluate --model_dir=DIR`.

By default the codes that the run left; with --encode, those that its encoder gives now.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

from absl import flags

from tfhash.cli import flags as config_flags
from tfhash.cli import mains, quiet
from tfhash.errors import UserError

NAME = "tfhash.evaluate"
# Of the run's metrics.json: what was judged, as against how well it did.
IDENTITY = ("method", "code_length", "dataset", "protocol", "split_fingerprint")


# What tells where the files of the run are now: those of its data, and those of its encoder.
OF_DATA = ("data_dir", "labels_csv", "triplets_csv")
OF_STORAGE = ("cache_dir", "images_in")
OF_ENCODER = ("weights", "features_file", *OF_STORAGE, "allow_pickle_weights")


def define_flags() -> None:
    from tfhash.hashers.shallow import ShallowSettings
    from tfhash.runs.experiment_settings import Experiment

    config_flags.define_path("model_dir", None, "folder of a finished run", required=True)
    flags.DEFINE_string("ties", None, "expected, stable, best or worst; by default the run's")
    flags.DEFINE_string(
        "convention",
        None,
        "whose mAP: tfhash, deephash-pytorch, hashnet or thulab; by default the run's",
    )
    flags.DEFINE_integer("radius", None, "Hamming radius; by default the run's")
    flags.DEFINE_list("map_at", None, "depths R of mAP@R; by default the run's")
    flags.DEFINE_list("precision_at", None, "depths N of precision@N; by default the run's")
    flags.DEFINE_list("ndcg_at", None, "depths R of NDCG@R; by default the run's")
    flags.DEFINE_list("acg_at", None, "depths R of ACG@R; by default the run's")
    flags.DEFINE_list("weighted_map_at", None, "depths R of weighted mAP@R; by default the run's")
    flags.DEFINE_bool("encode", False, "encode the images again instead of reading codes/")
    config_flags.define_mirrored_codes()
    config_flags.define_of_run(Experiment, OF_DATA)
    config_flags.define_of_run(ShallowSettings, OF_ENCODER)
    config_flags.define_path("output", None, "JSON file for the metrics")


def main(argv: list[str]) -> None:
    # Here, so that `tfhash.evaluate(codes, ...)` in Python does not import TensorFlow.
    from tfhash.data import sources, splits
    from tfhash.runs import experiment, finished, folder
    from tfhash.training.run import write_text

    model_dir = Path(flags.FLAGS.model_dir)
    given, metrics = folder.read(model_dir, config_flags.of_run((*OF_DATA, *OF_STORAGE)))
    config = dataclasses.replace(given.experiment, **_overrides())
    mirrored = config_flags.mirrored_codes()
    if mirrored and not flags.FLAGS.encode:
        raise UserError("--mirrored_codes: without --encode; allowed: with --encode")
    if flags.FLAGS.encode:
        if config.dataset not in sources.names():
            raise UserError(
                f"--encode: the images of the run, {config.dataset!r}, came from Python and cannot "
                "be loaded again; allowed: --noencode"
            )
        image_set, parts = experiment.load_data(config, given.settings.storage)
        if parts.fingerprint != metrics["split_fingerprint"]:
            raise UserError(
                f"--data_dir: the split of the data there is {parts.fingerprint}; allowed: the "
                f"data of the run, whose split is {metrics['split_fingerprint']}"
            )
        hasher = finished.load(model_dir, **(config_flags.of_run(OF_ENCODER) | mirrored))
        packed = hasher.encode_set(image_set)
        of_part = experiment.codes_of_parts(packed, image_set, parts)
    else:
        with_labels = ("codes", "labels")
        of_part = {
            part: folder.read_codes(model_dir, part, with_labels) for part in ("query", "database")
        }
        if config.protocol == splits.TRIPLETS:
            of_part["triplets"] = folder.read_codes(model_dir, "triplets", ("codes",))
    try:
        judged = experiment.judge(config, **of_part)
    except ValueError as error:
        raise UserError(f"--model_dir: {model_dir} cannot be judged: {error}") from None
    if config.convention != "tfhash":
        print(f"mAP by the convention of {config.convention}, in its own order of ties")
    if mirrored.get("mirrored_codes"):
        print("each code is of an image and its mirror image")
    identity = {key: metrics[key] for key in IDENTITY} | {"proxy": metrics.get("proxy")}
    mains.print_table(identity | judged)
    judged |= mirrored
    if flags.FLAGS.output:
        try:
            write_text(Path(flags.FLAGS.output), json.dumps(judged, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"--output: cannot write {flags.FLAGS.output} ({error})") from None


def _overrides() -> dict:
    """The fields of the experiment that flags change."""
    given = flags.FLAGS
    overrides = {
        name: given[name].value
        for name in ("ties", "convention", "radius")
        if given[name].value is not None
    }
    for name in ("map_at", "precision_at", "ndcg_at", "acg_at", "weighted_map_at"):
        depths: Any = given[name].value
        if depths is not None:
            overrides[name] = config_flags.items(name, depths, int)
    return overrides


class _CallableModule(types.ModuleType):
    """Makes `tfhash.evaluate` both this command and, as in `tfhash.evaluate(codes, ...)`, the
    function of `tfhash.evaluation`: a package has one attribute of a name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from tfhash.evaluation import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule


def entry_point() -> None:
    quiet.start()
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
