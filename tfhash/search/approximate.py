"""Quicker search by faiss, over distinct codes: a learned hash gives many images one code.

A graph or a list over images would be full of copies of the same few codes: HNSW then finds half of
the nearest, whatever its parameters. Over distinct codes, each with the list of its images, it does
not. What faiss finds says how far the k-th item is at most, and all up to there are then looked up,
so that answers, their order and the ties that were cut are those of comparing every code. Needs the
extra `faiss`.
"""

from __future__ import annotations

import abc
import logging
import os
from typing import Any, ClassVar, Self

import numpy as np

from tfhash.errors import UserError
from tfhash.search import scan
from tfhash.search.cells import Distinct, as_bytes

RECALL = 0.99
ASKED = 200  # queries that a recall is measured with
FLIPPED = 0.05  # of the bits of a code that such a query differs in
NEAREST = 10  # the k of that recall, and of 10, 100 ... times as many where these are asked for
_SHARE = 4  # of the distinct codes, from which on comparing all is quicker


def faiss_module() -> Any:
    """faiss, on one thread: on a busy machine its threads wait for each other."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # what it tries, in eight lines
    try:
        import faiss
    except ImportError:
        raise UserError(
            "`backend`: ivf, hnsw and multihash need faiss: pip install 'tfhash[faiss]'; allowed "
            "without it: exact"
        ) from None
    faiss.omp_set_num_threads(1)
    return faiss


class Approximate(abc.ABC):
    """The distinct codes of the first rows in an index of faiss, and the nearest items by it.

    distinct: the codes, of the first `count` rows; index: that of faiss over them, where it was
    made before. told: how its parameters were chosen, for who prints.
    """

    steps: ClassVar[tuple[int, ...]]

    def __init__(self, distinct: Distinct, count: int, code_length: int, index: Any = None):
        self.faiss = faiss_module()
        self.distinct, self.count, self.code_length = distinct, count, code_length
        self.index = self.build(as_bytes(distinct.codes)) if index is None else index
        self.told = ""
        self.recall: float | None = None  # None: the effort is one for every k
        self._efforts: dict[int, int] = {}

    @classmethod
    def of(cls, rows: np.ndarray, kept: np.ndarray, code_length: int) -> Self:
        """That of rows uint64 [n, words]; kept: bool [n], which of them have an item."""
        return cls(Distinct.of(rows, kept, faiss_module()), len(rows), code_length)

    @abc.abstractmethod
    def build(self, codes: np.ndarray) -> Any:
        """An index of faiss over distinct codes, uint8 [u, 8 words]."""

    @abc.abstractmethod
    def set_effort(self, effort: int) -> None:
        """How much is looked through: one of `steps`."""

    @abc.abstractmethod
    def name(self) -> str:
        """That of its effort, for who prints."""

    def choose_effort(self, recall: float, k: int = NEAREST) -> None:
        """Sets the least effort with this recall of the k nearest distinct codes, and tells it.

        Measured on codes of the index in which FLIPPED of the bits are changed, before what is
        missing is looked up. Recall is tie-aware: the share of what was found that is not farther
        than the true last one.
        """
        if recall != self.recall:
            self.recall, self._efforts, self.told = recall, {}, ""
        codes = self.distinct.codes
        queries = self._asked(max(ASKED * NEAREST // k, NEAREST))
        answers = scan.k_nearest(queries, codes, k, np.arange(len(codes)))
        exact = [rows.distances for rows in answers]
        measured, effort = 1.0, self.steps[0]
        for effort in self.steps:
            self.set_effort(effort)
            found = [self._ask(query, k)[1] for query in queries]
            measured = scan.recall(found, exact)
            if measured >= recall:
                break
        self._efforts[k] = effort
        words = (
            f"{self.name()}={effort}: recall@{k} {measured:.4f}, measured on {len(queries)} "
            f"codes with {FLIPPED:.0%} of the bits changed; what it misses is looked up"
        )
        self.told = f"{self.told}; {words}" if self.told else words

    @property
    def chosen(self) -> tuple[float, int, str] | None:
        """The recall that an effort was chosen for, that effort, and what was told of it."""
        effort = self._efforts.get(NEAREST)
        return None if self.recall is None or effort is None else (self.recall, effort, self.told)

    def resume(self, recall: float, effort: int, told: str) -> None:
        """Takes what was `chosen` for the same codes before. ValueError for what never is."""
        if effort not in self.steps:
            raise ValueError("its effort is none of this backend")
        self.recall, self._efforts, self.told = recall, {NEAREST: effort}, told

    def _asked(self, count: int) -> np.ndarray:
        """Codes of the index with some bits changed, uint64 [q, words]."""
        rng = np.random.default_rng(0)
        codes = self.distinct.codes
        chosen = codes[rng.integers(0, max(len(codes), 1), min(count, len(codes)))]
        bits = np.unpackbits(as_bytes(chosen), axis=1)
        bits[:, : self.code_length] ^= rng.random((len(chosen), self.code_length)) < FLIPPED
        return np.packbits(bits, axis=1).view(np.uint64).reshape(chosen.shape)

    def k_nearest(self, queries: np.ndarray, k: int, rank: np.ndarray) -> list[scan.Rows]:
        """As `scan.k_nearest` over the first `count` rows; rank: -1 of rows without an item."""
        quick = k * _SHARE <= len(self.distinct.codes)
        if quick and self.recall is not None:
            level = NEAREST
            while level < k and level * NEAREST * _SHARE <= len(self.distinct.codes):
                level *= NEAREST
            if level not in self._efforts:
                self.choose_effort(self.recall, level)
            self.set_effort(self._efforts[level])
        return [self._nearest(query, k, rank, quick) for query in queries]

    def _nearest(self, query: np.ndarray, k: int, rank: np.ndarray, quick: bool) -> scan.Rows:
        live = self.distinct.live(rank)
        radius = self._reach(query, k, live) if quick else None
        if radius is None:
            sums = self.distinct.cells.counts(query, live).cumsum()
            radius = int(np.searchsorted(sums, min(k, sums[-1])))
        return self._first(*self.distinct.cells.within(query, radius), k, rank)

    def _first(
        self, places: np.ndarray, distances: np.ndarray, k: int, rank: np.ndarray
    ) -> scan.Rows:
        """The first k rows of all codes up to some distance."""
        counts = self.distinct.live(rank)[places]
        sums = np.bincount(distances, counts).cumsum()
        last = int(np.searchsorted(sums, min(k, sums[-1]))) if len(sums) else 0
        nearer = distances < last
        rows = self.distinct.rows_of(places[nearer], rank)
        of_rows = np.repeat(distances[nearer], counts[nearer])
        order = np.lexsort((rank[rows], of_rows))
        ties = self.distinct.rows_of(places[distances == last], rank)
        room = min(k - len(rows), len(ties))
        # A code may have very many items: those that are cut are not sorted.
        first = ties[np.argpartition(rank[ties], room)[:room]] if room < len(ties) else ties
        first = first[np.argsort(rank[first])]
        found = np.append(of_rows[order], np.full(room, last))
        return scan.Rows(np.append(rows[order], first), found, len(ties) - room)

    def _reach(self, query: np.ndarray, k: int, live: np.ndarray) -> int | None:
        """How far the k-th item is at most; None where fewer were found."""
        places, distances = self._ask(query, k)
        order = np.argsort(distances, kind="stable")
        sums = live[places[order]].cumsum()
        last = np.searchsorted(sums, k)
        return int(distances[order[last]]) if last < len(sums) else None

    def _ask(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of up to k distinct codes that faiss finds, and their distances."""
        if not min(k, len(self.distinct.codes)):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        distances, places = self.index.search(as_bytes(query[None]), k)
        there = places[0] >= 0  # faiss fills up with -1
        return places[0][there], distances[0][there].astype(np.int64)


