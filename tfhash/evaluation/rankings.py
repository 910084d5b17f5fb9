"""Expected precisions and gains of rankings with ties, in closed form."""

from __future__ import annotations

import numpy as np


class Ranking:
    """Rankings of one database as successive blocks of ties, any order within a block as likely.

    sizes, hits: int64 [q, blocks], the items of each block and the relevant ones among them.
    shared: int64 [q, blocks], the labels that its items share with the query, in all. gains:
    float64 [q, blocks], the sum of 2^r - 1 over its items, each of which shares r labels, in a unit
    of the query.
    """

    def __init__(self, sizes: np.ndarray, hits: np.ndarray, shared: np.ndarray, gains: np.ndarray):
        self.sizes = sizes
        self.hits = hits
        self.shared = shared
        self.gains = gains
        self.before = np.cumsum(sizes, axis=1) - sizes

    def relevant_in_top(self, depth: int) -> np.ndarray:
        """Expected number of relevant items in the first `depth` ranks, float64 [q]."""
        return self._sum_in_top(self.hits, depth)

    def shared_in_top(self, depth: int) -> np.ndarray:
        """Expected sum of r_i over the first `depth` ranks, float64 [q]."""
        return self._sum_in_top(self.shared, depth)

    def discounted_gain(self, depth: int, discounts: np.ndarray) -> np.ndarray:
        """Expected sum of (2^r_i - 1) / log2(1 + i) over the first `depth` ranks, float64 [q].

        At each rank of a block the expected gain is the mean of the block, also where the cut goes
        through it. discounts: float64 [database size + 1], cumulated from 0.
        """
        of_ranks = discounts[self.before + self._taken(depth)] - discounts[self.before]
        return (self.gains / np.maximum(self.sizes, 1) * of_ranks).sum(axis=1)

    def average_precision(self, depth: int, harmonic: np.ndarray) -> np.ndarray:
        """Expectation of the mean precision at the hits of the top `depth`, 0 without a hit.

        harmonic: float64 [database size + 1], from H[0] = 0. Returns float64 [q].
        """
        return self._mean_at_hits(self.hits, depth, harmonic)

    def weighted_average_precision(self, depth: int, harmonic: np.ndarray) -> np.ndarray:
        """Expectation of the mean of ACG@i at the hits of the top `depth`, 0 without a hit.

        Given which ranks of a block are hits, each order of its relevant items on them is as
        likely. So the expected r of each of these is their mean in the block, g, and ACG@i at a hit
        is expected to be what it were if all of them shared g labels: E[1[r_i > 0] r_j] is
        g P(i and j are hits). The number of hits, which the sum is divided by, is given with them.
        """
        return self._mean_at_hits(self.shared, depth, harmonic)

    def _mean_at_hits(self, values: np.ndarray, depth: int, harmonic: np.ndarray) -> np.ndarray:
        """Expectation of the mean, over the hits of the top `depth`, of the mean value up to each.

        Of the block that the cut goes through, n items, r of them relevant, m stand above it. How
        many of those are hits, h, is hypergeometric, and tells the number that the sum is divided
        by. The blocks before it are whole, and their hits and values certain.

        values: [q, blocks], the sum over the hits of each block; of all other items it is 0.
        """
        taken = self._taken(depth)
        whole = taken == self.sizes
        hits = np.where(whole, self.hits, 0)
        value = values / np.maximum(self.hits, 1)
        value_before = np.cumsum(values, axis=1) - values
        sums = _sum_at_hits(hits, taken, self.before, value, value_before, harmonic)
        found, total = hits.sum(axis=1), sums.sum(axis=1)
        result = share(total, found)
        for query, block in np.argwhere(~whole & (taken > 0)):
            items, relevant = self.sizes[query, block], self.hits[query, block]
            m = taken[query, block]
            h, chance = _hits_of_sample(items, relevant, m)
            before, v, v_before = (a[query, block] for a in (self.before, value, value_before))
            within = _sum_at_hits(h, m, before, v, v_before, harmonic)
            of_h = (total[query] + within) / np.maximum(found[query] + h, 1)
            result[query] = (chance * of_h).sum()
        return result

    def _sum_in_top(self, values: np.ndarray, depth: int) -> np.ndarray:
        return (values / np.maximum(self.sizes, 1) * self._taken(depth)).sum(axis=1)

    def _taken(self, depth: int) -> np.ndarray:
        """How many items of each block stand in the first `depth` ranks."""
        return np.clip(depth - self.before, 0, self.sizes)


def of_ties(counts: np.ndarray, ties: str) -> Ranking:
    """The ranking that histograms [q, distances, grades] stand for, the grade being r.

    Under "best" and "worst" each distance is a block for each grade, in which all items are alike.
    """
    grades = np.arange(counts.shape[2])
    most = np.where(counts.any(axis=1), grades, 0).max(axis=1, keepdims=True)
    gains = _gain(grades, most)[:, None]
    parts = counts, counts * (grades > 0), counts * grades, counts * gains
    if ties == "expected":
        return Ranking(*(part.sum(axis=2) for part in parts))
    step = -1 if ties == "best" else 1
    return Ranking(*(part[:, :, ::step].reshape(len(counts), -1) for part in parts))


def of_items(grades: np.ndarray) -> Ranking:
    """The ranking of items whose r, [q, n], stands in the order of their ranks."""
    shared = grades.astype(np.int64)
    gains = _gain(shared, shared.max(axis=1, keepdims=True))
    return Ranking(np.ones_like(shared), (shared > 0).astype(np.int64), shared, gains)


def ideal(counts: np.ndarray) -> Ranking:
    """The items of histograms [q, distances, grades], those of the highest grade first."""
    return of_ties(counts.sum(axis=1, keepdims=True), "best")


def share(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """parts / wholes, 0 where the whole is 0: float64 [q]."""
    return np.where(wholes > 0, parts / np.where(wholes > 0, wholes, 1), 0.0)


def cumulated(values: np.ndarray) -> np.ndarray:
    """The sums of the first 0, 1, ..., n values, float64 [n + 1]."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _gain(shared: np.ndarray, most: np.ndarray) -> np.ndarray:
    """2^r - 1, over 2^most, of which no number of labels is too large."""
    return np.exp2(shared - most) - np.exp2(-most)


def _sum_at_hits(
    hits: np.ndarray,
    ranks: np.ndarray,
    before: np.ndarray,
    value: np.ndarray,
    value_before: np.ndarray,
    harmonic: np.ndarray,
) -> np.ndarray:
    """Expected sum, over the hits among m ranks, of the mean value up to each, in any order.

    They follow N items of values V in all; r of the m are hits, of value v each in expectation. The
    j-th is a hit with probability r / m, and if so, the first N + j items are expected to have
    V + v + (j - 1) v (r - 1) / (m - 1) (McSherry and Najork, ECIR 2008, of precisions: there V is
    the number of hits before, and v is 1). With a = V + v, b = v (r - 1) / (m - 1) and the harmonic
    numbers H this is
        r / m * sum_{j=1..m} (a + (j - 1) b) / (N + j)
            = r / m * (b m + (a - b (N + 1)) (H[N + m] - H[N])).

    hits: r, ranks: m, before: N, value: v, value_before: V, of any shapes that go together.
    """
    slope = value * (hits - 1) / np.maximum(ranks - 1, 1)
    reciprocals = harmonic[before + ranks] - harmonic[before]
    offset = value_before + value - slope * (before + 1)
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
