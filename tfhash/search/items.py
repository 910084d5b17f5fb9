"""What an index knows of its items, by their ids and by their numbers, and of itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfhash.errors import UserError
from tfhash.names import decoded, shown
from tfhash.search import scan
from tfhash.search.backends import Backend
from tfhash.search.found import as_ids, some_of
from tfhash.search.snapshot import Snapshot
from tfhash.search.store import Store
from tfhash.search.values import from_json


class Items:
    """The part of an index that answers what is stored; `Index` searches and changes it."""

    _lock: threading.RLock
    _store: Store
    _backend: Backend

    def __len__(self) -> int:
        with self._lock:
            return len(self._store)

    def __contains__(self, name: str) -> bool:
        with self._reading():
            return bool(self._store.number_of([str(name)]))

    def __repr__(self) -> str:
        where = self._store.directory
        place = "in memory" if where is None else shown(where)
        return f"Index({len(self):,} codes of {self.code_length} bits, {place})"

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """All that is asked within is of one moment, whatever other processes change meanwhile."""
        with self._reading():
            yield

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Snapshot]:
        with self._lock, self._store.reading() as now:
            yield now

    @property
    def code_length(self) -> int:
        return self._store.code_length

    @property
    def model(self) -> str:
        """The fingerprint of the export that made the codes; empty where none is known."""
        return self._meta("model")

    @property
    def key(self) -> str:
        """What tells this index from others whose items have the same numbers."""
        return self._meta("key")

    @property
    def folder(self) -> Path:
        """What ids that are relative paths are relative to: where the index was built."""
        return Path(self._meta("fact.folder") or ".")

    def _meta(self, key: str) -> str:
        with self._reading():
            return self._store.meta(key)

    @property
    def notes(self) -> list[str]:
        """What was found and mended when it was loaded, and how its backend was set up since."""
        return [*self._store.told, *([self._backend.told] if self._backend.told else [])]

    def ids(self) -> list[str]:
        """All ids, in their order."""
        with self._reading():
            found = self._store.select("SELECT id FROM items ORDER BY id")
            return [decoded(name) for (name,) in found]

    def codes(self, ids: Sequence[str]) -> np.ndarray:
        """The codes of items, packed uint8 [n, w]. UserError for an id that is not there."""
        return self.numbers_and_codes(ids)[1]

    def numbers_and_codes(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of items, int64 [n], and their codes; for pages that name no files."""
        with self._reading() as now:
            numbers = self._numbers_of(ids)
            return numbers, scan.to_codes(now.codes[now.rows_of(numbers)], self.code_length)

    def names_of(self, numbers: Sequence[int]) -> list[str]:
        """The ids of items by their numbers. UserError for a number without an item."""
        with self._reading() as now:
            for number in numbers:
                if not 0 <= number < now.state.next_number:
                    raise _no_item(number)
            try:
                return [decoded(name) for name in self._store.of_numbers("id", numbers)]
            except KeyError as error:
                raise _no_item(error.args[0]) from None

    def first_number(self) -> int | None:
        """The number of the first item by its id; None of an index without items."""
        with self._reading():
            found = self._store.select("SELECT number FROM items ORDER BY id LIMIT 1")
            return found[0][0] if found else None

    def content(self) -> dict[str, str | None]:
        """Of each id what its content was when it was added."""
        with self._reading():
            found = self._store.select("SELECT id, content FROM items")
            return {decoded(name): content for name, content in found}

    def payload(self, ids: Sequence[str]) -> list[Any]:
        """What was stored with items. UserError for an id that is not there."""
        with self._reading():
            return self._payload_of(self._numbers_of(ids))

    def facts(self) -> dict[str, str]:
        """What was remembered, the model, the backend, and how many codes were removed."""
        with self._reading() as now:
            removed = now.state.rows - now.state.count
            found = self._store.settings()
            return {
                "model": found.get("model") or "unknown",
                "backend": self._backend.name,
                "removed": f"{removed:,} codes still in the file",
                **{k.removeprefix("fact."): v for k, v in found.items() if k.startswith("fact.")},
            }

    def remember(self, **facts: str) -> None:
        """Keeps words about the index by their names, for `facts`."""
        with self._lock, self._store.transaction():
            for name, words in facts.items():
                self._store.set_meta(f"fact.{name}", words)

    def tie(self, model: str) -> None:
        """Says, of an index of which it was not known, which export made the codes.

        UserError where another one did.
        """
        with self._lock, self._store.transaction():
            known = self._store.meta("model")
            if known not in ("", model):
                raise UserError(f"`model`: {model}; the index has codes of {known}")
            self._store.set_meta("model", model)

    def _numbers_of(self, ids: Sequence[str]) -> np.ndarray:
        ids = as_ids(ids)
        found = self._store.number_of(ids)
        if lacking := [name for name in ids if name not in found]:
            raise UserError(f"`ids`: {some_of(lacking)} not in the index")
        return np.array([found[name] for name in ids], np.int64)

    def _payload_of(self, numbers: Sequence[int] | np.ndarray) -> list[Any]:
        return [*map(from_json, self._store.of_numbers("payload", numbers))]


def _no_item(number: int) -> UserError:
    return UserError(f"`number`: {number}; no image of the index has that number")
