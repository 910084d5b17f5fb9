"""The run folder: the one place that knows what stands where in it, and reads and writes that.

flags.txt, config.json (what it was claimed for), data.json (of which split), metrics.json,
codes/PART.npz, samples.npz, checkpoints/, logs/, figures/, export/.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfhash import npz
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError
from tfhash.runs.configurations import Configurations
from tfhash.training.run import OtherWorkError, Run

METRICS = "metrics.json"
_DATA = "data.json"
_OF_BEFORE = {"duplicates": "keep"}  # how runs went that no flag told
_SAMPLES = "samples.npz"  # images that a run keeps of a data set that cannot be loaded by its name


class Metrics(dict[str, Any]):
    """The content of a metrics.json. UserError, naming the file, for an entry that it lacks."""

    def __init__(self, path: Path, content: Mapping[str, Any]):
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise UserError(
            f"`model_dir`: {self.path} has no {key}; allowed: that of a run that tfhash.train has "
            "finished"
        )


def occupy(target: Run, given: Configurations) -> None:
    """Makes sure that the folder holds the work of these configurations, or no work yet.

    UserError where it holds that of others, or cannot be written.
    """
    target.claim("config.json", given.deciding)
    target.write_text("flags.txt", "\n".join(given.lines) + "\n")


def occupy_for(target: Run, image_set: ImageSet, parts: RetrievalSplits) -> None:
    """Makes sure that the folder holds work on these images and this split, or no work yet.

    A network that learned from another split may have seen its queries. UserError where it holds
    work on others.
    """
    triplets = image_set.triplets
    listed = None if triplets is None else hashlib.sha256(triplets.tobytes()).hexdigest()[:16]
    asked = {"split_fingerprint": parts.fingerprint, "triplets": listed}
    try:
        target.claim(_DATA, asked, adopts=True)
    except OtherWorkError:
        raise UserError(
            f"`dataset`: images, labels or triplets are others than those that {target.directory} "
            "began with; allowed: the data as they were, or another `model_dir`"
        ) from None


def read(
    directory: Path, own: Mapping[str, Any] | None = None
) -> tuple[Configurations, dict[str, Any]]:
    """The configurations of a finished run, and its metrics.json. UserError of another folder.

    own: what the reader says itself, by the names of flags, such as where the data are now. What a
    folder from elsewhere has no say in, such as `allow_pickle_weights`, comes from there alone; see
    `places.taken`.
    """
    path = directory / METRICS
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        found = Configurations.of(_OF_BEFORE | metrics["flags"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{METRICS} has no {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"`model_dir`: no finished run in {directory} ({reason}); allowed: a folder that "
            "tfhash.train has finished"
        ) from None
    return found.taken(metrics.get("places"), directory, own or {}), Metrics(path, metrics)


def write_codes(directory: Path, part: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes codes/PART.npz: codes, labels and ids of its images, without pickle."""
    npz.write(_codes(directory, part), arrays)


def read_codes(directory: Path, part: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """These arrays of codes/PART.npz. UserError where it cannot be read."""
    path = _codes(directory, part)
    try:
        return npz.read(path, names)
    except ValueError as error:
        raise UserError(f"`model_dir`: cannot read {path} ({error})") from None


def write_samples(directory: Path, images: np.ndarray) -> None:
    """Keeps images of a data set that was made in Python."""
    npz.write(directory / _SAMPLES, {"images": images})


def read_samples(directory: Path, count: int) -> np.ndarray:
    """At most `count` of the images that `write_samples` kept. UserError where it kept none."""
    path = directory / _SAMPLES
    try:
        return spread(npz.read(path, ["images"])["images"], count)
    except ValueError as error:
        raise UserError(
            f"`model_dir`: cannot read images of the run from {path} ({error}); `noverify` does "
            "without"
        ) from None


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of images, evenly spread."""
    return images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]


def _codes(directory: Path, part: str) -> Path:
    return directory / "codes" / f"{part}.npz"
