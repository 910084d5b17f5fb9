"""AGH: Hashing with Graphs (Liu, Wang, Kumar, Chang, ICML 2011)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.hashers.linear.anchors import anchor_graph, kmeans_anchors
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting


@dataclass(frozen=True)
class AGHConfig(Configuration):
    """The hyperparameters of AGH."""

    layers: int = setting(
        2,
        "1: a bit for each eigenvector of the graph; 2: two bits for each, the better of the two",
        choices=(1, 2),
    )
    anchors: int = setting(300, "anchors: centres of k-means", least=2, search=(100, 300))
    nearest: int = setting(
        2, "anchors that each image is linked to, the nearest ones", least=2, search=(2, 3, 5)
    )
    kmeans_iterations: int = setting(5, "iterations of k-means", least=1)


def anchor_scores(
    features: tf.Tensor,
    parameters: Mapping[str, tf.Tensor],
    *,
    nearest: int,
    layers: int,
    bits: int,
) -> tf.Tensor:
    """z(x)'W, [n, ceil(k/2)] with two layers; then, for these, how far beyond a threshold."""
    anchors = parameters["anchors"]
    # Without |x|^2, which is the same for all anchors of an image.
    distances = tf.reduce_sum(anchors**2, axis=1) - 2 * features @ tf.transpose(anchors)
    linked = tf.math.top_k(-distances, nearest)
    weights = tf.nn.softmax(linked.values / parameters["width"])
    rows = tf.gather(parameters["projection"], linked.indices)  # [n, s, functions]
    first = tf.reduce_sum(weights[:, :, None] * rows, axis=1)
    if layers == 1:
        return first
    upper, lower = tf.unstack(parameters["thresholds"])
    second = tf.where(first > 0, first - upper, lower - first)
    return tf.concat([first, second], axis=1)[:, :bits]


class AGH(FeatureHasher):
    """Signs of the smoothest functions on a graph that links images through anchors.

    An image is linked to its s nearest anchors by weights z that sum to 1. The graph
    A = Z diag(Z'1)^-1 Z' has eigenvectors y = Z w, which z(x)'w extends to new images. A second
    layer parts the images on each side of 0 again, at the thresholds that cut the graph least.
    """

    Config = AGHConfig
    learns_from_labels = False
    scores = staticmethod(anchor_scores)

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        features, config = data.everything, self.config
        anchors = kmeans_anchors(
            features, config.anchors, config.nearest, config.kmeans_iterations, self.seed
        )
        weights, width = anchor_graph(features, anchors, config.nearest)
        linked = weights.sum(axis=0) > 0
        anchors, weights = anchors[linked], weights[:, linked]
        functions = -(-self.code_length // config.layers)
        if functions >= len(anchors):
            raise UserError(
                f"`code_length`: {self.code_length}; at most {config.layers * (len(anchors) - 1)} "
                f"is allowed with {len(anchors)} anchors and `layers`={config.layers}"
            )
        projection = graph_functions(weights, functions)
        parameters = {"anchors": anchors, "width": width, "projection": projection}
        if config.layers == 2:
            parameters["thresholds"] = thresholds(weights, weights @ projection)
        return parameters

    def score_options(self) -> dict[str, int]:
        config = self.config
        return {"nearest": config.nearest, "layers": config.layers, "bits": self.code_length}


def graph_functions(weights: scipy.sparse.csr_array, count: int) -> np.ndarray:
    """W [m, count]: columns of Z W are the eigenvectors of A with the greatest eigenvalues.

    They have squared norm n; the constant one, of eigenvalue 1, is left out.
    """
    images = weights.shape[0]
    links = weights.sum(axis=0)
    roots = np.sqrt(links)
    small = (weights.T @ weights).toarray() / np.outer(roots, roots)
    constant = roots / np.sqrt(images)
    small -= np.outer(constant, constant)  # one of several of eigenvalue 1 if parts are not linked
    anchors = len(small)
    values, vectors = scipy.linalg.eigh(small)
    values, vectors = values[: -count - 1 : -1], vectors[:, : -count - 1 : -1]
    if values[-1] < 1e-9:
        raise UserError(
            f"`code_length`: the graph of {anchors} anchors has {np.sum(values >= 1e-9)} functions,"
            f" {count} are needed; allowed: fewer bits, or more `anchors`"
        )
    return np.sqrt(images) * vectors / roots[:, None] / np.sqrt(values)


def thresholds(weights: scipy.sparse.csr_array, functions: np.ndarray) -> np.ndarray:
    """The upper and the lower threshold of each function y: float64 [2, functions].

    They minimise u'(I - A)u under sum(u) = 0, for u = y - upper where y > 0 and lower - y
    elsewhere. As (I - A)1 = 0, the former is a parabola in upper + lower alone; the latter gives
    their difference.
    """
    images = len(functions)
    above = (functions > 0).astype(np.float64)
    sizes = np.abs(functions)
    links = weights.sum(axis=0)[:, None]
    through = (weights.T @ above) / links
    curvature = (above * above).sum(axis=0) - ((weights.T @ above) * through).sum(axis=0)
    slope = (sizes * above).sum(axis=0) - ((weights.T @ sizes) * through).sum(axis=0)
    count = above.sum(axis=0)
    # Where no link leads from above 0 to below, every sum is as good: that of the two means.
    means = (sizes * above).sum(axis=0) * (1 / count - 1 / (images - count))
    linked = curvature > 1e-9 * images
    both = np.where(linked, slope / np.where(linked, curvature, 1), means)
    total = sizes.sum(axis=0)
    return np.stack([total + (images - count) * both, count * both - total]) / images
