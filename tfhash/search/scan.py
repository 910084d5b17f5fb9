"""Exact search: the query against every code, in blocks that stay in the second-level cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCK = 1 << 14  # rows: 128 KB, and as much again for what is made of them


class Rows(NamedTuple):
    """What one query found: row numbers and distances in bits, both int64 [m], nearest first.

    ties_cut: how many other rows are as far as the last one.
    """

    rows: np.ndarray
    distances: np.ndarray
    ties_cut: int = 0


def to_rows(codes: np.ndarray) -> np.ndarray:
    """Packed codes uint8 [n, w] as uint64 [n, ceil(w / 8)], zero bytes at the end of each.

    Eight bytes at a time are compared; zeros change no distance.
    """
    count, width = codes.shape
    padded = np.zeros((count, -(-width // 8) * 8), np.uint8)
    padded[:, :width] = codes
    return padded.view(np.uint64)


def to_codes(rows: np.ndarray, code_length: int) -> np.ndarray:
    """Undoes `to_rows`: uint64 [n, words] -> packed uint8 [n, ceil(code_length / 8)]."""
    return np.ascontiguousarray(rows).view(np.uint8)[:, : -(-code_length // 8)]


def distances(query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Bits in which a query uint64 [words] differs from rows uint64 [n, words]: uint8 or uint16."""
    found = np.bitwise_count(rows[:, 0] ^ query[0])
    if rows.shape[1] > 1:
        found = found.astype(np.uint16)
        for word in range(1, rows.shape[1]):
            found += np.bitwise_count(rows[:, word] ^ query[word])
    return found


def cut_of(values: np.ndarray, order: np.ndarray) -> int:
    """How many other values are as the last one that was chosen; order: places of the chosen."""
    if not len(order):
        return 0
    last = values[order[-1]]
    return int((values == last).sum() - (values[order] == last).sum())


def recall(found: Sequence[np.ndarray], best: Sequence[np.ndarray]) -> float:
    """The mean share of the nearest that was found, by distances, nearest first, of each query.

    Tie-aware: what was found counts where it is not farther than the true last one. 1 of no query.
    """
    shares = [
        (one[: len(two)] <= two[-1]).sum() / len(two)
        for one, two in zip(found, best, strict=True)
        if len(two)
    ]
    return float(np.mean(shares)) if shares else 1.0


def k_nearest(
    queries: np.ndarray,
    rows: np.ndarray,
    k: int,
    rank: np.ndarray,
    allowed: np.ndarray | None = None,
) -> list[Rows]:
    """The k nearest rows of each query; all of them where there are fewer.

    queries: uint64 [q, words]; rows: uint64 [n, words]; rank: [n], the order of rows at one
    distance; allowed: bool [n], which rows count, by default all.
    """
    candidates = [_Nearest(query, k) for query in queries]
    _through_blocks(candidates, rows, allowed)
    return [of_query.answer(rank) for of_query in candidates]


def within(
    queries: np.ndarray,
    rows: np.ndarray,
    radius: int,
    rank: np.ndarray,
    allowed: np.ndarray | None = None,
) -> list[Rows]:
    """The rows at most `radius` bits from each query; other arguments as of `k_nearest`."""
    candidates = [_Within(query, radius) for query in queries]
    _through_blocks(candidates, rows, allowed)
    return [of_query.answer(rank) for of_query in candidates]


def _through_blocks(
    candidates: Sequence[_Within], rows: np.ndarray, allowed: np.ndarray | None
) -> None:
    scratch = _Scratch(min(BLOCK, len(rows)), rows.shape[1])
    # Blocks outside, queries inside: a file that is larger than the memory is read once.
    for start in range(0, len(rows), BLOCK):
        block = np.asarray(rows[start : start + BLOCK])
        chosen = None
        if allowed is not None:
            chosen = np.flatnonzero(allowed[start : start + BLOCK])
            block = block[chosen]
        for of_query in candidates:
            of_query.take(scratch.distances(of_query.query, block), start, chosen)


class _Scratch:
    """Memory for the distances of a block, used again for each query."""

    def __init__(self, size: int, words: int):
        self.differing = np.empty(size, np.uint64)
        self.bits = np.empty(size, np.uint8)
        self.found = np.empty(size, np.uint8 if words == 1 else np.uint16)

    def distances(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """As the function of that name; valid until the next call."""
        count = len(rows)
        differing: np.ndarray = self.differing[:count]
        found: np.ndarray = self.found[:count]
        bits = found if rows.shape[1] == 1 else self.bits[:count]
        if bits is not found:
            found[:] = 0
        for word, of_query in enumerate(query):
            np.bitwise_xor(rows[:, word], of_query, out=differing)
            np.bitwise_count(differing, out=bits)
            if bits is not found:
                found += bits
        return found


class _Within:
    """The rows that a query has found so far: those up to `limit`."""

    def __init__(self, query: np.ndarray, limit: int):
        self.query, self.limit = query, limit
        self.rows: list[np.ndarray] = []
        self.distances: list[np.ndarray] = []

    def take(self, of_block: np.ndarray, start: int, chosen: np.ndarray | None) -> None:
        """Takes what it may need of a block, whose distances are given."""
        if not len(of_block) or of_block.min() > self.limit:  # most blocks; quicker than to look
            return
        self.look(of_block)
        found = np.flatnonzero(of_block <= self.limit)
        self.distances.append(of_block[found].astype(np.int64))
        self.rows.append((found if chosen is None else chosen[found]) + start)

    def look(self, of_block: np.ndarray) -> None:
        """Lowers the limit, where a block allows it."""

    def answer(self, rank: np.ndarray) -> Rows:
        rows, found = self._found()
        order = np.lexsort((rank[rows], found))
        return Rows(rows[order], found[order])

    def _found(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.rows:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return np.concatenate(self.rows), np.concatenate(self.distances)


class _Nearest(_Within):
    """The same of its k nearest: the limit is the distance of the k-th one so far."""

    def __init__(self, query: np.ndarray, k: int):
        self.most = 64 * len(query)
        super().__init__(query, self.most)
        self.k = k
        self.counts = np.zeros(self.most + 1, np.int64)

    def look(self, of_block: np.ndarray) -> None:
        near = of_block if self.limit == self.most else of_block[of_block <= self.limit]
        self.counts += np.bincount(near, minlength=self.most + 1)
        # What was counted beyond the limit does no harm: the sum up to it is what decides.
        sums = self.counts[: self.limit + 1].cumsum()
        if sums[-1] >= self.k:
            self.limit = int(np.searchsorted(sums, self.k))

    def answer(self, rank: np.ndarray) -> Rows:
        rows, found = self._found()
        near = found <= self.limit
        rows, found = rows[near], found[near]
        order = np.lexsort((rank[rows], found))[: self.k]
        return Rows(rows[order], found[order], cut_of(found, order))
