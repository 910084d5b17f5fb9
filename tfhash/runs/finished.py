"""What can encode again: the hasher of a finished run, or one that `save` wrote."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfhash import methods, places, settings
from tfhash.data import sources
from tfhash.errors import UserError
from tfhash.hashers.base import Hasher
from tfhash.networks import backbones
from tfhash.runs import experiment, folder
from tfhash.storage import place
from tfhash.training.run import CHECKPOINTS, SAVED


def load(
    directory: str | Path,
    *,
    allow_pickle_weights: bool = False,
    weights: str | Path | None = None,
    features_file: str | Path | None = None,
    cache_dir: str | Path | None = None,
    images_in: str = place.AUTO,
    mirrored_codes: bool | None = None,
) -> Hasher:
    """The hasher in a folder that `Hasher.save` wrote, or in the run folder of tfhash.train.

    It is ready to encode. weights, features_file: where the file of the backbone's weights or of
    given descriptors is now; by default where the run had it. allow_pickle_weights: read weights
    that are a pickle (.npy), which can run any code; what the folder says of that does not count.
    cache_dir: where features are kept; None: nowhere. images_in: memory, disk (files in cache_dir)
    or auto, see docs/own-data.md. mirrored_codes: whether a code is of an image and its mirror
    image, in twice the time, for H learns the same without; None: as it was trained. UserError for
    another or a damaged folder, where a run is not finished, where a file that it needs is gone,
    and for mirrored_codes of a method that has none, or that saw no mirror image.
    """
    directory = Path(directory).expanduser()
    given = {"weights": weights, "features_file": features_file, "cache_dir": cache_dir}
    own: dict[str, Any] = {
        name: None if path is None else str(Path(path).expanduser())
        for name, path in given.items()
        if path is not None or name == "cache_dir"
    }
    own |= {"allow_pickle_weights": allow_pickle_weights, "images_in": images_in}
    if mirrored_codes is not None:
        own["mirrored_codes"] = mirrored_codes
    if (directory / SAVED).is_file():
        return _saved(directory, own)
    configurations, metrics = folder.read(directory, own)
    _check_mirrored_codes(own, configurations.hasher_class)
    with _weights_follow(configurations.hasher_class):
        hasher = configurations.hasher(metrics["image_size"])
    hasher.load_weights(directory / CHECKPOINTS)
    return hasher


def _saved(directory: Path, own: dict[str, Any]) -> Hasher:
    path = directory / SAVED
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        method = methods.get(description["method"])
        values = description["settings"]
        parts = settings.build(method.Config, values), settings.build(method.Settings, values)
        rest = {name: description[name] for name in ("code_length", "image_size", "seed")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}); allowed: what save has written") from None
    _check_mirrored_codes(own, method)
    kept = description.get("places")
    config, of_kind = (places.taken(part, kept, directory, own) for part in parts)
    with _weights_follow(method):
        hasher = method.of(config, of_kind, **rest)
    hasher.load_weights(directory)
    return hasher


def _check_mirrored_codes(own: Mapping[str, Any], method: type[Hasher]) -> None:
    """UserError where they are asked for of a method that has no such setting."""
    known = settings.fields_of(method.Settings)
    if own.get("mirrored_codes") and "mirrored_codes" not in known:
        raise UserError(
            f"`mirrored_codes`: True; {method.__name__} encodes no mirror images; allowed: with "
            "deep methods"
        )


def _weights_follow(method: type[Hasher]) -> contextlib.AbstractContextManager[None]:
    """Weights of ImageNet need not be there where the folder has all weights of the network."""
    return backbones.weights_follow() if method.saves_backbone else contextlib.nullcontext()


def sample_images(model_dir: str | Path, count: int, **own: Any) -> np.ndarray:
    """Images of a run's data set, evenly spread: uint8 [n, S, S, 3], n <= count.

    Of a data set that was made in Python, some of those that the run kept. own: where the data set
    is now, by the names of flags; see `folder.read`.
    """
    given, _ = folder.read(Path(model_dir), own)
    if given.experiment.dataset in sources.names():
        images = experiment.load_images(given.experiment, given.settings.storage).images
        return folder.spread(images, count)
    return folder.read_samples(Path(model_dir), count)
