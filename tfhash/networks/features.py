"""Features of a frozen network: computed once and kept on disk, and brought to one scale."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.decomposition import PCA

from tfhash.errors import UserError
from tfhash.storage import rows
from tfhash.storage.place import Storage

CHUNK = 2048
BATCH = 128
_TRACED = "_traced_by_tfhash"


def fingerprint(network: keras.Model, images: np.ndarray, mirrored: bool = False) -> str:
    """32 hexadecimal digits of the network's structure and weights, and of the images."""
    digest = hashlib.sha256(_structure(network).encode())
    digest.update(f"{images.shape} {images.dtype} {network.dtype_policy.name}".encode())
    for weight in network.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    for start in range(0, len(images), BATCH):
        digest.update(np.ascontiguousarray(_views(images, start, start + BATCH, mirrored)).data)
    return digest.hexdigest()[:32]


def _views(images: np.ndarray, start: int, stop: int, mirrored: bool) -> np.ndarray:
    some = images[start:stop]
    return some[:, :, ::-1] if mirrored else some


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
    network: keras.Model,
    images: np.ndarray,
    cache_dir: str | Path | None,
    mirrored: bool = False,
) -> np.ndarray:
    """network(images): uint8 [n, S, S, 3] -> float32 [n, F]; mirrored: of their mirror images.

    They are kept in a file in cache_dir/FINGERPRINT/ and read from there, so that an interrupted
    computation goes on where it stopped and a second one only reads; with None, they are in memory
    and not kept. What is damaged is told, and computed anew. Shows a progress bar while it
    computes. UserError where the folder cannot be written.
    """
    forward = _forward(network)

    def compute(start: int, stop: int) -> np.ndarray:
        starts = range(start, stop, BATCH)
        parts = [forward(_views(images, i, min(i + BATCH, stop), mirrored)) for i in starts]
        return np.concatenate([part.numpy() for part in parts]).astype(np.float32)

    count = len(images)
    if cache_dir is None:
        return _in_memory(compute, count)
    chunks = -(-count // CHUNK)
    bar: Any = None

    def make(start: int, stop: int) -> tuple[np.ndarray, dict[str, Any]]:
        nonlocal bar
        bar = bar or keras.utils.Progbar(chunks, unit_name="chunk")
        features = compute(start, stop)
        bar.update(-(-stop // CHUNK))
        return features, {}

    folder = Path(cache_dir).expanduser() / fingerprint(network, images, mirrored)
    width = network.output_shape[-1]
    return rows.kept(folder, count, (width,), np.float32, make, CHUNK).array


def _in_memory(compute: Callable[[int, int], np.ndarray], count: int) -> np.ndarray:
    """All features, never twice."""
    features = compute(0, min(CHUNK, count))
    if count > CHUNK:
        first, features = features, np.empty((count, features.shape[1]), np.float32)
        features[:CHUNK] = first
        for start in range(CHUNK, count, CHUNK):
            stop = min(start + CHUNK, count)
            features[start:stop] = compute(start, stop)
    return features


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

    def adapt(
        self,
        features: np.ndarray,
        positions: np.ndarray | None = None,
        storage: Storage | None = None,
    ) -> None:
        """Takes the statistics of features [n, F]; one that never varies is left unscaled.

        positions: of the rows that count; None: all. They are gathered part by part; storage: where
        a copy stands that principal components are taken of. UserError for more of these than there
        are features or rows.
        """
        if positions is None:
            positions = np.arange(len(features))
        most = min(self.features, len(positions))
        if self.components is not None and self.components > most:
            raise UserError(f"`feature_components`: {self.components}; allowed: 1 to {most}")
        mean = _sums(features, positions, lambda part: part) / len(positions)
        self.mean.assign(mean)
        if self.scale:
            squares = _sums(features, positions, lambda part: np.square(part - mean))
            deviation = np.sqrt(squares / len(positions))
            self.deviation.assign(np.where(deviation > 0, deviation, 1.0))
        if self.components:
            scaled = (storage or Storage()).empty((len(positions), self.features), np.float64)
            for some in parts(len(positions)):
                of_part = features[positions[some]] - self.mean.numpy()
                scaled[some] = of_part / self.deviation.numpy()
            pca = PCA(self.components, svd_solver="covariance_eigh").fit(scaled)
            self.axes.assign(pca.components_.T / np.sqrt(pca.explained_variance_.mean()))

    def call(self, features):
        scaled = (features - self.mean) / self.deviation
        return keras.ops.matmul(scaled, self.axes) if self.components else scaled

    def of(self, features: np.ndarray, positions: np.ndarray, into: np.ndarray) -> None:
        """Writes what it makes of features[positions] into an array [n, F or components]."""
        for some in parts(len(positions)):
            into[some] = self(features[positions[some]]).numpy()


def parts(count: int) -> Iterator[slice]:
    """Of `count` rows all, CHUNK at a time."""
    return (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


def _sums(
    features: np.ndarray, positions: np.ndarray, of: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Sums over rows of what `of` makes of some of them: float64 [F], row after row, as NumPy adds
    up an array of all of them."""
    total = np.zeros((1, features.shape[1]))
    for some in parts(len(positions)):
        part = of(features[positions[some]].astype(np.float64))
        total = np.concatenate([total, part]).sum(axis=0, keepdims=True)
    return total[0]
