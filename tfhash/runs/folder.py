"""The run folder: the one place that knows what stands where in it, and reads and writes that.

flags.txt, config.json (what it was claimed for), metrics.json, codes/PART.npz, samples.npz,
checkpoints/, logs/, figures/, export/.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfhash.errors import UserError
from tfhash.runs.configurations import Configurations
from tfhash.training.run import Run

METRICS = "metrics.json"
_SAMPLES = "samples.npz"  # images that a run keeps of a data set that cannot be loaded by its name
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def occupy(target: Run, given: Configurations) -> None:
    """Makes sure that the folder holds the work of these configurations, or no work yet.

    UserError where it holds that of others, or cannot be written.
    """
    target.claim("config.json", given.deciding)
    target.write_text("flags.txt", "\n".join(given.lines) + "\n")


def read(directory: Path) -> tuple[Configurations, dict[str, Any]]:
    """The configurations of a finished run, and its metrics.json. UserError of another folder."""
    try:
        metrics = json.loads((directory / METRICS).read_text(encoding="utf-8"))
        values = metrics["flags"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"`model_dir`: no finished run in {directory} ({error}); allowed: a folder that "
            "tfhash.train has finished"
        ) from None
    return Configurations.of(values), metrics


def write_codes(directory: Path, part: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes codes/PART.npz: codes, labels and ids of its images, without pickle."""
    _write_arrays(_codes(directory, part), arrays)


def read_codes(directory: Path, part: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """These arrays of codes/PART.npz. UserError where it cannot be read."""
    path = _codes(directory, part)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except _UNREADABLE as error:
        raise UserError(f"`model_dir`: cannot read {path} ({error})") from None


def write_samples(directory: Path, images: np.ndarray) -> None:
    """Keeps images of a data set that was made in Python."""
    _write_arrays(directory / _SAMPLES, {"images": images})


def read_samples(directory: Path, count: int) -> np.ndarray:
    """At most `count` of the images that `write_samples` kept. UserError where it kept none."""
    path = directory / _SAMPLES
    try:
        with np.load(path, allow_pickle=False) as file:
            return spread(file["images"], count)
    except _UNREADABLE as error:
        raise UserError(
            f"`model_dir`: cannot read images of the run from {path} ({error}); `noverify` does "
            "without"
        ) from None


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of images, evenly spread."""
    return images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]


def _codes(directory: Path, part: str) -> Path:
    return directory / "codes" / f"{part}.npz"


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}.npz")
    np.savez_compressed(temporary, **arrays)
    os.replace(temporary, path)
