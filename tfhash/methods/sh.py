"""SH: spectral hashing (Weiss, Torralba and Fergus, NIPS 2008)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA

from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.networks.hash_functions import linear_scores
from tfhash.settings import Configuration


def eigenfunctions(features: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """cos(features @ projection + offset): float32 [n, F] -> [n, k]."""
    return tf.cos(linear_scores(features, parameters))


@dataclass(frozen=True)
class SHConfig(Configuration):
    """SH has no hyperparameters."""


class SH(FeatureHasher):
    """Signs of the smoothest eigenfunctions of a uniform distribution along principal directions.

    On an interval [a, b] these are cos(m pi (x - a) / (b - a)) for m = 1, 2, ..., their eigenvalues
    growing with m / (b - a). Of all directions and modes, the k of least eigenvalue make the bits.
    """

    Config = SHConfig
    learns_from_labels = False
    scores = staticmethod(eigenfunctions)

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        everything = data.everything
        directions = min(self.code_length, *everything.shape)
        pca = PCA(directions, svd_solver="covariance_eigh").fit(everything)
        projected = pca.transform(everything).astype(np.float64)
        low, high = projected.min(axis=0), projected.max(axis=0)
        direction, mode = smoothest(high - low, self.code_length)
        frequency = mode * np.pi / (high - low)[direction]
        projection = pca.components_.T[:, direction] * frequency
        return {
            "projection": projection,
            "offset": -pca.mean_ @ projection - low[direction] * frequency,
        }


def smoothest(ranges: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Direction and mode of the `count` eigenfunctions of least eigenvalue: int64 [count] twice.

    ranges: b - a of each direction. The eigenvalue 1 - exp(-eps² / 2 (m pi / (b - a))²) grows with
    m / (b - a), whatever eps is. Ties go to the earlier direction.
    """
    modes = np.arange(1, count + 1)
    with np.errstate(divide="ignore"):  # a direction without extent comes last
        roughness = modes[:, None] / ranges  # [mode, direction]
    order = np.argsort(roughness, axis=None, kind="stable")[:count]
    mode, direction = np.unravel_index(order, roughness.shape)
    return direction, modes[mode]
