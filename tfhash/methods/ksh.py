"""KSH: Supervised Hashing with Kernels (Liu, Wang, Ji, Jiang, Chang, CVPR 2012)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from tfhash.hashers.linear import kernels
from tfhash.hashers.linear.similarity import agreement, similarity_factors, some_rows
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting

_SETTLED = 1e-6  # relative change of the smoothed objective at which its descent ends

Smoothed = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class KSHConfig(Configuration):
    """The hyperparameters of KSH."""

    anchors: int = setting(
        300, "anchors of the RBF kernel, images chosen at random", least=1, search=(100, 300, 1000)
    )
    labelled_images: int | None = setting(
        None, "most labelled images learned from, chosen at random; by default all", least=2
    )
    iterations: int = setting(100, "most gradient steps for a hash function", least=0)
    ridge: float = setting(
        0.1, "weight of the hash functions' squared norm; 0 in the paper", above=0
    )


class KSH(FeatureHasher):
    """Signs of kernel functions, learned one by one, whose codes fit the labels of pairs.

    Codes H of the labelled images minimise |k S - H H'|^2, where S is 1 for pairs that share a
    label and -1 for others. Mean and width of the kernel are those of labelled images; the width,
    which the paper tunes, is their typical distance to an anchor.
    """

    Config = KSHConfig

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        rows = some_rows(len(data.labelled), self.config.labelled_images, rng)
        factors, weights = similarity_factors(data.labels[rows])
        anchors = kernels.choose_anchors(data.everything, self.config.anchors, rng)
        width = kernels.typical_distance(data.labelled[rows], anchors)
        kernel = kernels.rbf(data.labelled[rows], anchors, width).astype(np.float64)
        mean, whitening = whiten(kernel, self.config.ridge)
        whitened = (kernel - mean) @ whitening
        # Many products of a matrix and a vector: a second thread gains nothing, and where other
        # work runs beside, the threads' waiting for each other takes ten times as long.
        with threadpool_limits(1, "blas"):
            directions = learn_directions(
                whitened, factors, weights, self.code_length, self.config.iterations
            )
        projection = whitening @ directions
        return {
            "anchors": anchors,
            "width": width,
            "projection": projection,
            "offset": -mean @ projection,
        }

    scores = staticmethod(kernels.kernel_scores)


def whiten(kernel: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """The mean [m] of the rows of kernel K [l, m], and T [m, r] with T'(K'K + ridge I)T = l I.

    K stands here without its mean.
    """
    pca = PCA(svd_solver="covariance_eigh").fit(kernel)
    squared = pca.explained_variance_ * (len(kernel) - 1) + ridge
    return pca.mean_, pca.components_.T * np.sqrt(len(kernel) / squared)


def learn_directions(
    kernel: np.ndarray, factors: np.ndarray, weights: np.ndarray, bits: int, iterations: int
) -> np.ndarray:
    """The greedy optimisation of algorithm 1 of the paper: directions [r, bits], each of length 1.

    kernel: whitened, [l, r]. factors, weights: those of S. Bit by bit, h = sign(kernel @ a) is to
    have a great h'Rh for the residue R, which begins as bits * S and loses hh' after each bit. Of
    the spectral and the smoothed solution the better is kept.
    """
    kernel, factors = kernel.astype(np.float32), factors.astype(np.float32)
    weights = (bits * weights).astype(np.float32)
    projected = (kernel.T @ factors).astype(np.float64)
    quadratic = projected * weights @ projected.T  # kernel' R kernel
    directions = []
    for _ in range(bits):
        spectral = top_eigenvector(quadratic)
        smooth = descend(smoothed(kernel, factors, weights), spectral, iterations)
        candidates = [(direction, signs(kernel @ direction)) for direction in (spectral, smooth)]
        direction, code = max(candidates, key=lambda c: agreement(c[1], factors, weights))
        directions.append(direction)
        factors = np.column_stack([factors, code])
        weights = np.append(weights, np.float32(-1))
        projected = (kernel.T @ code).astype(np.float64)
        quadratic -= np.outer(projected, projected)
    return np.stack(directions, axis=1)


def signs(values: np.ndarray) -> np.ndarray:
    """1 where positive, else -1: float32."""
    return np.where(values > 0, np.float32(1), np.float32(-1))


def top_eigenvector(matrix: np.ndarray) -> np.ndarray:
    """The maximum of a'Ma over |a| = 1: float32. In whitened kernels that is |kernel a|^2 = l."""
    last = len(matrix) - 1
    _, vectors = scipy.linalg.eigh(matrix, subset_by_index=(last, last))
    return vectors[:, 0].astype(np.float32)


def smoothed(kernel: np.ndarray, factors: np.ndarray, weights: np.ndarray) -> Smoothed:
    """-b'Rb / scale of b = 2 / (1 + exp(-kernel @ a)) - 1, and its gradient, as functions of a.

    R = factors diag(weights) factors'.
    """
    scale = len(kernel) ** 2 * np.abs(weights).max()

    def objective(direction: np.ndarray) -> tuple[float, np.ndarray]:
        b = np.tanh(kernel @ direction / 2)
        products = factors.T @ b
        outer = factors @ (weights * products)
        return -weights @ products**2 / scale, -kernel.T @ (outer * (1 - b**2)) / scale

    return objective


def descend(objective: Smoothed, start: np.ndarray, iterations: int) -> np.ndarray:
    """Nesterov's accelerated gradient method, its step halved until the objective's bound holds."""
    previous = current = start
    value, momentum, step = np.inf, 1.0, np.float32(8)
    for _ in range(iterations):
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        point = current + np.float32((momentum - 1) / following) * (current - previous)
        momentum = following
        at_point, gradient = objective(point)
        squared = gradient @ gradient
        while True:
            candidate = point - step * gradient
            at_candidate, _ = objective(candidate)
            if at_candidate <= at_point - step / 2 * squared or step < _SETTLED:
                break
            step /= 2
        previous, current = current, candidate
        if abs(value - at_candidate) <= _SETTLED * abs(at_candidate):
            break
        value = at_candidate
    return current
