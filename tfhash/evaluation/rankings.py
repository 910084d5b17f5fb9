"""Expected precisions of rankings with ties, in closed form."""

from __future__ import annotations

import numpy as np


class Ranking:
    """Rankings of one database as successive blocks of ties, any order within a block as likely.

    sizes, hits: int64 [q, blocks], the items of each block and the relevant ones among them.
    """

    def __init__(self, sizes: np.ndarray, hits: np.ndarray):
        self.sizes = sizes
        self.hits = hits
        self.before = np.cumsum(sizes, axis=1) - sizes
        self.hits_before = np.cumsum(hits, axis=1) - hits

    def relevant_in_top(self, depth: int) -> np.ndarray:
        """Expected number of relevant items in the first `depth` ranks, float64 [q]."""
        return (self.hits / np.maximum(self.sizes, 1) * self._taken(depth)).sum(axis=1)

    def average_precision(self, depth: int, harmonic: np.ndarray) -> np.ndarray:
        """Expectation of the mean precision at the hits of the top `depth`, 0 without a hit.

        Of the block that the cut goes through, n items, r of them relevant, m stand above it. How
        many of those are hits, h, is hypergeometric, and tells the number that the sum of the
        precisions is divided by. The blocks before it are whole, and their hits certain.

        harmonic: float64 [database size + 1], from H[0] = 0. Returns float64 [q].
        """
        taken = self._taken(depth)
        whole = taken == self.sizes
        hits = np.where(whole, self.hits, 0)
        sums = _sum_of_precisions(hits, taken, self.before, self.hits_before, harmonic)
        found, total = hits.sum(axis=1), sums.sum(axis=1)
        result = total / np.maximum(found, 1)
        for query, block in np.argwhere(~whole & (taken > 0)):
            items, relevant = self.sizes[query, block], self.hits[query, block]
            m = taken[query, block]
            h, chance = _hits_of_sample(items, relevant, m)
            within = _sum_of_precisions(
                h, m, self.before[query, block], self.hits_before[query, block], harmonic
            )
            of_h = (total[query] + within) / np.maximum(found[query] + h, 1)
            result[query] = (chance * of_h).sum()
        return result

    def _taken(self, depth: int) -> np.ndarray:
        """How many items of each block stand in the first `depth` ranks."""
        return np.clip(depth - self.before, 0, self.sizes)


def _sum_of_precisions(
    hits: np.ndarray,
    ranks: np.ndarray,
    before: np.ndarray,
    hits_before: np.ndarray,
    harmonic: np.ndarray,
) -> np.ndarray:
    """Expected sum of the precisions at the hits of m ranks, r of them hits, in any order.

    They follow N items with h hits. The j-th is a hit with probability r / m, and if so,
    h + 1 + (j - 1) (r - 1) / (m - 1) of the first N + j items are expected to be (McSherry and
    Najork, ECIR 2008). With a = h + 1, b = (r - 1) / (m - 1) and the harmonic numbers H this is
        r / m * sum_{j=1..m} (a + (j - 1) b) / (N + j)
            = r / m * (b m + (a - b (N + 1)) (H[N + m] - H[N])).

    hits: r, ranks: m, before: N, hits_before: h, of any shapes that go together.
    """
    slope = (hits - 1) / np.maximum(ranks - 1, 1)
    reciprocals = harmonic[before + ranks] - harmonic[before]
    offset = hits_before + 1 - slope * (before + 1)
    return hits / np.maximum(ranks, 1) * (slope * ranks + offset * reciprocals)


def _hits_of_sample(items: int, relevant: int, sample: int) -> tuple[np.ndarray, np.ndarray]:
    """How many of a sample of items without replacement are relevant: the numbers, their chances.

    The hypergeometric distribution, by the quotients of successive chances, whose logarithms stay
    small where factorials would not.
    """
    hits = np.arange(max(0, sample - (items - relevant)), min(sample, relevant) + 1)
    h = hits[:-1].astype(np.float64)
    quotients = (relevant - h) * (sample - h) / ((h + 1) * (items - relevant - sample + h + 1))
    logs = np.concatenate([[0.0], np.cumsum(np.log(quotients))])
    chances = np.exp(logs - logs.max())
    return hits, chances / chances.sum()
