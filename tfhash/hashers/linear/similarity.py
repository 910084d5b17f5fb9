"""Similarities of labelled images, and how well inner products of codes fit them."""

from __future__ import annotations

import numpy as np

from tfhash.errors import UserError

_ZERO = 1e-9  # of the greatest eigenvalue: what rounding leaves of one that is 0


def some_rows(count: int, most: int | None, rng: np.random.Generator) -> np.ndarray:
    """The positions, ascending, of at most `most` of `count` images, chosen at random."""
    if most is None or most >= count:
        return np.arange(count)
    return np.sort(rng.choice(count, most, replace=False))


def similarity_factors(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S = Z diag(w) Z', 1 where two images share a label and -1 where not: Z [l, r], w [r].

    labels: multi-hot [l, C]. With u different sets of labels r is at most u, so that S, which has
    l^2 numbers, need not be made. UserError where all images share a label.
    """
    label_sets, of_image = np.unique(labels, axis=0, return_inverse=True)
    similar = label_sets.astype(np.int32) @ label_sets.T > 0
    if similar.all():
        raise UserError("`method`: all labelled images share a label; it needs two classes")
    weights, vectors = np.linalg.eigh(np.where(similar, 1.0, -1.0))
    used = np.abs(weights) > _ZERO * np.abs(weights).max()
    return vectors[of_image.ravel()][:, used], weights[used]


def agreement(codes: np.ndarray, factors: np.ndarray, weights: np.ndarray) -> float:
    """h'Rh for R = Z diag(w) Z', factors Z [l, r] and h in {-1, 1}: how far one bit fits R."""
    return float(weights @ (factors.T @ codes) ** 2)


def code_loss(codes: np.ndarray, factors: np.ndarray, weights: np.ndarray) -> float:
    """The mean square of S - HH'/k, for S = Z diag(w) Z' and codes H [l, k] in [-1, 1].

    For signs that is 4 times that of d/k - [no label shared], for Hamming distances d: what BRE
    minimises, and KSH as well.
    """
    count, bits = codes.shape
    columns = np.hstack([factors, codes])
    gram = columns.T @ columns * np.concatenate([weights, np.full(bits, -1 / bits)])
    return float(np.trace(gram @ gram)) / count**2
