"""Judges the codes of a finished run again: `python -m tfhash.evaluate --model_dir=DIR`.

By default the codes that the run left; with --encode, those that its encoder gives now.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

from tfhash import config_flags, experiment, finished_run, mains  # noqa: E402
from tfhash.checkpoints import write_text  # noqa: E402
from tfhash.data import sources, splits  # noqa: E402
from tfhash.errors import UserError  # noqa: E402

NAME = "tfhash.evaluate"
# Of the run's metrics.json: what was judged, as against how well it did.
IDENTITY = ("method", "code_length", "dataset", "protocol", "split_fingerprint")


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "folder of a finished run", required=True)
    flags.DEFINE_string("ties", None, "expected, stable, best or worst; by default the run's")
    flags.DEFINE_string(
        "convention",
        None,
        "whose mAP: tfhash, deephash-pytorch, hashnet or thulab; by default the run's",
    )
    flags.DEFINE_integer("radius", None, "Hamming radius; by default the run's")
    flags.DEFINE_list("map_at", None, "depths R of mAP@R; by default the run's")
    flags.DEFINE_list("precision_at", None, "depths N of precision@N; by default the run's")
    flags.DEFINE_bool("encode", False, "encode the images again instead of reading codes/")
    flags.DEFINE_string("data_dir", None, "with --encode: where the data set is now")
    flags.DEFINE_string("output", None, "JSON file for the metrics")


def main(argv: list[str]) -> None:
    model_dir = Path(flags.FLAGS.model_dir)
    config, *_, metrics = finished_run.read(model_dir)
    config = dataclasses.replace(config, **_overrides())
    if flags.FLAGS.encode:
        if config.dataset not in sources.names():
            raise UserError(
                f"--encode: the images of the run, {config.dataset!r}, came from Python and cannot "
                "be loaded again; allowed: --noencode"
            )
        image_set, parts = experiment.load_data(config)
        if parts.fingerprint != metrics["split_fingerprint"]:
            raise UserError(
                f"--data_dir: the split of the data there is {parts.fingerprint}; allowed: the "
                f"data of the run, whose split is {metrics['split_fingerprint']}"
            )
        packed = finished_run.load(model_dir).encode_set(image_set)
        of_part = experiment.codes_of_parts(packed, image_set, parts)
    else:
        of_part = {part: _read_codes(model_dir, part) for part in ("query", "database")}
        if config.protocol == splits.TRIPLETS:
            of_part["triplets"] = _read_codes(model_dir, "triplets")
    judged = experiment.judge(config, **of_part)
    if config.convention != "tfhash":
        print(f"mAP by the convention of {config.convention}, in its own order of ties")
    mains.print_table({key: metrics[key] for key in IDENTITY} | judged)
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
        for name in ("ties", "convention", "radius", "data_dir")
        if given[name].value is not None
    }
    for name in ("map_at", "precision_at"):
        if given[name].value is not None:
            overrides[name] = config_flags.items(name, given[name].value, int)
    return overrides


def _read_codes(model_dir: Path, part: str) -> dict[str, np.ndarray]:
    path = model_dir / "codes" / f"{part}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            names = ("codes",) if part == "triplets" else ("codes", "labels")
            return {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"--model_dir: cannot read {path} ({error})") from None


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
