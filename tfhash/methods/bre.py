"""BRE: Learning to Hash with Binary Reconstructive Embeddings (Kulis, Darrell, NIPS 2009)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfhash.hashers.linear import kernels
from tfhash.hashers.linear.similarity import similarity_factors, some_rows
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting

_GAIN = 1e-9  # relative: steps that gain less are rounding


@dataclass(frozen=True)
class BREConfig(Configuration):
    """The hyperparameters of BRE."""

    anchors: int = setting(
        50, "anchors of a hash function, of the images learned from", least=1, search=(50, 100)
    )
    labelled_images: int = setting(
        1000, "most labelled images learned from, chosen at random; time grows with them", least=2
    )
    cycles: int = setting(
        3, "times that every weight is set to its best value", least=0, search=(3, 6)
    )


class BRE(FeatureHasher):
    """Signs of kernel functions whose Hamming distances reconstruct those that labels ask for.

    The supervised variant: the mean of (d_ij / k - D_ij)^2 over all pairs of the images learned
    from is minimised, D being 0 for images that share a label and 1 for others. The kernel is
    centred at its mean, so that bits can be balanced. A function has its own anchors, and its other
    weights are 0.
    """

    Config = BREConfig

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        rows = some_rows(len(data.labelled), self.config.labelled_images, rng)
        factors, weights = similarity_factors(data.labels[rows])
        images = data.labelled[rows]
        width = kernels.typical_distance(images, images)
        kernel = kernels.rbf(images, images, width).astype(np.float64)
        mean = kernel.mean(axis=0)
        kernel -= mean
        projection = self._start(len(images), rng)
        for _ in range(self.config.cycles):
            if not descend(kernel, projection, factors, weights):
                break
        used = projection.any(axis=1)
        return {
            "anchors": images[used],
            "width": width,
            "projection": projection[used],
            "offset": -mean @ projection,
        }

    def _start(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Normal weights of the anchors, 0 elsewhere: [count, k]."""
        anchors = min(self.config.anchors, count)
        if anchors < self.config.anchors:
            print(f"bre: {anchors} anchors, all labelled images, for {self.config.anchors}")
        projection = np.zeros((count, self.code_length))
        for bit in range(self.code_length):
            chosen = rng.choice(count, anchors, replace=False)
            projection[chosen, bit] = rng.standard_normal(anchors)
        return projection

    scores = staticmethod(kernels.kernel_scores)


def descend(
    kernel: np.ndarray, projection: np.ndarray, factors: np.ndarray, weights: np.ndarray
) -> bool:
    """Sets each weight that is not 0 to its best value, in place; whether one changed.

    kernel: [l, l]; projection: [l, k]; factors, weights: those of S. With all bits but h fixed the
    loss is a constant less h'Rh, R = kS - the sum of hh' of the others, times a positive number.
    """
    bits = projection.shape[1]
    codes = np.where(kernel @ projection > 0, 1.0, -1.0)
    signed = np.concatenate([bits * weights, np.full(bits - 1, -1.0)])
    changed = False
    for bit in range(bits):
        residue = np.hstack([factors, np.delete(codes, bit, axis=1)])
        values = kernel @ projection[:, bit]
        for anchor in np.flatnonzero(projection[:, bit]):
            step = best_step(values, kernel[:, anchor], residue, signed)
            projection[anchor, bit] += step
            values += step * kernel[:, anchor]
            changed |= step != 0
        codes[:, bit] = np.where(values > 0, 1.0, -1.0)
    return changed


def best_step(
    values: np.ndarray, column: np.ndarray, factors: np.ndarray, weights: np.ndarray
) -> float:
    """The t that maximises h'Rh of h = sign(values + t column); 0 where that is as good.

    R = factors diag(weights) factors'. As t grows, each h_i changes once, at -values_i / column_i:
    sorted, these thresholds bound intervals on which h stays the same, and factors'h of all of
    them is a cumulative sum.
    """
    moving = np.flatnonzero(column)
    thresholds = -values[moving] / column[moving]
    order = np.argsort(thresholds, kind="stable")
    moving, thresholds = moving[order], thresholds[order]
    before = np.where(values > 0, 1.0, -1.0)
    before[moving] = -np.sign(column[moving])
    products = np.empty((len(moving) + 1, factors.shape[1]))
    products[0] = factors.T @ before
    products[1:] = 2 * np.sign(column[moving])[:, np.newaxis] * factors[moving]
    agreements = np.cumsum(products, axis=0, out=products) ** 2 @ weights
    now = agreements[np.searchsorted(thresholds, 0.0)]
    edges = np.concatenate([[thresholds[0] - 1], thresholds, [thresholds[-1] + 1]])
    middles = (edges[:-1] + edges[1:]) / 2
    # Between equal thresholds lies no t.
    agreements[(middles <= edges[:-1]) | (middles >= edges[1:])] = -np.inf
    best = agreements.argmax()
    return middles[best] if agreements[best] > now + _GAIN * abs(now) else 0.0
