"""Distinct codes around centres: all within a radius of a query, mostly without comparing all.

A code x is in the cell of its nearest centre c. If x is within r bits of a query q, then d(x, c) is
within r of d(q, c), and d(q, c) is at most 2 r above the distance of q to its own nearest centre:
the triangle inequality. Codes of which that is not so are not looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfhash.search import scan

_MOST = 2_048  # centres: each is compared with every code, once
_BLOCK = 1 << 16  # codes compared at once
_SLOWER = 6  # times, to compare codes here and there than one after the other


class Cells:
    """Distinct codes in the order of their cells, and in a cell of their distance to its centre.

    codes: uint64 [u, words], in that order; centres: uint64 [c, words]; rings: int64 [c, bits + 2],
    where in the codes those of a cell begin that are 0, 1, 2 ... bits from its centre.
    """

    def __init__(self, codes: np.ndarray, centres: np.ndarray, rings: np.ndarray):
        self.codes, self.centres, self.rings = codes, centres, rings

    @classmethod
    def of(cls, codes: np.ndarray, faiss: Any) -> tuple[Cells, np.ndarray]:
        """Cells of distinct codes, uint64 [u, words], and the order they take, int64 [u]."""
        count = min(int(np.ceil(np.sqrt(len(codes)))), _MOST)
        chosen = np.random.default_rng(0).choice(len(codes), count, replace=False)
        centres = np.ascontiguousarray(codes[np.sort(chosen)])
        most = codes.shape[1] * 64 + 1  # rings of a cell
        ring = np.zeros(len(codes), np.int64)
        if count:
            flat = faiss.IndexBinaryFlat(codes.shape[1] * 64)
            flat.add(as_bytes(centres))
            for start in range(0, len(codes), _BLOCK):
                far, nearest = flat.search(as_bytes(codes[start : start + _BLOCK]), 1)
                ring[start : start + _BLOCK] = nearest[:, 0] * most + far[:, 0]
        order = np.argsort(ring, kind="stable")
        edges = np.searchsorted(ring[order], np.arange(count * most))
        # The last ring of a cell ends where the first of the next one begins.
        ends = np.append(edges[most::most], len(codes))[:count, None]
        rings = np.hstack([edges.reshape(count, most), ends])
        return cls(np.ascontiguousarray(codes[order]), centres, rings), order

    def within(self, query: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of the codes at most `radius` bits from a query [words], and their distances."""
        far = scan.distances(query, self.centres).astype(np.int64)
        nearest = far.min() if len(far) else 0
        near = np.flatnonzero(far <= nearest + 2 * radius)
        last = self.rings.shape[1] - 1
        first = self.rings[near, np.clip(far[near] - radius, 0, last)]
        counts = self.rings[near, np.clip(far[near] + radius + 1, 0, last)] - first
        total = int(counts.sum())
        if _SLOWER * total > len(self.codes):
            return self._among_all(query, radius)
        places = np.arange(total) + np.repeat(first - (counts.cumsum() - counts), counts)
        found = scan.distances(query, self.codes[places])
        there = found <= radius
        return places[there], found[there].astype(np.int64)

    def _among_all(self, query: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
        places, distances = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start in range(0, len(self.codes), _BLOCK):
            found = scan.distances(query, self.codes[start : start + _BLOCK])
            there = np.flatnonzero(found <= radius)
            places.append(there + start)
            distances.append(found[there].astype(np.int64))
        return np.concatenate(places), np.concatenate(distances)

    def counts(self, query: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Of each distance the sum of the weights [u] of the codes there: int64 [bits + 1]."""
        most = self.codes.shape[1] * 64 + 1
        found = np.zeros(most, np.int64)
        for start in range(0, len(self.codes), _BLOCK):
            some = slice(start, start + _BLOCK)
            distances = scan.distances(query, self.codes[some])
            # Sums of float64, which are whole up to 2^53.
            found += np.bincount(distances, weights[some], most).astype(np.int64)
        return found


class Distinct:
    """Rows by their codes: each distinct code once, in the order of `cells`, with its rows.

    rows: int64 [n], those of the first code, then those of the second ...; starts: int64 [u + 1],
    where those of each code begin.
    """

    def __init__(self, cells: Cells, rows: np.ndarray, starts: np.ndarray):
        self.cells, self.rows, self.starts = cells, rows, starts
        self._rank: np.ndarray | None = None
        self._live = np.zeros(0, np.int64)

    @classmethod
    def of(cls, codes: np.ndarray, kept: np.ndarray, faiss: Any) -> Distinct:
        """Those of codes uint64 [n, words]; kept: bool [n], which rows have an item."""
        words = codes.shape[1]
        places = np.flatnonzero(kept)
        # As bytes, for np.unique of several columns sorts them one after the other.
        as_one = np.ascontiguousarray(codes[places]).view(f"V{words * 8}").ravel()
        unique, inverse = np.unique(as_one, return_inverse=True)
        cells, order = Cells.of(unique.view(np.uint64).reshape(len(unique), words), faiss)
        place = np.empty(len(unique), np.int64)
        place[order] = np.arange(len(unique))
        of_row = place[inverse]
        by_code = np.argsort(of_row, kind="stable")
        starts = np.searchsorted(of_row[by_code], np.arange(len(unique) + 1))
        return cls(cells, places[by_code], starts)

    @property
    def codes(self) -> np.ndarray:
        return self.cells.codes

    def live(self, rank: np.ndarray) -> np.ndarray:
        """How many rows of each code have an item still, int64 [u]; rank: -1 of rows without."""
        if self._rank is not rank:
            sums = np.append(0, np.cumsum(rank[self.rows] >= 0))
            self._rank, self._live = rank, np.diff(sums[self.starts])
        return self._live

    def rows_of(self, places: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """The rows of codes that have an item still, int64 [m]."""
        parts = [self.rows[self.starts[place] : self.starts[place + 1]] for place in places]
        rows = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return rows[rank[rows] >= 0]


def as_bytes(codes: np.ndarray) -> np.ndarray:
    """Codes uint64 [n, words] as faiss takes them, uint8 [n, 8 words]."""
    return np.ascontiguousarray(codes).view(np.uint8).reshape(len(codes), codes.shape[1] * 8)
