"""Anchor graphs: images linked through a few anchors (Liu, Wang, Kumar, Chang, ICML 2011)."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.special
from sklearn.cluster import KMeans
from sklearn.metrics.pairwise import euclidean_distances

from tfhash.errors import UserError

_CHUNK = 4096  # rows whose distances to all anchors are held at once


def kmeans_anchors(
    features: np.ndarray, count: int, nearest: int, iterations: int, seed: int
) -> np.ndarray:
    """`count` centres of k-means, [m, F], one for each row of features [n, F] where n is less.

    nearest: s, the anchors that an image is to be linked to; UserError where that is more.
    """
    count = min(count, len(features))
    if nearest > count:
        raise UserError(f"`nearest`: {nearest}; at most {count}, the number of anchors, is allowed")
    kmeans = KMeans(count, init="random", n_init=1, max_iter=iterations, random_state=seed)
    return kmeans.fit(features).cluster_centers_


def anchor_graph(
    features: np.ndarray, anchors: np.ndarray, nearest: int
) -> tuple[scipy.sparse.csr_array, float]:
    """The links Z [n, m] of images to anchors, float64, and t, the width of their kernel.

    Z_ij ~ exp(-|x_i - a_j|^2 / t) over the s nearest anchors of x_i. As in the authors' code, t is
    the square of the mean distance to the last of these.
    """
    parts: list[np.ndarray] = []
    of_parts: list[np.ndarray] = []
    for start in range(0, len(features), _CHUNK):
        distances = euclidean_distances(features[start : start + _CHUNK], anchors, squared=True)
        order = np.argsort(distances, axis=1, kind="stable")[:, :nearest]
        parts.append(order)
        of_parts.append(np.take_along_axis(distances, order, axis=1))
    indices, squared = np.concatenate(parts), np.concatenate(of_parts).astype(np.float64)
    width = np.sqrt(squared[:, -1]).mean() ** 2
    if width == 0:
        raise UserError(
            f"`nearest`: {nearest}; each image equals so many anchors: there are too few "
            "different images for a graph"
        )
    weights = scipy.special.softmax(-squared / width, axis=1)
    starts = np.arange(0, indices.size + 1, nearest)
    shape = (len(features), len(anchors))
    return scipy.sparse.csr_array((weights.ravel(), indices.ravel(), starts), shape), width
