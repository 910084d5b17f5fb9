"""One moment of an index: what is read, and what is changed, is of one transaction of SQLite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.search import tables
from tfhash.search.snapshot import CODES, NUMBERS, Snapshot, State, mapped
from tfhash.search.tables import mend

STATE = tuple(field.name for field in fields(State))  # keys of meta
_TRIES = 20  # to open a file that another process writes anew again and again


class Transactions:
    """The database of an index, read and changed in transactions, and its snapshot in each.

    directory: None for one in memory. Threads have to take turns.
    """

    def __init__(self, directory: Path | None):
        self.directory = directory
        self.words = 1
        self._database: Any = None
        self._stamp: tables.Stamp | None = None
        self._closed = False
        self._memory = np.zeros((0, 1), np.uint64)  # codes and numbers of an index in memory
        self._kept = np.zeros(0, np.int64)
        self._snapshot: Snapshot | None = None
        self._state = State()
        self._depth = 0

    def close(self) -> None:
        self._snapshot = None
        self._closed = True
        self._depth = 0
        self._database.close()

    def _connect(self) -> None:
        # The stamp comes first: of what is changed meanwhile the next look has another one.
        stamp = tables.stamp_of(self.directory)
        self._database = tables.connect(self.directory, stamp)
        self._stamp = stamp

    @contextlib.contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """All that is read within is of one moment; also within itself and within a change."""
        if self._depth:
            yield self._now()
            return
        for tries in range(_TRIES):
            self._begin("BEGIN")
            try:
                now = self._now()
                break
            except FileNotFoundError:
                # Another process has written the file anew between the two looks.
                self._end("ROLLBACK")
                if tries == _TRIES - 1:
                    raise UserError(
                        f"`index`: {shown(self.path)} is missing; {mend(self.directory or '')}"
                    ) from None
            except BaseException:
                self._end("ROLLBACK")
                raise
        try:
            yield now
        finally:
            self._end("ROLLBACK")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes within are written together at the end, or none of them."""
        with tables.errors(self.directory):
            self._begin("BEGIN IMMEDIATE")
            before = self._state
            try:
                self._database.execute(f"PRAGMA cache_size = -{tables.CHANGING_KB}")
                yield
                if self._state != before:
                    version = max(self._state.version, before.version + 1)
                    changed = replace(self._state, version=version)
                    for name, value in asdict(changed).items():
                        self.set_meta(name, str(value))
                self._end("COMMIT")
            except BaseException:
                self._snapshot = None
                self._end("ROLLBACK")
                raise

    def _begin(self, how: str) -> None:
        if self._closed:
            raise UserError("`index`: it was closed")
        self._depth = 0
        with tables.errors(self.directory):
            if self._stamp is not None and self._stamp != tables.stamp_of(self.directory):
                self._snapshot = None
                self._database.close()
                self._connect()
            if self._database.in_transaction:  # Ctrl-C came in the middle of an end
                self._database.execute("ROLLBACK")
            self._database.execute(how)
        try:
            marks = ",".join("?" * len(STATE))
            found = dict(self.select(f"SELECT key, value FROM meta WHERE key IN ({marks})", STATE))
            if len(found) != len(STATE) or not all(map(str.isdecimal, found.values())):
                raise UserError(self._damaged("its state is lost"))
            self._state = State(**{name: int(value) for name, value in found.items()})
            self._depth = 1
        except BaseException:
            self._end("ROLLBACK")
            raise

    def _end(self, how: str) -> None:
        if self._closed:
            return
        try:
            if self._database.in_transaction:
                self._database.execute(how)
            self._database.execute(f"PRAGMA cache_size = -{tables.READING_KB}")
        finally:
            if how == "ROLLBACK" or not self._database.in_transaction:
                self._depth = 0

    def _now(self) -> Snapshot:
        """What this transaction sees; what was derived is kept while nothing changes."""
        state, before = self._state, self._snapshot
        if before is None or before.state != state:
            if self.directory is None:
                codes, numbers = self._memory[: state.rows], self._kept
            else:
                codes = self._mapped(CODES, state.rows, self.words, np.uint64)
                numbers = self._kept
                if state.kept:
                    numbers = self._mapped(NUMBERS, state.kept, 1, np.int64).ravel()
            self._snapshot = Snapshot(state, codes, numbers)
        assert self._snapshot is not None
        return self._snapshot

    def _mapped(self, name: str, count: int, words: int, dtype: type) -> np.ndarray:
        assert self.directory is not None
        path = self.directory / name.format(self._state.file)
        try:
            return mapped(path, count, words, dtype)
        except ValueError:
            there, written = path.stat().st_size, count * words * 8
            raise UserError(
                f"`index`: {shown(path)} is cut short: {there:,} bytes, {written:,} were written; "
                f"{mend(self.directory)}"
            ) from None

    # -- SQLite -----------------------------------------------------------------------------------

    def meta(self, key: str) -> str:
        found = self.select("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0][0] if found else ""

    def set_meta(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @property
    def path(self) -> Path:
        """The file of codes."""
        assert self.directory is not None
        return self.directory / CODES.format(self._state.file)

    def select(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
        with tables.errors(self.directory):
            return self._database.execute(query, values).fetchall()

    def _numbers(self, query: str, values: Sequence[Any] = (), count: int = -1) -> np.ndarray:
        """The numbers that a query answers, int64 [n]; not as a list, for there may be millions.

        count: how many these are, where it is known.
        """
        with tables.errors(self.directory):
            found = self._database.execute(query, values)
            try:
                return np.fromiter((number for (number,) in found), np.int64, count)
            except ValueError:
                raise UserError(self._damaged(f"fewer than {count:,} items in it")) from None

    def _damaged(self, words: str) -> str:
        where = shown(self.directory)
        return f"`index`: {where} is damaged ({words}); {mend(where)}"
