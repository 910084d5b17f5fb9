"""An index of codes: the nearest of a query by Hamming distance, with their ids and payload."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfhash import codes as code_arrays
from tfhash.errors import UserError
from tfhash.names import decoded
from tfhash.search import approximate, copying, embedded, scan
from tfhash.search.backends import Backend
from tfhash.search.changing import Changing
from tfhash.search.found import (
    Found,
    as_ids,
    check_codes,
    check_search,
    no_twice,
    one_of_each,
    some_of,
    whole,
)
from tfhash.search.items import Items
from tfhash.search.store import Store
from tfhash.search.values import check_where

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# The checks are for the other kinds of index as well.
__all__ = ["Found", "Index", "check_codes", "check_search", "no_twice", "one_of_each", "some_of"]


class Index(Items, Changing):  # type: ignore[override]  # its code_length is read-only
    """Codes with ids, searched by Hamming distance.

        index = tfhash.Index(codes, ids=paths, code_length=48)
        found = index.search(hasher.encode(photos), k=10)
        index.save("mine.index"); index = tfhash.Index.load("mine.index")

    Every code is compared (`backend="exact"`), a million of 48 bits in about a millisecond. An
    index that was loaded, or made with a `path`, lives in its folder: what `add` and `remove` have
    answered is on the disk, whatever ends the process.

    Args:
        codes: packed uint8 [n, ceil(code_length / 8)], or None for an index without items.
        ids: a name of each, no two the same.
        code_length: k, the bits of a code.
        payload: of each item any JSON value, or None; `where` filters by the values of objects,
            which are text, numbers, True and False.
        path: a folder to keep it in, which may not hold one; None: in memory.
        model: the fingerprint of the export that made the codes. It is kept for `build` and `query`
            of the commands, which refuse other exports; codes themselves do not tell who made them.
        backend: exact; or ivf, hnsw or multihash (extra `faiss`), which answer the same to
            `search(k=)` in less time.
        recall: of these, the least share of the nearest that faiss has to find, measured on codes
            of the index; what it misses is looked up.
        sure_radius: of multihash, instead: all items within so many bits are found.
    """

    def __init__(
        self,
        codes: ArrayLike | None = None,
        *,
        ids: Sequence[str] = (),
        code_length: int,
        payload: Sequence[Any] | None = None,
        path: Path | str | None = None,
        model: str = "",
        backend: str = "exact",
        recall: float = approximate.RECALL,
        sure_radius: int | None = None,
    ):
        width = -(-code_length // 8) if code_arrays.is_whole(code_length) else 0
        if codes is None:
            codes = np.zeros((0, max(width, 0)), np.uint8)
        checked = check_codes(codes, code_length)
        self._backend = Backend(backend, recall, sure_radius)
        self._lock = threading.RLock()
        meta = {"model": model, **self._backend.settings}
        self._store = Store(None if path is None else Path(path).expanduser(), code_length, meta)
        if not (len(checked) or len(ids)):
            return
        try:
            self.add(checked, ids=ids, payload=payload)
        except BaseException:  # the folder is free for another try
            self.close()
            self._store.discard()
            raise

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        check: bool = True,
        backend: str | None = None,
        recall: float = approximate.RECALL,
        sure_radius: int | None = None,
    ) -> Index:
        """The index of a folder. UserError where there is none, or it is damaged.

        check: read all codes and compare their checksums. backend, recall, sure_radius: other ones
        than it was made with.
        """
        index = cls.__new__(cls)
        index._lock = threading.RLock()
        index._store = Store(Path(path).expanduser())
        try:
            if check:
                index._store.check()
            if backend is None:
                index._backend = Backend.of(index._store.meta)
            else:
                index._backend = Backend(backend, recall, sure_radius)
        except BaseException:
            index.close()
            raise
        return index

    def save(self, path: Path | str) -> None:
        """Writes the items to a folder, in one move. UserError where one is there already.

        The index itself stays where it is.
        """
        with self._lock:
            copying.save(self._store, Path(path).expanduser())

    def close(self) -> None:
        """Lets go of the files; the index cannot be used any more."""
        with self._lock:
            self._store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def set_backend(
        self, name: str, recall: float = approximate.RECALL, sure_radius: int | None = None
    ) -> None:
        """Searches by another backend from now on, and keeps it; arguments as of the class."""
        backend = Backend(name, recall, sure_radius)
        with self._lock, self._store.transaction():
            for key, value in backend.settings.items():
                self._store.set_meta(key, value)
            self._backend = backend

    def optimise(self) -> str:
        """Sets the backend up now, not at the first search, and answers in words how."""
        with self._reading():
            return self._backend.prepare(self._store)

    def compact(self) -> int:
        """Writes the file of codes anew without those that were removed, where they are a quarter.

        Answers how many these were.
        """
        with self._reading() as now:
            rows, removed = now.state.rows, now.state.rows - now.state.count
        with self._lock:
            return self._store.compact() if 4 * removed > rows else 0

    def change(
        self,
        codes: ArrayLike,
        *,
        ids: Sequence[str],
        payload: Sequence[Any] | None = None,
        content: Sequence[str] | None = None,
        remove: Sequence[str] = (),
        replace: bool = False,
    ) -> None:
        """Removes items, then adds others, all in one step; `add` and `remove` are parts of it.

        content: of each added item what tells whether it has changed since, such as a digest.
        """
        checked = check_codes(codes, self.code_length)
        ids, remove = as_ids(ids), as_ids(remove)
        one_of_each(checked, ids=ids, payload=payload, content=content)
        no_twice(ids)
        with self._lock, self._store.transaction():
            self._numbers_of(remove)
            self._store.delete(remove)
            there = list(self._store.number_of(ids))
            if there and not replace:
                raise UserError(
                    f"`ids`: {some_of(there)} already in the index; allowed: others, or "
                    "replace=True"
                )
            self._store.delete(there)
            self._store.append(scan.to_rows(checked), ids, payload, content)

    def search(
        self,
        codes: ArrayLike,
        *,
        k: int | None = None,
        radius: int | None = None,
        where: Mapping[str, Any] | None = None,
        embeddings: ArrayLike | None = None,
        candidates: int = 200,
        limit: int | None = None,
    ) -> Found:
        """The k nearest items of each query, or all within a radius in bits, nearest first.

        codes: packed uint8 [q, w]. Exactly one of k and radius; k by default 10. where: only items
        whose payload has these values, such as {"label": "cat"}, or a list with them; of a list of
        values, one of them.
        embeddings: float [q, code_length] in [0, 1], H(x) of the queries, as `hasher.embed` answers
        it: of the `candidates` nearest, or all within the radius, those come first whose bits it
        makes likeliest. Their score is the Hamming distance to be expected, were each bit of the
        query 1 with the probability that H(x) gives it; ties are of the score then, and counted
        among the candidates. limit: only so many are answered of each query, and all are counted.
        UserError for codes of another length, and for other numbers.
        """
        queries = scan.to_rows(check_codes(codes, self.code_length))
        name, value = check_search(k, radius)
        candidates = whole("candidates", candidates, 1)
        limit = None if limit is None else whole("limit", limit, 0)
        conditions = None if where is None else check_where(where)
        relaxed = None
        if embeddings is not None:
            relaxed = embedded.check(embeddings, len(queries), self.code_length)
        with self._reading():
            if relaxed is None:
                return self._answer(self._find(queries, name, value, conditions), limit)
            wide = max(value, candidates) if name == "k" else value
            found = self._find(queries, name, wide, conditions)
            most = value if name == "k" else None
            codes, rank = self._store.codes, self._store.rank
            ranked = [
                embedded.by_score(rows, codes, rank, query, most)
                for rows, query in zip(found, relaxed, strict=True)
            ]
            return self._answer([rows for rows, _ in ranked], limit, [own for _, own in ranked])

    def _answer(
        self,
        found: Sequence[scan.Rows],
        limit: int | None,
        scores: Sequence[np.ndarray] | None = None,
    ) -> Found:
        with self._reading() as now:
            numbers = [now.numbers_of(rows.rows[:limit]) for rows in found]
            return Found(
                [[*map(decoded, self._store.of_numbers("id", some))] for some in numbers],
                [rows.distances[:limit] for rows in found],
                [self._payload_of(some) for some in numbers],
                np.array([rows.ties_cut for rows in found], np.int64),
                None if scores is None else [of_query[:limit] for of_query in scores],
                None if limit is None else np.array([len(rows.rows) for rows in found], np.int64),
            )

    def _find(
        self,
        queries: np.ndarray,
        name: str,
        value: int,
        conditions: Mapping[str, Sequence[Any]] | None,
    ) -> list[scan.Rows]:
        store = self._store
        if name == "k" and conditions is None and self._backend.name != "exact":
            return self._backend.k_nearest(queries, store, value)
        codes, rank = store.codes, store.rank
        search = scan.k_nearest if name == "k" else scan.within
        if conditions is not None:
            return search(queries, codes, value, rank, store.where(conditions))
        everything = len(store) == len(rank)
        return search(queries, codes, value, rank, None if everything else rank >= 0)
