"""KLSH: kernelized locality-sensitive hashing (Kulis & Grauman, ICCV 2009; PAMI 2012).

Written from memory of the papers and a reading of a public port. It differs from the port in two
points: eigenvalues next to 0 are left out, not used as they are, and the kernel of an image that is
encoded is centred as that of the anchors is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from tfhash.errors import UserError
from tfhash.hashers.linear import kernels
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting

_ZERO = 1e-8  # eigenvalues of the centred kernel up to here are those of no direction


@dataclass(frozen=True)
class KLSHConfig(Configuration):
    """The hyperparameters of KLSH."""

    anchors: int = setting(
        300, "anchors of the RBF kernel, images chosen at random (p in the paper)", least=2
    )
    anchors_per_bit: int = setting(
        30,
        "anchors whose mean gives the direction of a bit (t); below the anchors",
        least=1,
        search=(10, 30, 60),
    )


class KLSH(FeatureHasher):
    """Signs of products with k random directions in the space of an RBF kernel.

    The mean of t random anchors, whitened, is about normal by the central limit theorem: it stands
    for the random hyperplane of LSH. Nothing is learned but centre and covariance of the anchors.
    The width of the kernel, which the paper does not fix, is the typical distance of an image to an
    anchor.
    """

    Config = KLSHConfig
    learns_from_labels = False

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        anchors = kernels.choose_anchors(data.everything, self.config.anchors, rng)
        count, per_bit = len(anchors), self.config.anchors_per_bit
        if per_bit >= count:
            raise UserError(
                f"`anchors_per_bit`: {per_bit}; allowed: below {count}, the number of anchors"
            )
        width = kernels.typical_distance(data.everything, anchors)
        exact = anchors.astype(np.float64)
        kernel = kernels.rbf(exact, exact, width)
        chosen = choose_subsets(count, per_bit, self.code_length, rng)
        projection = random_directions(kernel, chosen)
        return {
            "anchors": anchors,
            "width": width,
            "projection": projection,
            "offset": -kernel.mean(axis=0) @ projection,
        }

    scores = staticmethod(kernels.kernel_scores)


def choose_subsets(count: int, size: int, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Which anchors give each bit, `size` different ones of `count`: bool [count, bits]."""
    chosen = np.zeros((count, bits), bool)
    for bit in range(bits):
        chosen[rng.choice(count, size, replace=False), bit] = True
    return chosen


def random_directions(kernel: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """W = sqrt((p - 1) / t) K^-1/2 E, the weights of the anchors in each bit: float64 [p, k].

    kernel: that of the anchors among themselves, float64 [p, p]; K is this one centred by rows and
    by columns, its eigenvalues up to 1e-8 left out of K^-1/2. chosen: E, bool [p, k], whose columns
    hold t anchors each. The columns of W sum to 0, so that w'(kappa(x) - mean of the anchors') is
    what w' makes of the kernel of x centred both ways.
    """
    centred = kernel - kernel.mean(axis=0)
    centred -= centred.mean(axis=1, keepdims=True)
    values, vectors = scipy.linalg.eigh(centred)
    used = values > _ZERO
    whitening = vectors[:, used] / np.sqrt(values[used]) @ vectors[:, used].T
    per_bit = chosen.sum(axis=0)
    return np.sqrt((len(kernel) - 1) / per_bit) * (whitening @ chosen)
