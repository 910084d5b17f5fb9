"""The rotation of iterative quantization: what brings projected data nearest to {-1, 1}^k."""

from __future__ import annotations

import numpy as np
from scipy.stats import ortho_group


def random_rotation(size: int, seed: int) -> np.ndarray:
    """A random orthogonal matrix, float64 [k, k], uniform over all of them."""
    if size == 1:  # SciPy has none
        return np.ones((1, 1))
    return ortho_group.rvs(size, random_state=seed)


def quantization_loss(data: np.ndarray, rotation: np.ndarray) -> float:
    """||B - V R||² over the number of rows, for the best codes B = sign(V R)."""
    rotated = data @ rotation
    return float(np.mean(np.sum((signs(rotated) - rotated) ** 2, axis=1)))


def iterative_quantization(data: np.ndarray, rotation: np.ndarray, iterations: int) -> np.ndarray:
    """The orthogonal R that makes ||B - V R||² small; section 3.2 of ITQ (see methods/itq.py).

    data: V, float [n, k], centred. rotation: where to begin, float64 [k, k]. Each iteration takes
    the best B of an R, sign(V R), and then the best R of that B, an orthogonal Procrustes problem.
    """
    for _ in range(iterations):
        codes = signs(data @ rotation)
        left, _, right = np.linalg.svd(codes.T @ data)
        rotation = (left @ right).T
    return rotation


def signs(scores: np.ndarray) -> np.ndarray:
    """1 where a score is positive and -1 elsewhere, as bits are."""
    return np.where(scores > 0, 1.0, -1.0)
