"""An index of codes: the nearest of a query by Hamming distance, with their ids and payload."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfhash import codes as code_arrays
from tfhash.errors import UserError, unwritable
from tfhash.names import shown
from tfhash.search import approximate, scan
from tfhash.search.backends import Backend
from tfhash.search.store import Store

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Found:
    """What a search found, one of each a query, nearest first; items at one distance by their id.

    ids: names; distances: int64, in bits; payload: what was stored with each item, None of none;
    ties_cut: int64 [q], how many other items are as far as the last one that was answered. scores:
    float32, where embeddings decided the order; else None.
    """

    ids: list[list[str]]
    distances: list[np.ndarray]
    payload: list[list[Any]]
    ties_cut: np.ndarray
    scores: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.ids)


class Index:
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
        payload: of each item any JSON value, or None; `where` filters by the values of objects.
        path: a folder to keep it in, which may not hold one; None: in memory.
        model: the fingerprint of the export that made the codes; codes of another are refused.
        backend: exact; or ivf, hnsw or multihash (extra `faiss`), which answer `search(k=)` in less
            time and miss some of the nearest. `radius` and `where` are always exact.
        recall: of a backend that misses some, the least share of the nearest that it has to find,
            measured on codes of the index.
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
        self._store = Store(None if path is None else Path(path).expanduser(), code_length)
        with self._store.transaction():
            self._store.set_meta("model", model)
            for name, value in self._backend.settings.items():
                self._store.set_meta(name, value)
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
        if check:
            index._store.check()
        if backend is None:
            index._backend = Backend.of(index._store.meta)
        else:
            index._backend = Backend(backend, recall, sure_radius)
        return index

    def save(self, path: Path | str) -> None:
        """Writes the items to a folder, in one move. UserError where one is there already.

        The index itself stays where it is.
        """
        path = Path(path).expanduser()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"`path`: {shown(path)} is there already; allowed: a new folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
        except OSError as error:
            raise unwritable("`path`", path, error) from None
        try:
            with self._lock, contextlib.closing(Store(temporary, self.code_length)) as copy:
                rows = np.sort(self._store.rows)
                content = self._store.content()
                with copy.transaction():
                    copy.set_meta("model", self.model)
                    for name, value in self._backend.settings.items():
                        copy.set_meta(name, value)
                    for start in range(0, len(rows), scan.BLOCK):
                        some = rows[start : start + scan.BLOCK]
                        ids = self._store.ids(some)
                        contents = [content[name] for name in ids]
                        payload = self._store.payload(some)
                        copy.append(self._store.codes[some], ids, payload, contents)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def close(self) -> None:
        """Lets go of the files; the index cannot be used any more."""
        with self._lock:
            self._store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __len__(self) -> int:
        with self._lock:
            return len(self._store)

    def __contains__(self, name: str) -> bool:
        with self._lock:
            return bool(self._store.row_of([name]))

    def __repr__(self) -> str:
        where = self._store.directory
        place = "in memory" if where is None else shown(where)
        return f"Index({len(self):,} codes of {self.code_length} bits, {place})"

    @property
    def code_length(self) -> int:
        return self._store.code_length

    @property
    def model(self) -> str:
        """The fingerprint of the export that made the codes; empty where none is known."""
        return self._store.meta("model")

    @property
    def notes(self) -> list[str]:
        """What was found and mended when it was loaded, and how its backend was set up since."""
        return [*self._store.told, *([self._backend.told] if self._backend.told else [])]

    def ids(self) -> list[str]:
        """All ids, in their order."""
        with self._lock:
            return self._store.ids(self._store.rows)

    def codes(self, ids: Sequence[str]) -> np.ndarray:
        """The codes of items, packed uint8 [n, w]. UserError for an id that is not there."""
        with self._lock:
            rows = self._rows_of(ids)
            return scan.to_codes(self._store.codes[rows], self.code_length)

    def rows_and_codes(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The row numbers of items, int64 [n], and their codes; for pages that name no files."""
        with self._lock:
            rows = self._rows_of(ids)
            return rows, scan.to_codes(self._store.codes[rows], self.code_length)

    def names_of(self, rows: Sequence[int]) -> list[str]:
        """The ids of row numbers. UserError for one without an item."""
        with self._lock:
            rank = self._store.rank
            for row in rows:
                if not 0 <= row < len(rank) or rank[row] < 0:
                    raise UserError(f"`row`: {row}; no image of the index has that number")
            return self._store.ids(rows)

    def first_row(self) -> int | None:
        """The row number of the first item by its id; None of an index without items."""
        with self._lock:
            self._store.refresh()
            return int(self._store.rows[0]) if len(self._store.rows) else None

    def content(self) -> dict[str, str | None]:
        """Of each id what its content was when it was added."""
        with self._lock:
            return self._store.content()

    def payload(self, ids: Sequence[str]) -> list[Any]:
        """What was stored with items. UserError for an id that is not there."""
        with self._lock:
            return self._store.payload(self._rows_of(ids))

    @property
    def folder(self) -> Path:
        """What ids that are relative paths are relative to: where the index was last built."""
        return Path(self._store.meta("fact.folder") or ".")

    def remember(self, **facts: str) -> None:
        """Keeps words about the index by their names, for `facts`."""
        with self._lock, self._store.transaction():
            for name, words in facts.items():
                self._store.set_meta(f"fact.{name}", words)

    def facts(self) -> dict[str, str]:
        """What was remembered, the model, the backend, and how many codes were removed."""
        with self._lock:
            removed = self._store.next_row - len(self._store)
            return {
                "model": self.model or "unknown",
                "backend": self._backend.name,
                "removed": f"{removed:,} codes still in the file",
                **self._store.facts(),
            }

    def found_of(self, ids: Sequence[Sequence[str]], queries: Sequence[str]) -> Found:
        """These items as the answers to those: their distances and payload."""
        with self._lock:
            asked = scan.to_rows(self.codes(queries))
            rows = [scan.to_rows(self.codes(names)) for names in ids]
            return Found(
                [list(names) for names in ids],
                [
                    scan.distances(query, of_query).astype(np.int64)
                    for query, of_query in zip(asked, rows, strict=True)
                ],
                [self.payload(names) for names in ids],
                np.zeros(len(queries), np.int64),
            )

    def compact(self) -> int:
        """Writes the file of codes anew without those that were removed, where they are a quarter.

        Answers how many these were.
        """
        with self._lock:
            removed = self._store.next_row - len(self._store)
            return self._store.compact() if 4 * removed > self._store.next_row else 0

    def add(
        self,
        codes: ArrayLike,
        *,
        ids: Sequence[str],
        payload: Sequence[Any] | None = None,
        replace: bool = False,
    ) -> None:
        """Adds items, all or none of them: arguments as of the class.

        replace: an item of the same id goes; without it UserError, as for an id that comes twice.
        """
        self.change(codes, ids=ids, payload=payload, replace=replace)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes items, all or none of them. UserError for an id that is not there."""
        nothing = np.zeros((0, -(-self.code_length // 8)), np.uint8)
        self.change(nothing, ids=(), remove=ids)

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
        ids, remove = [*map(str, ids)], [*map(str, remove)]
        one_of_each(checked, ids=ids, payload=payload, content=content)
        no_twice(ids)
        with self._lock, self._store.transaction():
            self._rows_of(remove)
            self._store.delete(remove)
            there = list(self._store.row_of(ids))
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
    ) -> Found:
        """The k nearest items of each query, or all within a radius in bits, nearest first.

        codes: packed uint8 [q, w]. Exactly one of k and radius; k by default 10. where: only items
        whose payload has these values, such as {"label": "cat"}; of a list, one of them.
        embeddings: float [q, code_length] in [0, 1], H(x) of the queries, as `hasher.embed` answers
        it: of the `candidates` nearest, or all within the radius, those come first whose bits it
        makes likeliest. Their score is the Hamming distance to be expected, were each bit of the
        query 1 with the probability that H(x) gives it. UserError for codes of another length, and
        for other numbers.
        """
        queries = scan.to_rows(check_codes(codes, self.code_length))
        name, value = check_search(k, radius)
        relaxed = None if embeddings is None else self._check_embeddings(embeddings, len(queries))
        with self._lock:
            self._store.refresh()
            scores = None
            if relaxed is None:
                found = self._find(queries, name, value, where)
            else:
                wide = max(value, candidates) if name == "k" else value
                found = self._find(queries, name, wide, where)
                most = value if name == "k" else None
                ranked = [self._by_score(*pair, most) for pair in zip(found, relaxed, strict=True)]
                found, scores = [rows for rows, _ in ranked], [score for _, score in ranked]
            return Found(
                [self._store.ids(of_query.rows) for of_query in found],
                [of_query.distances for of_query in found],
                [self._store.payload(of_query.rows) for of_query in found],
                np.array([of_query.ties_cut for of_query in found], np.int64),
                scores,
            )

    def _check_embeddings(self, embeddings: ArrayLike, count: int) -> np.ndarray:
        found = np.asarray(embeddings)
        if found.shape != (count, self.code_length) or found.dtype.kind != "f":
            raise UserError(
                f"`embeddings`: {found.dtype} {list(found.shape)}; allowed: float "
                f"[{count}, {self.code_length}]"
            )
        if not (found.min(initial=0) >= 0 and found.max(initial=1) <= 1):
            raise UserError("`embeddings`: below 0 or above 1, or NaN; allowed: 0 to 1")
        return found.astype(np.float32)

    def _by_score(
        self, found: scan.Rows, relaxed: np.ndarray, most: int | None
    ) -> tuple[scan.Rows, np.ndarray]:
        """The rows in the order of their scores, the first `most` of them, and the scores."""
        packed = scan.to_codes(self._store.codes[found.rows], self.code_length)
        bits = code_arrays.unpack(packed, self.code_length)
        scores = np.abs(relaxed - bits).sum(axis=1, dtype=np.float32)
        order = np.lexsort((self._store.rank[found.rows], found.distances, scores))[:most]
        return scan.Rows(found.rows[order], found.distances[order]), scores[order]

    def _find(
        self, queries: np.ndarray, name: str, value: int, where: Mapping[str, Any] | None
    ) -> list[scan.Rows]:
        store = self._store
        rank = store.rank
        allowed = rank >= 0 if where is None else store.where(where)
        if name == "k" and where is None and self._backend.name != "exact":
            return self._backend.k_nearest(queries, store, value)
        search = scan.k_nearest if name == "k" else scan.within
        everything = where is None and len(store.rows) == len(rank)
        return search(queries, store.codes, value, rank, None if everything else allowed)

    def _rows_of(self, ids: Sequence[str]) -> np.ndarray:
        found = self._store.row_of(ids)
        if lacking := [name for name in ids if name not in found]:
            raise UserError(f"`ids`: {some_of(lacking)} not in the index")
        return np.array([found[name] for name in ids], np.int64)


def check_codes(codes: ArrayLike, code_length: int) -> np.ndarray:
    """Packed codes of this length; UserError for others."""
    try:
        return code_arrays.validate_codes(codes, code_length)
    except ValueError as error:
        raise UserError(f"`codes`: {error}") from None


def check_search(k: int | None, radius: int | None) -> tuple[str, int]:
    """Which of the two was given and its value; k is 10 by default. UserError for others."""
    if k is not None and radius is not None:
        raise UserError("`k`: not with `radius`; allowed: one of them")
    name, value = ("k", 10 if k is None else k) if radius is None else ("radius", radius)
    least = 1 if name == "k" else 0
    if not code_arrays.is_whole(value) or value < least:
        raise UserError(f"`{name}`: {value!r}; allowed: whole numbers from {least} on")
    return name, int(value)


def one_of_each(codes: np.ndarray, **given: Sequence[Any] | None) -> None:
    """UserError where what is given of the items, by its name, is not one of each code."""
    for name, values in given.items():
        if values is not None and len(values) != len(codes):
            raise UserError(
                f"`{name}`: {len(values):,}, but {len(codes):,} codes; allowed: one of each"
            )


def no_twice(ids: Sequence[str]) -> None:
    """UserError where an id comes twice."""
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"`ids`: {some_of(twice)} twice; allowed: each once")


def some_of(names: Sequence[str]) -> str:
    """Two of the names, and how many more there are."""
    shown_names = ", ".join(shown(name) for name in names[:2])
    more = f" and {len(names) - 2:,} more" if len(names) > 2 else ""
    return f"{shown_names}{more}"
