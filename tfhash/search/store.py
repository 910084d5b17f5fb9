"""What an index keeps: codes in one file of words, ids and payload beside it in SQLite.

SQLite decides: a code counts from the moment on that the transaction with its id has been written.
So whatever ends a process in the middle of a change leaves what was there before, and perhaps codes
at the end of the file that no id belongs to, which the next writer cuts off. What is read is read
in one transaction too, so that it is all of one moment, whatever other processes write meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfhash.errors import UserError, unwritable
from tfhash.names import decoded, encoded, shown
from tfhash.search import tables
from tfhash.search.snapshot import CODES, NUMBERS, State, crc_of, sync_folder, write_anew
from tfhash.search.tables import DATABASE, mend
from tfhash.search.transactions import STATE, Transactions
from tfhash.search.values import as_json

FORMAT = 2
_CHUNK = 10_000  # items asked for at a time


class Store(Transactions):
    """Items of an index: a number, a code, an id, perhaps a payload and what its content was.

    directory: where they are kept; None: in memory. Items are numbered from 0 in the order in which
    they came; a number stays with its item and is not used again. Codes lie in rows of a file in
    the order of the numbers; the rows change when the file is written anew.
    """

    def __init__(
        self,
        directory: Path | None,
        code_length: int | None = None,
        meta: Mapping[str, str] | None = None,
    ):
        """Opens what is there; with a code_length makes it anew, where nothing may be.

        meta: words to keep from the first moment on, by their keys.
        """
        super().__init__(directory)
        self.told: list[str] = []  # what was found and mended, for who prints
        if code_length is not None:
            self._make(code_length, meta or {})
        else:
            self._open()
        try:
            self.code_length = int(self.meta("code_length"))
        except ValueError:
            self.close()
            raise UserError(self._damaged("no code length in it")) from None
        self.words = -(-self.code_length // 64)
        self._memory = np.zeros((0, self.words), np.uint64)

    # -- opening ----------------------------------------------------------------------------------

    def _make(self, code_length: int, meta: Mapping[str, str]) -> None:
        if self.directory is not None:
            self._check_free(self.directory)
        values = {"format": FORMAT, "code_length": code_length, "key": secrets.token_hex(8)}
        values |= asdict(State()) | dict(meta)
        with tables.errors(self.directory):
            self._connect()
            self._database.execute("PRAGMA journal_mode = WAL")
            # One transaction: a process that is killed here leaves a whole index or none.
            self._database.execute("BEGIN IMMEDIATE")
            if tables.are_there(self._database):  # another process was faster
                raise UserError(f"`index`: {shown(self.directory)} holds an index already")
            for statement in tables.TABLES.split(";"):
                self._database.execute(statement)
            for key, value in values.items():
                self.set_meta(key, str(value))
            if self.directory is not None:
                (self.directory / CODES.format(1)).write_bytes(b"")
                sync_folder(self.directory)
                sync_folder(self.directory.parent)
            self._database.execute("COMMIT")

    @staticmethod
    def _check_free(directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable("`index`", directory, error) from None
        if tables.is_there(directory):
            raise UserError(f"`index`: {shown(directory)} holds an index already")

    def _open(self) -> None:
        assert self.directory is not None
        where = shown(self.directory)
        if not tables.is_there(self.directory):
            raise UserError(f"`index`: no index in {where}")
        with tables.errors(self.directory):
            self._connect()
            if not tables.are_there(self._database):
                self.close()
                raise UserError(self._damaged("no such table: meta"))
        found = self.meta("format")
        if found != str(FORMAT):
            self.close()
            raise UserError(f"`index`: {where} has format {found}; known: {FORMAT}; {mend(where)}")

    def check(self) -> None:
        """UserError where the file of codes is not what was written to it."""
        if self.directory is None:
            return
        with self.reading() as now:
            more = self.path.stat().st_size // (self.words * 8) - now.state.rows
            if more > 0:
                self.told.append(
                    f"{more:,} codes at the end belong to a change that did not end: passed over"
                )
            if now.state.kept and crc_of(now.kept_numbers) != int(self.meta("numbers_crc")):
                raise UserError(self._damaged(f"{NUMBERS.format(now.state.file)} has changed"))
            for first, count, crc in self.select("SELECT first, count, crc FROM checks"):
                if crc_of(now.codes[first : first + count]) != crc:
                    raise UserError(
                        f"`index`: {shown(self.path)} is damaged in codes {first:,} to "
                        f"{first + count - 1:,}; {mend(self.directory)}"
                    )

    def discard(self) -> None:
        """Removes the files of an index that was just made, and its folder where that is empty."""
        if self.directory is not None:
            endings = ("", "-journal", "-wal", "-shm")
            for name in (*(DATABASE + ending for ending in endings), CODES.format(1)):
                (self.directory / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.directory.rmdir()

    # -- what is there ----------------------------------------------------------------------------

    def settings(self) -> dict[str, str]:
        """All meta values but what the store itself needs."""
        own = {"format", "code_length", "key", "numbers_crc", *STATE}
        return {key: value for key, value in self.select("SELECT * FROM meta") if key not in own}

    def __len__(self) -> int:
        with self.reading() as now:
            return now.state.count

    @property
    def codes(self) -> np.ndarray:
        """The codes by rows, uint64 [rows, words], those that were removed among them."""
        with self.reading() as now:
            return now.codes

    @property
    def rank(self) -> np.ndarray:
        """By rows, the place of each item in the order of ids; -1 of those removed."""
        with self.reading() as now:
            if now.rank is not None:
                return now.rank
            query = "SELECT number FROM items ORDER BY id"
            return now.set_rank(self._numbers(query, count=now.state.count))

    def numbers(self) -> np.ndarray:
        """Those of all items, rising: int64 [n]."""
        return self._numbers("SELECT number FROM items ORDER BY number")

    def where(self, conditions: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Which rows have one of these values of each name in their payload, bool [rows]."""
        text, values = tables.condition(conditions)
        with self.reading() as now:
            numbers = self._numbers(f"SELECT number FROM items WHERE {text}", values)
            allowed = np.zeros(now.state.rows, bool)
            allowed[now.rows_of(numbers)] = True
            return allowed

    def of_numbers(self, column: str, numbers: Sequence[int] | np.ndarray) -> list[Any]:
        """A column of items by their numbers, which have to be there."""
        found: dict[int, Any] = {}
        for some in _chunks([int(number) for number in numbers]):
            marks = ",".join("?" * len(some))
            query = f"SELECT number, {column} FROM items WHERE number IN ({marks})"
            found |= dict(self.select(query, some))
        return [found[int(number)] for number in numbers]

    def number_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The numbers of those of the ids that are there."""
        found: dict[str, int] = {}
        for some in _chunks(list(ids)):
            marks = ",".join("?" * len(some))
            query = f"SELECT id, number FROM items WHERE id IN ({marks})"
            found |= {decoded(i): number for i, number in self.select(query, [*map(_key, some)])}
        return found

    # -- changes ----------------------------------------------------------------------------------

    def append(
        self,
        codes: np.ndarray,
        ids: Sequence[str],
        payload: Sequence[Any] | None,
        content: Sequence[str | None] | None = None,
    ) -> None:
        """Adds items, within a transaction: codes uint64 [n, words], and one of each of the others.

        None of the ids may be there.
        """
        if not len(ids):
            return
        state = self._state
        self._write(codes, state.rows)
        texts = [None] * len(ids) if payload is None else [as_json(value) for value in payload]
        contents = content if content is not None else [None] * len(ids)
        numbers = range(state.next_number, state.next_number + len(ids))
        self._database.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?)",
            zip(numbers, map(_key, ids), texts, contents, strict=True),
        )
        check = (state.rows, len(ids), crc_of(codes))
        # Or replaced: `compact` once left the check of no codes where an index had become empty.
        self._database.execute("INSERT OR REPLACE INTO checks VALUES (?, ?, ?)", check)
        self._state = replace(state, next_number=numbers.stop, count=state.count + len(ids))

    def delete(self, ids: Sequence[str]) -> None:
        """Removes items that are there, within a transaction."""
        query = "DELETE FROM items WHERE id = ?"
        gone = self._database.executemany(query, ((_key(i),) for i in ids)).rowcount
        if gone > 0:
            # With another version, for what was derived of the rows holds no more.
            version = self._state.version + 1
            self._state = replace(self._state, version=version, count=self._state.count - gone)

    def compact(self) -> int:
        """Writes the codes anew without those that were removed; how many these were.

        Who searches meanwhile in another process goes on with what was there.
        """
        with self.transaction(), self.reading() as now:
            state = self._state
            self._remove_old_files()
            numbers = self.numbers()
            removed = state.rows - len(numbers)
            if not removed:
                return 0
            codes = np.ascontiguousarray(now.codes[now.rows_of(numbers)])
            if self.directory is not None:
                write_anew(self.directory / CODES.format(state.file + 1), codes)
                write_anew(self.directory / NUMBERS.format(state.file + 1), numbers)
                sync_folder(self.directory)
            self._database.execute("DELETE FROM checks")
            if len(numbers):
                check = (0, len(numbers), crc_of(codes))
                self._database.execute("INSERT INTO checks VALUES (?, ?, ?)", check)
            self.set_meta("numbers_crc", str(crc_of(numbers)))
            moved = {"base": state.next_number, "kept": len(numbers), "file": state.file + 1}
            self._state = replace(state, **moved)
        if self.directory is None:
            self._memory, self._kept = codes, numbers
        else:
            self._remove_old_files()
        return removed

    def _remove_old_files(self) -> None:
        """Those of before the file was written anew, also where a process was killed then."""
        if self.directory is not None:
            for name in (CODES, NUMBERS):
                for number in range(1, self._state.file):
                    (self.directory / name.format(number)).unlink(missing_ok=True)

    def _write(self, codes: np.ndarray, first: int) -> None:
        """Puts codes after the first ones that count; on the disk before the transaction is."""
        if self.directory is None:
            if first + len(codes) > len(self._memory):
                grown = np.zeros((max(2 * len(self._memory), first + len(codes)), self.words), "u8")
                grown[:first] = self._memory[:first]
                self._memory = grown
            self._memory[first : first + len(codes)] = codes
            return
        size = self.words * 8
        with open(self.path, "r+b") as file:
            file.truncate(first * size)
            file.seek(first * size)
            file.write(np.ascontiguousarray(codes).data)
            file.flush()
            os.fsync(file.fileno())


def _key(name: str) -> bytes:
    try:
        return encoded(name)
    except UnicodeEncodeError:
        raise UserError(f"`ids`: {shown(name)}; allowed: text, and names of files") from None


def _chunks(values: list) -> Iterator[list]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
