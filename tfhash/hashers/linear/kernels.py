"""RBF kernels on anchors: the hash functions of kernel methods."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

from tfhash.errors import UserError


def choose_anchors(features: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` rows of features [n, F] at random, in their order; all of them where n is less."""
    if len(features) < count:
        print(f"kernels: {len(features)} anchors, all images that there are, for {count}")
        count = len(features)
    return features[np.sort(rng.choice(len(features), count, replace=False))]


def typical_distance(features: np.ndarray, anchors: np.ndarray) -> float:
    """The root of the mean squared distance between features [n, F] and anchors [m, F]."""
    distance = float(np.sqrt(euclidean_distances(features, anchors, squared=True).mean()))
    if distance == 0:
        raise UserError("`features`: those of all images are the same; they must differ")
    return distance


def rbf(features: np.ndarray, anchors: np.ndarray, width: float) -> np.ndarray:
    """exp(-|x - a|^2 / (2 width^2)): [n, F], [m, F] -> [n, m], of the features' type."""
    return rbf_kernel(features, anchors, gamma=0.5 / width**2)


def kernel_scores(features: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """rbf(features, anchors, width) @ projection + offset: float32 [n, F] -> [n, k].

    parameters: anchors [m, F], width [], projection [m, k], offset [k].
    """
    anchors = parameters["anchors"]
    squared = (
        tf.reduce_sum(features**2, axis=1, keepdims=True)
        - 2 * features @ tf.transpose(anchors)
        + tf.reduce_sum(anchors**2, axis=1)
    )
    kernel = tf.exp(-squared / (2 * parameters["width"] ** 2))
    return kernel @ parameters["projection"] + parameters["offset"]
