"""What can encode again: the hasher of a finished run, or one that `save` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tfhash import methods, settings
from tfhash.data import sources
from tfhash.errors import UserError
from tfhash.hashers.base import Hasher
from tfhash.runs import experiment, folder
from tfhash.training.run import CHECKPOINTS, SAVED


def load(directory: str | Path) -> Hasher:
    """The hasher in a folder that `Hasher.save` wrote, or in the run folder of tfhash.train.

    It is ready to encode. A backbone's file of weights has to be where it was. UserError for
    another folder, and where a run is not finished.
    """
    directory = Path(directory)
    if (directory / SAVED).is_file():
        return _saved(directory)
    given, metrics = folder.read(directory)
    hasher = given.hasher(metrics["image_size"])
    hasher.load_weights(directory / CHECKPOINTS)
    return hasher


def _saved(directory: Path) -> Hasher:
    path = directory / SAVED
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        method = methods.get(description["method"])
        values = description["settings"]
        hasher = method.of(
            settings.build(method.Config, values),
            settings.build(method.Settings, values),
            **{name: description[name] for name in ("code_length", "image_size", "seed")},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}); allowed: what save has written") from None
    hasher.load_weights(directory)
    return hasher


def sample_images(model_dir: str | Path, count: int) -> np.ndarray:
    """Images of a run's data set, evenly spread: uint8 [n, S, S, 3], n <= count.

    Of a data set that was made in Python, some of those that the run kept.
    """
    given, _ = folder.read(Path(model_dir))
    if given.experiment.dataset in sources.names():
        return folder.spread(experiment.load_images(given.experiment).images, count)
    return folder.read_samples(Path(model_dir), count)
