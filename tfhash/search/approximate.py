"""Approximate search by faiss, over distinct codes: a learned hash gives many images one code.

A graph or a list over images would be full of copies of the same few codes: HNSW then finds half of
the nearest, whatever its parameters. Over distinct codes, each with the list of its images, it does
not. Needs the extra `faiss`.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from tfhash.errors import UserError
from tfhash.search import scan

RECALL = 0.99
ASKED = 200  # queries that a recall is measured with
FLIPPED = 0.05  # of the bits of a code that such a query differs in
NEAREST = 10  # the k of that recall


def faiss_module() -> Any:
    """faiss, on one thread: on a busy machine its threads wait for each other."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
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
    """The distinct codes of rows in an index of faiss.

    rows: uint64 [n, words]; kept: bool [n], which of them have an item. told: how its parameters
    were chosen, for who prints.
    """

    steps: ClassVar[tuple[int, ...]]

    def __init__(self, rows: np.ndarray, kept: np.ndarray, code_length: int):
        self.faiss = faiss_module()
        self.count = len(rows)
        places = np.flatnonzero(kept)
        # As bytes, for np.unique of several columns sorts them one after the other.
        as_bytes = np.ascontiguousarray(rows[places]).view(f"V{rows.shape[1] * 8}").ravel()
        unique, inverse = np.unique(as_bytes, return_inverse=True)
        self.codes = unique.view(np.uint64).reshape(len(unique), rows.shape[1])
        order = np.argsort(inverse, kind="stable")
        self.rows = places[order]  # those of the first distinct code, then those of the second ...
        self.starts = np.searchsorted(inverse[order], np.arange(len(unique) + 1))
        self.code_length = code_length
        self.told = ""
        self.index = self.build(self.codes.view(np.uint8).reshape(len(unique), rows.shape[1] * 8))

    @abc.abstractmethod
    def build(self, codes: np.ndarray) -> Any:
        """An index of faiss over distinct codes, uint8 [u, 8 words]."""

    @abc.abstractmethod
    def set_effort(self, effort: int) -> None:
        """How much is looked through: one of `steps`."""

    def choose_effort(self, recall: float) -> None:
        """Sets the least effort with this recall of the NEAREST distinct codes, and tells it.

        Measured on codes of the index in which FLIPPED of the bits are changed. Recall is
        tie-aware: the share of what was found that is not farther than the true last one.
        """
        rng = np.random.default_rng(0)
        chosen = self.codes[rng.integers(0, max(len(self.codes), 1), min(ASKED, len(self.codes)))]
        as_bytes = np.ascontiguousarray(chosen).view(np.uint8)
        bits = np.unpackbits(as_bytes, axis=1)
        flipped = rng.random((len(chosen), self.code_length)) < FLIPPED
        bits[:, : self.code_length] ^= flipped
        queries = np.packbits(bits, axis=1).view(np.uint64).reshape(chosen.shape)
        rank = np.arange(len(self.codes))
        exact = scan.k_nearest(queries, self.codes, NEAREST, rank)
        measured, effort = 1.0, self.steps[0]
        for effort in self.steps:
            self.set_effort(effort)
            shares = [
                (found <= best.distances[-1]).sum() / len(best.distances)
                for (_, found), best in zip(self._ask(queries, NEAREST), exact, strict=True)
            ]
            measured = float(np.mean(shares)) if shares else 1.0
            if measured >= recall:
                break
        self.told = (
            f"{self.name()}={effort}: recall@{NEAREST} {measured:.4f}, measured on {len(queries)} "
            f"codes with {FLIPPED:.0%} of the bits changed"
        )
        if measured < recall:
            self.told += f"; {recall} was asked for"

    @abc.abstractmethod
    def name(self) -> str:
        """That of its effort, for who prints."""

    def k_nearest(self, queries: np.ndarray, k: int, rank: np.ndarray) -> list[scan.Rows]:
        """As `scan.k_nearest`, as far as is found; rank: -1 of rows without an item."""
        answers = []
        for query in queries:
            # Codes whose items were all removed since answer nothing: more are asked for.
            wanted = k
            while True:
                ((codes, found),) = self._ask(query[None], min(wanted, len(self.codes)))
                rows, distances = self._expanded(codes, found, rank)
                if len(rows) >= k or wanted >= len(self.codes):
                    break
                wanted *= 4
            order = np.lexsort((rank[rows], distances))[:k]
            cut = 0
            if len(order):
                last = distances[order[-1]]
                cut = int((distances == last).sum() - (distances[order] == last).sum())
            answers.append(scan.Rows(rows[order], distances[order], cut))
        return answers

    def _ask(self, queries: np.ndarray, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Distinct codes that were found and their distances, for each query."""
        if not k or not len(queries):
            nothing = np.zeros(0, np.int64)
            yield from ((nothing, nothing) for _ in queries)
            return
        as_bytes = np.ascontiguousarray(queries).view(np.uint8)
        for distances, codes in zip(*self.index.search(as_bytes, k), strict=True):
            there = codes >= 0  # faiss fills up with -1
            yield codes[there], distances[there].astype(np.int64)

    def _expanded(
        self, codes: np.ndarray, distances: np.ndarray, rank: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of distinct codes that have an item still, and their distances."""
        parts = [self.rows[self.starts[code] : self.starts[code + 1]] for code in codes]
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        rows = np.concatenate(parts)
        of_rows = np.repeat(distances, [len(part) for part in parts])
        there = rank[rows] >= 0
        return rows[there], of_rows[there]


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
        self.lists = lists
        return index

    def set_effort(self, effort: int) -> None:
        self.index.nprobe = min(effort, self.lists)

    def name(self) -> str:
        return f"ivf, {self.lists} lists, nprobe"


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
        self.part = min(part, self.code_length)
        self.tables = self.code_length // self.part
        bits = codes.shape[1] * 8
        index = self.faiss.IndexBinaryMultiHash(bits, self.tables, self.part)
        if len(codes):
            index.add(codes)
        return index

    def set_effort(self, effort: int) -> None:
        self.index.nflip = min(effort, self.part)

    @property
    def radius(self) -> int:
        """All codes within so many bits are found."""
        return self.tables * (self.index.nflip + 1) - 1

    def choose_radius(self, radius: int) -> None:
        """Sets the least effort at which all within the radius are found, and tells it."""
        effort = -(-(radius + 1) // self.tables) - 1
        if effort > self.part:
            effort = self.part
        self.set_effort(effort)
        self.told = f"{self.name()}={effort}: all within {self.radius} bits are found"

    def name(self) -> str:
        return f"multihash, {self.tables} tables of {self.part} bits, nflip"


BACKENDS: dict[str, type[Approximate]] = {"ivf": IVF, "hnsw": HNSW, "multihash": MultiHash}