class IVF(Approximate):
    """Lists around centres, of which the nearest are looked through."""

    steps = (1, 2, 4, 8, 16, 32, 64, 128, 256)

    def build(self, codes: np.ndarray) -> Any:
        lists = int(np.clip(2 ** np.round(np.log2(max(len(codes), 1)) / 2), 1, 4096))
        bits = codes.shape[1] * 8
        self.quantizer = self.faiss.IndexBinaryFlat(bits)  # faiss does not keep it alive
        index = self.faiss.IndexBinaryIVF(self.quantizer, bits, lists)
        index.own_fields = False
        if len(codes):
            index.cp.min_points_per_centroid = 1
            index.train(codes)
            index.add(codes)
        return index

    def set_effort(self, effort: int) -> None:
        self.index.nprobe = min(effort, self.index.nlist)

    def name(self) -> str:
        return f"ivf, {self.index.nlist} lists, nprobe"


class HNSW(Approximate):
    """A graph of neighbours, which is walked."""

    steps = (16, 32, 64, 128, 256, 512)

    def build(self, codes: np.ndarray) -> Any:
        index = self.faiss.IndexBinaryHNSW(codes.shape[1] * 8, 16)
        if len(codes):
            index.add(codes)
        return index

    def set_effort(self, effort: int) -> None:
        self.index.hnsw.efSearch = effort

    def name(self) -> str:
        return "hnsw, M=16, efSearch"


class MultiHash(Approximate):
    """Tables of parts of the codes: whatever is within a radius is found, and that is sure."""

    steps = (0, 1, 2, 3)

    def build(self, codes: np.ndarray) -> Any:
        # As many bits in a part as tell the codes apart, so that a place in a table holds few.
        part = int(np.clip(np.ceil(np.log2(max(len(codes), 2))), 4, 24))
        part = min(part, self.code_length)
        index = self.faiss.IndexBinaryMultiHash(codes.shape[1] * 8, self.code_length // part, part)
        if len(codes):
            index.add(codes)
        return index

    def set_effort(self, effort: int) -> None:
        self.index.nflip = min(effort, self.index.b)

    @property
    def radius(self) -> int:
        """All codes within so many bits are found."""
        return self.index.nhash * (self.index.nflip + 1) - 1

    def choose_radius(self, radius: int) -> None:
        """Sets the least effort at which all within the radius are found, and tells it."""
        effort = min(-(-(radius + 1) // self.index.nhash) - 1, self.index.b)
        self.set_effort(effort)
        self.recall, self._efforts = None, {}
        self.told = f"{self.name()}={effort}: all within {self.radius} bits are found"

    def name(self) -> str:
        return f"multihash, {self.index.nhash} tables of {self.index.b} bits, nflip"


BACKENDS: dict[str, type[Approximate]] = {"ivf": IVF, "hnsw": HNSW, "multihash": MultiHash}
