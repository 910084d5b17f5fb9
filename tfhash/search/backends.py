"""Which backend an index has, and what it has built of the items so far."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfhash.codes import is_whole
from tfhash.errors import UserError
from tfhash.search import approximate, kept, scan
from tfhash.search.store import Store

NAMES = ("exact", *approximate.BACKENDS)
_PATIENCE = 10_000  # items that came since are compared one by one, up to so many and a tenth


class Backend:
    """What answers the k nearest, for one of NAMES; `exact` needs nothing of this.

    The index of faiss is made by `prepare`, or when it is first asked for, and again when many
    items came since; it is kept beside the codes. Items of since are compared one by one, those
    that were removed are left out. told: how it was set up, empty before.
    """

    def __init__(self, name: str, recall: float, sure_radius: int | None):
        if name not in NAMES:
            raise UserError(f"`backend`: {name!r}; allowed: {', '.join(NAMES)}")
        if not 0 < recall <= 1:
            raise UserError(f"`recall`: {recall}; allowed: above 0 and at most 1")
        if sure_radius is not None:
            if name != "multihash":
                raise UserError(f"`sure_radius`: not with `backend`={name}; allowed: multihash")
            if not is_whole(sure_radius) or sure_radius < 0:
                raise UserError(f"`sure_radius`: {sure_radius!r}; allowed: whole numbers from 0 on")
        if name != "exact":
            approximate.faiss_module()
        self.name, self.recall, self.sure_radius = name, recall, sure_radius
        self.told = ""
        self._built: approximate.Approximate | None = None
        self._file = ""
        self._of_file = ""  # what is to be told of the file that keeps it

    @classmethod
    def of(cls, meta: Callable[[str], str]) -> Backend:
        """The one that an index was made with."""
        radius = meta("sure_radius")
        name, recall = meta("backend") or "exact", float(meta("recall") or approximate.RECALL)
        return cls(name, recall, int(radius) if radius else None)

    @property
    def settings(self) -> dict[str, str]:
        radius = "" if self.sure_radius is None else str(self.sure_radius)
        return {"backend": self.name, "recall": str(self.recall), "sure_radius": radius}

    def prepare(self, store: Store) -> str:
        """Makes what a search needs, where it is not there; in words how it is set up.

        Empty for `exact`, which needs nothing.
        """
        if self.name != "exact":
            self._current(store, store.codes, store.rank)
        return self.told

    def k_nearest(self, queries: np.ndarray, store: Store, k: int) -> list[scan.Rows]:
        """As `scan.k_nearest` over all items of the store."""
        codes, rank = store.codes, store.rank
        built = self._current(store, codes, rank)
        found = built.k_nearest(queries, k, rank)
        self.told = " ".join(filter(None, (built.told, self._of_file)))
        if built.count == len(codes):
            return found
        first = built.count
        later = scan.k_nearest(queries, codes[first:], k, rank[first:], rank[first:] >= 0)
        return [
            _merged(one, other, first, k, rank) for one, other in zip(found, later, strict=True)
        ]

    def _current(
        self, store: Store, codes: np.ndarray, rank: np.ndarray
    ) -> approximate.Approximate:
        file = store.meta("file")  # another one has other row numbers
        built = self._built
        if built is None or file != self._file or self._is_old(built, len(codes)):
            self._of_file = ""
            built = self._read(store, file, codes)
            if built is None or self._is_old(built, len(codes)):
                built = approximate.BACKENDS[self.name].of(codes, rank >= 0, store.code_length)
                self._choose(built)
                self._keep(store, file, built, codes)
            else:
                self._choose(built)
            self._built, self._file = built, file
            self.told = " ".join(filter(None, (built.told, self._of_file)))
        return built

    def _choose(self, built: approximate.Approximate) -> None:
        """How much is looked through, where that was not chosen for the same recall before."""
        if self.sure_radius is not None and isinstance(built, approximate.MultiHash):
            built.choose_radius(self.sure_radius)
        elif built.recall != self.recall:
            built.choose_effort(self.recall)

    def _keep(
        self, store: Store, file: str, built: approximate.Approximate, codes: np.ndarray
    ) -> None:
        if store.directory is not None:
            try:
                kept.write(store.directory, file, built, codes)
            except OSError as error:  # who may not write may search
                self._of_file += f"(not kept: {error.strerror or error})"

    def _read(self, store: Store, file: str, codes: np.ndarray) -> approximate.Approximate | None:
        if store.directory is None:
            return None
        try:
            return kept.read(store.directory, file, self.name, store.code_length, codes)
        except ValueError as error:
            self._of_file = f"({kept.NAME.format(self.name)}: {error}; made again) "
            return None

    @staticmethod
    def _is_old(built: approximate.Approximate, count: int) -> bool:
        return count - built.count > _PATIENCE + built.count // 10


def _merged(one: scan.Rows, later: scan.Rows, first: int, k: int, rank: np.ndarray) -> scan.Rows:
    """The k nearest of two answers; `later` counts its rows from `first` on."""
    rows = np.concatenate([one.rows, later.rows + first])
    distances = np.concatenate([one.distances, later.distances])
    order = np.lexsort((rank[rows], distances))[:k]
    cut = scan.cut_of(distances, order)
    for answer in (one, later):  # what either left out at that distance
        if len(answer.distances) and answer.distances[-1] == distances[order[-1]]:
            cut += answer.ties_cut
    return scan.Rows(rows[order], distances[order], cut)
