"""MLH: Minimal Loss Hashing for Compact Binary Codes (Norouzi, Fleet, ICML 2011)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from tfhash.errors import UserError
from tfhash.hashers.linear.similarity import some_rows
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting


@dataclass(frozen=True)
class MLHConfig(Configuration):
    """The hyperparameters of MLH. The paper chooses rho, lambda and epsilon by validation."""

    rho: float = setting(
        0.4, "rho: distance that the hinge loss is about, as a part of the bits", above=0
    )
    dissimilar_weight: float = setting(
        0.5, "lambda: weight of pairs that share no label", above=0, search=(0.25, 0.5, 1.0)
    )
    loss_scale: float = setting(
        0.03, "epsilon: weight of the loss beside the scores", above=0, search=(0.01, 0.03, 0.1)
    )
    learning_rate: float = setting(0.1, "step size of updates", above=0, search=(0.03, 0.1, 0.3))
    momentum: float = setting(0.9, "part of an update that the next one repeats", least=0, below=1)
    pairs: int = setting(100, "pairs in an update, half of them similar", least=2)
    updates: int = setting(5000, "updates of the directions", least=0)
    learned_offset: bool = setting(
        False, "learn an offset too: each image has one more feature, 1; else scores have mean 0"
    )
    labelled_images: int = setting(
        5000,
        "most labelled images learned from, chosen at random; memory grows with their square",
        least=2,
    )


class MLH(FeatureHasher):
    """Signs of linear functions that minimise a bound on a hinge loss of Hamming distances.

    For a pair (x, y) with p = W'x and q = W'y the bound is the maximum over all codes g, h of
    epsilon loss(d(g, h)) + g'p + h'q, less that of g'p + h'q. Directions, the columns of W, have
    length 1; features have mean 0 and mean squared norm 1. Where scores outgrow epsilon nothing
    changes any more. With `learned_offset` each image has 1 as one more feature, beside those of
    norm 1, so that a direction has an offset in it.
    """

    Config = MLHConfig

    @threadpool_limits.wrap(limits=1, user_api="blas")  # small products: threads only wait
    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        config = self.config
        rng = np.random.default_rng(self.seed)
        rows = some_rows(len(data.labelled), config.labelled_images, rng)
        similar, dissimilar = pairs_of_each_kind(data.relevant(rows))
        features, norm = with_unit_norm(data.labelled[rows])
        if config.learned_offset:
            features = np.pad(features, [(0, 0), (0, 1)], constant_values=1)
        half = config.pairs // 2
        losses = config.loss_scale * hinge_losses(
            self.code_length, config.rho * self.code_length, config.dissimilar_weight
        )
        losses = np.repeat(losses, half, axis=0).astype(np.float32)
        projection = rng.standard_normal((features.shape[1], self.code_length), np.float32)
        projection /= np.linalg.norm(projection, axis=0)
        step = np.zeros_like(projection)
        for _ in range(config.updates):
            drawn = np.concatenate([rng.choice(similar, half), rng.choice(dissimilar, half)])
            first, second = (features[position] for position in np.divmod(drawn, len(rows)))
            gradient = descent_direction(first, second, projection, losses)
            step = config.momentum * step + config.learning_rate * gradient
            projection += step
            projection /= np.linalg.norm(projection, axis=0)
        if config.learned_offset:  # of features that are not over their norm
            return {"projection": projection[:-1], "offset": norm * projection[-1]}
        return {"projection": projection, "offset": np.zeros(self.code_length)}


def with_unit_norm(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, F] over one number, so that their mean squared norm is 1; and the number."""
    norm = np.sqrt(np.square(features).sum(axis=1).mean())
    if norm == 0:
        raise UserError("`features`: those of all labelled images are 0; they must differ")
    return features / norm, norm


def pairs_of_each_kind(relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs i < j that are similar and those that are not, each as i * l + j.

    relevant: bool [l, l]. UserError where one kind is missing.
    """
    similar, dissimilar = (np.flatnonzero(np.triu(kind, 1)) for kind in (relevant, ~relevant))
    for name, pairs in (("a label", similar), ("no label", dissimilar)):
        if not len(pairs):
            raise UserError(f"`method`=mlh: no two labelled images share {name}; it needs such")
    return similar, dissimilar


def hinge_losses(bits: int, rho: float, dissimilar_weight: float) -> np.ndarray:
    """The loss at each distance 0..bits, of a similar and a dissimilar pair: [2, bits + 1].

    They are max(0, d - rho + 1), and lambda max(0, rho - d + 1).
    """
    beyond = np.arange(bits + 1.0) - rho
    return np.maximum(0, [1 + beyond, dissimilar_weight * (1 - beyond)])


def worst_codes(
    first: np.ndarray, second: np.ndarray, losses: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Codes g, h in {-1, 1} that maximise losses[|g - h|] + g'p + h'q, row by row: [n, k] each.

    first, second: p and q, [n, k]; losses: [n, k + 1]. For a given distance m the bits differ that
    gain most from it; their gains sorted, the best m follows from a cumulative sum.
    """
    count, bits = first.shape
    total, difference = first + second, first - second
    gains = np.abs(difference) - np.abs(total)
    order = np.argsort(-gains, axis=1, kind="stable")
    values = losses.copy()
    values[:, 1:] += np.cumsum(np.take_along_axis(gains, order, axis=1), axis=1)
    differs = np.empty((count, bits), bool)
    best = values.argmax(axis=1)[:, np.newaxis]
    np.put_along_axis(differs, order, np.arange(bits) < best, axis=1)
    code = np.where(np.where(differs, difference, total) > 0, np.float32(1), np.float32(-1))
    return code, np.where(differs, -code, code)


def descent_direction(
    first: np.ndarray, second: np.ndarray, projection: np.ndarray, losses: np.ndarray
) -> np.ndarray:
    """The negative gradient of the bound's mean: the mean of x (b - g)' + y (c - h)', [F, k].

    first, second: the pairs' features x and y, [n, F]; b, c: their codes, g, h the worst ones.
    """
    p, q = first @ projection, second @ projection
    g, h = worst_codes(p, q, losses)
    b, c = (np.where(scores > 0, np.float32(1), np.float32(-1)) for scores in (p, q))
    return (first.T @ (b - g) + second.T @ (c - h)) / len(first)
