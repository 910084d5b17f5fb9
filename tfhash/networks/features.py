"""Features of a frozen network, computed once and kept on disk by what they were computed from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfhash.errors import UserError

CHUNK = 2048
BATCH = 128


def fingerprint(network: keras.Model, images: np.ndarray) -> str:
    """32 hexadecimal digits of the network's structure and weights, and of the images."""
    digest = hashlib.sha256(_structure(network).encode())
    digest.update(f"{images.shape} {images.dtype} {keras.config.dtype_policy().name}".encode())
    for weight in network.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)))
    digest.update(np.ascontiguousarray(images))
    return digest.hexdigest()[:32]


def _structure(network: keras.Model) -> str:
    """The network's JSON with its layers by number: Keras counts names up within a process."""
    structure = network.to_json()
    for number, layer in enumerate(_layers(network)):
        structure = structure.replace(f'"{layer.name}"', f'"{number}"')
    return structure


def _layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """A network, and all layers of it and of the networks in it, in order."""
    yield network
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def cached_features(network: keras.Model, images: np.ndarray, cache_dir: str | Path) -> np.ndarray:
    """network(images): uint8 [n, S, S, 3] -> float32 [n, F].

    They are kept in cache_dir/FINGERPRINT/ in chunks, so that an interrupted computation goes on
    where it stopped and a second one only reads. Shows a progress bar while it computes.
    """
    directory = Path(cache_dir).expanduser() / fingerprint(network, images)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--cache_dir: cannot write to {cache_dir} ({error})") from None
    forward = tf.function(lambda batch: network(tf.cast(batch, tf.float32), training=False))
    starts = range(0, len(images), CHUNK)
    missing = [start for start in starts if not (directory / f"{start:09d}.npy").is_file()]
    bar = keras.utils.Progbar(len(missing), unit_name="chunk") if missing else None
    for start in missing:
        chunk = images[start : start + CHUNK]
        parts = [forward(chunk[i : i + BATCH]).numpy() for i in range(0, len(chunk), BATCH)]
        temporary = directory / f".{start:09d}.tmp-{os.getpid()}.npy"
        np.save(temporary, np.concatenate(parts).astype(np.float32))
        os.replace(temporary, directory / f"{start:09d}.npy")
        bar.add(1)
    return np.concatenate(
        [np.load(directory / f"{start:09d}.npy", allow_pickle=False) for start in starts]
    )
