"""Pretrained weights from a file into a Keras model; one clear line when they do not fit."""

from __future__ import annotations

import pickle
import textwrap
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from tfhash import npz
from tfhash.errors import UserError

_UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)


def load(model: keras.Model, path: str | Path, *, allow_pickle: bool = False) -> None:
    """Loads `path` into `model`, in place.

    `.h5` goes through Keras (a file of `save_weights`); `.npz` holds arrays named
    `<layer>/<variable>`, such as `conv1/kernel`; `.npy` holds a pickled dict
    {layer: [kernel, bias]}, the form of bvlc_alexnet.npy, and is read only with `allow_pickle`,
    because unpickling runs whatever code the file contains. Layers that the file has and the model
    lacks, such as a classifier, are ignored.

    Raises ValueError naming --weights when the file cannot be read or does not fit the model.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"`weights`: there is no file {path}")
    if path.suffix == ".h5":
        _load_h5(model, path)
    elif path.suffix == ".npz":
        assign(model, _read_npz(path), source=path)
    elif path.suffix == ".npy":
        if not allow_pickle:
            raise UserError(
                f"`weights`: {path} is a pickle, which can run any code when it is read; "
                "pass `allow_pickle_weights` if you trust it"
            )
        assign(model, _read_pickled_dict(path), source=path)
    else:
        raise UserError(f"`weights`: {path} must end in .npz, .npy or .h5")


def assign(model: keras.Model, arrays: Mapping[str, np.ndarray], *, source: str | Path) -> None:
    """Sets every variable of `model` from `arrays`, {"<layer>/<variable>": array}.

    Keras layer names hold no slash: `fire2/squeeze1x1/kernel` is the kernel of fire2_squeeze1x1.
    Nothing is assigned unless everything fits. Raises ValueError naming `source`, the layer and,
    for a wrong shape, both shapes.
    """
    by_layer = {}
    for key, values in arrays.items():
        layer_name, _, variable_name = key.rpartition("/")
        by_layer[layer_name.replace("/", "_"), variable_name] = values
    assignments = []
    for layer in model.layers:
        for variable in layer.weights:
            array = by_layer.get((layer.name, variable.name))
            if array is None:
                raise UserError(f"`weights`: {source} has no {layer.name}/{variable.name}")
            if array.shape != tuple(variable.shape):
                raise UserError(
                    f"`weights`: {source}: {layer.name}/{variable.name} has shape "
                    f"{array.shape}, expected {tuple(variable.shape)}"
                )
            assignments.append((variable, array))
    for variable, array in assignments:
        variable.assign(array)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        return npz.read(path)
    except ValueError as error:
        raise UserError(f"`weights`: {path}: {error}; allowed: an .npz of plain arrays") from None


def _read_pickled_dict(path: Path) -> dict[str, np.ndarray]:
    try:
        # bvlc_alexnet.npy was pickled by Python 2, whose strings are bytes: latin1 keeps them all.
        layers = np.load(path, allow_pickle=True, encoding="latin1").item()
        return {
            f"{layer}/{variable}": np.asarray(array)
            for layer, pair in layers.items()
            for variable, array in zip(("kernel", "bias"), pair, strict=True)
        }
    except _UNREADABLE as error:
        raise UserError(
            f"`weights`: {path} is not a pickled dict of layer: [kernel, bias]"
        ) from error


def _load_h5(model: keras.Model, path: Path) -> None:
    try:
        model.load_weights(path)
    except _UNREADABLE as error:
        # Keras goes on to print whole arrays; the layer and both shapes come first.
        reason = textwrap.shorten(str(error), 400)
        raise UserError(f"`weights`: cannot load {path}: {reason}") from error
