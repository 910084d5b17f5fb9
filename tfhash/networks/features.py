"""Features of a frozen network: computed once and kept on disk, and brought to one scale."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.decomposition import PCA

from tfhash import npz
from tfhash.errors import unwritable

CHUNK = 2048
BATCH = 128
_TRACED = "_traced_by_tfhash"


def fingerprint(network: keras.Model, images: np.ndarray) -> str:
    """32 hexadecimal digits of the network's structure and weights, and of the images."""
    digest = hashlib.sha256(_structure(network).encode())
    digest.update(f"{images.shape} {images.dtype} {network.dtype_policy.name}".encode())
    for weight in network.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()[:32]


def weights_digest(network: keras.Model) -> str:
    """16 hexadecimal digits of the network's weights."""
    digest = hashlib.sha256()
    for weight in network.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    return digest.hexdigest()[:16]


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


def cached_features(
    network: keras.Model, images: np.ndarray, cache_dir: str | Path | None
) -> np.ndarray:
    """network(images): uint8 [n, S, S, 3] -> float32 [n, F].

    They are kept in cache_dir/FINGERPRINT/ in chunks, so that an interrupted computation goes on
    where it stopped and a second one only reads; with None, they are not kept. A damaged chunk is
    told, and computed anew. Shows a progress bar while it computes. UserError where the folder
    cannot be written.
    """
    forward = _forward(network)

    def compute(start: int) -> np.ndarray:
        chunk = images[start : start + CHUNK]
        parts = [forward(chunk[i : i + BATCH]).numpy() for i in range(0, len(chunk), BATCH)]
        return np.concatenate(parts).astype(np.float32)

    starts = range(0, len(images), CHUNK)
    if cache_dir is None:
        return np.concatenate([compute(start) for start in starts])
    directory = Path(cache_dir).expanduser() / fingerprint(network, images)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable("`cache_dir`", cache_dir, error) from None
    paths = {start: directory / f"{start:09d}.npz" for start in starts}
    chunks = {}
    for start, path in paths.items():
        chunk = _read(path, len(images) - start)
        if chunk is not None:
            chunks[start] = chunk
    missing = [start for start in starts if start not in chunks]
    bar: Any = keras.utils.Progbar(len(missing), unit_name="chunk") if missing else None
    for start in missing:
        chunks[start] = compute(start)
        try:
            npz.write(paths[start], {"features": chunks[start]}, np.savez)
        except OSError as error:
            raise unwritable("`cache_dir`", cache_dir, error) from None
        bar.add(1)
    return np.concatenate([chunks[start] for start in starts])


def _read(path: Path, most: int) -> np.ndarray | None:
    """A chunk, float32 [CHUNK or `most` if fewer, F]; None where there is none, or a damaged one.

    An .npz file, as its checksum tells one changed bit among the numbers.
    """
    if not path.is_file():
        return None
    try:
        chunk = npz.read(path, ["features"])["features"]
        if chunk.dtype != np.float32 or chunk.ndim != 2 or len(chunk) != min(CHUNK, most):
            raise ValueError(f"{chunk.dtype} {list(chunk.shape)} in it")
    except ValueError as error:
        print(f"{path} is damaged ({error}): computed anew", file=sys.stderr, flush=True)
        return None
    return chunk


def _forward(network: keras.Model) -> Callable[[np.ndarray], tf.Tensor]:
    """network as a graph, traced once a network: a tf.function of its own would be traced again."""
    traced = vars(network).get(_TRACED)
    if traced is None:
        traced = tf.function(lambda batch: network(tf.cast(batch, tf.float32), training=False))
        vars(network)[_TRACED] = traced  # not as an attribute, which Keras would track
    return traced


@keras.saving.register_keras_serializable(package="tfhash")
class Standardise(layers.Layer):
    """Features with mean 0 and variance 1, or the first principal components of these.

    (x - mean) / deviation, then for components = d: times [F, d], whose columns are the principal
    axes, over the one number that gives the components variance 1 in the mean. The axes keep their
    different variances. All of it is kept as weights. scale: False leaves out the deviation.
    """

    def __init__(self, features: int, components: int | None = None, scale: bool = True):
        super().__init__(dtype="float32", name="standardise")
        self.components = components
        self.scale = scale
        self.features = features
        self.mean = self.add_weight((features,), "zeros", trainable=False, name="mean")
        self.deviation = self.add_weight((features,), "ones", trainable=False, name="deviation")
        if components:
            self.axes = self.add_weight((features, components), trainable=False, name="axes")
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {"features": self.features, "components": self.components, "scale": self.scale}

    def adapt(self, features: np.ndarray) -> None:
        """Takes the statistics of features [n, F]; one that never varies is left unscaled."""
        self.mean.assign(features.mean(axis=0, dtype=np.float64))
        if self.scale:
            deviation = features.std(axis=0, dtype=np.float64)
            self.deviation.assign(np.where(deviation > 0, deviation, 1.0))
        if self.components:
            scaled = ((features - self.mean.numpy()) / self.deviation.numpy()).astype(np.float64)
            pca = PCA(self.components, svd_solver="covariance_eigh").fit(scaled)
            self.axes.assign(pca.components_.T / np.sqrt(pca.explained_variance_.mean()))

    def call(self, features):
        scaled = (features - self.mean) / self.deviation
        return keras.ops.matmul(scaled, self.axes) if self.components else scaled
