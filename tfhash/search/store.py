"""What an index keeps: codes in one file of words, ids and payload beside it in SQLite.

SQLite decides: a code counts from the moment on that the transaction with its id has been written.
So whatever ends a process in the middle of a change leaves what was there before, and perhaps codes
at the end of the file that no id belongs to, which the next writer cuts off.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfhash.errors import NO_ROOM, NotNowError, UserError, unwritable
from tfhash.names import decoded, encoded, shown

FORMAT = 1
DATABASE = "items.sqlite"
CODES = "codes-{}.bin"  # the number rises when the file is written anew
WAIT_SECONDS = 5.0  # for another process that writes
_CHUNK = 10_000  # rows asked for at a time
_TABLES = """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE items (
        row INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, payload TEXT, content TEXT
    );
    CREATE TABLE checks (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, crc INTEGER NOT NULL);
"""


class Store:
    """Items of an index: a row number, a code, an id, perhaps a payload and what its content was.

    directory: where they are kept; None: in memory. Rows are numbered from 0 in the order in which
    they came; a number is not used again.
    """

    def __init__(self, directory: Path | None, code_length: int | None = None):
        """Opens what is there; with a code_length makes it anew, where nothing may be."""
        self.directory = directory
        self.told: list[str] = []  # what was found and mended, for who prints
        self._memory = np.zeros((0, 1), np.uint64)
        self._mapped: np.ndarray | None = None
        self._rank: np.ndarray | None = None
        self._rows: np.ndarray | None = None
        self._seen: int | None = None
        if code_length is not None:
            self._make(code_length)
        else:
            self._open()
        self.code_length = int(self.meta("code_length"))
        self.words = -(-self.code_length // 64)
        self._memory = np.zeros((0, self.words), np.uint64)

    # -- opening ----------------------------------------------------------------------------------

    def _make(self, code_length: int) -> None:
        if self.directory is None:
            self._database = _connect(":memory:")
        else:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                path = self.directory / DATABASE
                if path.exists():
                    raise UserError(f"`index`: {self.directory} holds an index already")
                (self.directory / CODES.format(1)).touch()
            except OSError as error:
                raise unwritable("`index`", self.directory, error) from None
            self._database = _connect(path)
        with self._errors():
            self._database.executescript(f"BEGIN;{_TABLES}COMMIT;")
            values = {"format": FORMAT, "code_length": code_length, "next_row": 0, "file": 1}
            with self.transaction():
                for key, value in values.items():
                    self.set_meta(key, str(value))

    def _open(self) -> None:
        assert self.directory is not None
        path = self.directory / DATABASE
        if not path.is_file():
            raise UserError(f"`index`: no index in {shown(self.directory)}")
        with self._errors():
            self._database = _connect(path)
        found = self.meta("format")
        if found != str(FORMAT):
            raise UserError(f"`index`: {shown(self.directory)} has format {found}; known: {FORMAT}")
        if not self.path.is_file():
            raise UserError(f"`index`: {shown(self.path)} is missing; build it again")

    def check(self) -> None:
        """UserError where the file of codes is not what was written to it."""
        if self.directory is None:
            return
        count, size = self.next_row, self.words * 8
        there = self.path.stat().st_size
        if there < count * size:
            raise UserError(
                f"`index`: {shown(self.path)} is cut short: {there:,} bytes, {count * size:,} were "
                "written; build it again"
            )
        if there > count * size:
            more = (there - count * size) // size
            self.told.append(
                f"{more:,} codes at the end belong to a change that did not end: passed over"
            )
        codes = self.codes
        for first, of_check, crc in self._select("SELECT first, count, crc FROM checks"):
            if zlib.crc32(np.ascontiguousarray(codes[first : first + of_check]).data) != crc:
                raise UserError(
                    f"`index`: {shown(self.path)} is damaged in codes {first:,} to "
                    f"{first + of_check - 1:,}; build it again"
                )

    def discard(self) -> None:
        """Removes the files of an index that was just made, and its folder where that is empty."""
        if self.directory is not None:
            for name in (DATABASE, f"{DATABASE}-journal", CODES.format(1)):
                (self.directory / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.directory.rmdir()

    def close(self) -> None:
        self._mapped = None
        self._database.close()

    # -- what is there ----------------------------------------------------------------------------

    def meta(self, key: str) -> str:
        found = self._select("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0][0] if found else ""

    def set_meta(self, key: str, value: str) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def facts(self) -> dict[str, str]:
        """The meta values under fact.NAME, by NAME."""
        found = self._select("SELECT substr(key, 6), value FROM meta WHERE key LIKE 'fact.%'")
        return dict(found)

    @property
    def path(self) -> Path:
        """The file of codes."""
        assert self.directory is not None
        return self.directory / CODES.format(self.meta("file"))

    @property
    def next_row(self) -> int:
        return int(self.meta("next_row"))

    def __len__(self) -> int:
        return self._select("SELECT count(*) FROM items")[0][0]

    @property
    def codes(self) -> np.ndarray:
        """The codes by row numbers, uint64 [rows, words], those that were removed among them."""
        if self.directory is None:
            return self._memory[: self.next_row]
        count = self.next_row
        if self._mapped is None or len(self._mapped) != count:
            self._mapped = np.zeros((0, self.words), np.uint64)
            if count:
                shape = (count, self.words)
                self._mapped = np.memmap(self.path, np.uint64, "r", shape=shape)
        return self._mapped

    def refresh(self) -> None:
        """Forgets what was derived, where another process has changed the items since."""
        version = self._select("PRAGMA data_version")[0][0]
        if self._seen not in (None, version):
            self.forget()
            self._mapped = None
        self._seen = version

    def forget(self) -> None:
        self._rank = self._rows = None

    @property
    def rows(self) -> np.ndarray:
        """The row numbers that have an item, in the order of their ids: int64 [n]."""
        if self._rows is None:
            found = self._select("SELECT row FROM items ORDER BY id")
            self._rows = np.fromiter((row for (row,) in found), np.int64, len(found))
        return self._rows

    @property
    def rank(self) -> np.ndarray:
        """By row numbers, the place of each item in the order of ids; -1 of those removed."""
        if self._rank is None or len(self._rank) != self.next_row:
            self._rank = np.full(self.next_row, -1, np.int64)
            self._rank[self.rows] = np.arange(len(self.rows))
        return self._rank

    def ids(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        found = self._of_rows("id", rows)
        return [decoded(found[int(row)]) for row in rows]

    def payload(self, rows: Sequence[int] | np.ndarray) -> list[Any]:
        found = self._of_rows("payload", rows)
        texts = (found[int(row)] for row in rows)
        return [None if text is None else json.loads(text) for text in texts]

    def content(self) -> dict[str, str | None]:
        """Of each id what its content was when it was added."""
        return {decoded(i): content for i, content in self._select("SELECT id, content FROM items")}

    def row_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The rows of those of the ids that are there."""
        found: dict[str, int] = {}
        for some in _chunks(list(ids)):
            marks = ",".join("?" * len(some))
            query = f"SELECT id, row FROM items WHERE id IN ({marks})"
            found |= {decoded(i): row for i, row in self._select(query, [encoded(i) for i in some])}
        return found

    def where(self, conditions: Mapping[str, Any]) -> np.ndarray:
        """Which rows have these values in their payload, bool [next_row]; a list: one of them."""
        clauses, values = [], []
        for name, wanted in conditions.items():
            wanted = list(wanted) if isinstance(wanted, (list, tuple, set)) else [wanted]
            for value in wanted:
                if not isinstance(value, (str, int, float, bool)):
                    raise UserError(
                        f"`where`: {name}={value!r}; allowed: text, numbers, True and False, and "
                        "lists of these"
                    )
            path = "$." + json.dumps(str(name))
            marks = ",".join("?" * len(wanted)) or "NULL"
            clauses.append(f"json_extract(payload, ?) IN ({marks})")
            values += [path, *wanted]
        text = " AND ".join(clauses) or "1"
        allowed = np.zeros(self.next_row, bool)
        found = self._select(f"SELECT row FROM items WHERE {text}", values)
        allowed[np.fromiter((row for (row,) in found), np.int64, len(found))] = True
        return allowed

    # -- changes ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes within are written together at the end, or none of them."""
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            finally:
                self.forget()

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
        first = self.next_row
        self._write(codes, first)
        texts = [None] * len(ids) if payload is None else [_as_json(value) for value in payload]
        contents = content if content is not None else [None] * len(ids)
        rows = range(first, first + len(ids))
        self._database.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?)",
            zip(rows, map(encoded, ids), texts, contents, strict=True),
        )
        crc = zlib.crc32(np.ascontiguousarray(codes).data)
        self._execute("INSERT INTO checks VALUES (?, ?, ?)", (first, len(ids), crc))
        self.set_meta("next_row", str(first + len(ids)))

    def delete(self, ids: Sequence[str]) -> None:
        """Removes items that are there, within a transaction."""
        query = "DELETE FROM items WHERE id = ?"
        self._database.executemany(query, ((encoded(i),) for i in ids))

    def compact(self) -> int:
        """Writes the codes anew without those that were removed; how many these were.

        Who searches meanwhile in another process goes on with what was there.
        """
        kept = np.sort(self.rows)
        removed = self.next_row - len(kept)
        if not removed:
            return 0
        codes = np.ascontiguousarray(self.codes[kept])
        number = int(self.meta("file")) + 1
        with self.transaction():
            if self.directory is not None:
                before = self.path
                with open(self.directory / CODES.format(number), "wb") as file:
                    file.write(codes.data)
                    file.flush()
                    os.fsync(file.fileno())
            # Through negative numbers, so that no two rows have one number on the way.
            moved = ((-new - 1, int(old)) for new, old in enumerate(kept))
            self._database.executemany("UPDATE items SET row = ? WHERE row = ?", moved)
            self._execute("UPDATE items SET row = -row - 1")
            self._execute("DELETE FROM checks")
            crc = zlib.crc32(codes.data)
            self._execute("INSERT INTO checks VALUES (0, ?, ?)", (len(kept), crc))
            self.set_meta("next_row", str(len(kept)))
            self.set_meta("file", str(number))
        self._mapped = None
        if self.directory is None:
            self._memory = codes
        else:
            before.unlink(missing_ok=True)
        return removed

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

    # -- SQLite -----------------------------------------------------------------------------------

    def _execute(self, query: str, values: Sequence[Any] = ()) -> None:
        self._database.execute(query, values)

    def _select(self, query: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._errors():
            return self._database.execute(query, values).fetchall()

    def _of_rows(self, column: str, rows: Sequence[int] | np.ndarray) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for some in _chunks([int(row) for row in rows]):
            marks = ",".join("?" * len(some))
            query = f"SELECT row, {column} FROM items WHERE row IN ({marks})"
            found |= dict(self._select(query, some))
        return found

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What SQLite and the system say, as one line."""
        where = shown(self.directory or "memory")
        try:
            yield
        except sqlite3.OperationalError as error:
            words = str(error)
            if "locked" in words or "busy" in words:
                line = f"`index`: another process changes {where}; try again when it has ended"
                raise NotNowError(line) from None
            if words.startswith("no such"):
                raise UserError(f"`index`: {where} is damaged ({words}); build it again") from None
            raise NotNowError(
                f"`index`: {where}: {words}; nothing of this change was kept"
            ) from None
        except sqlite3.DatabaseError as error:
            raise UserError(f"`index`: {where} is damaged ({error}); build it again") from None
        except OSError as error:
            if error.errno in NO_ROOM:
                raise NotNowError(
                    f"`index`: cannot write to {where} ({error}); nothing of this change was kept"
                ) from None
            raise unwritable("`index`", where, error) from None


def _connect(path: Path | str) -> sqlite3.Connection:
    # isolation_level=None: transactions begin where this module says so.
    # Threads take turns by the lock of the index.
    connection = sqlite3.connect(
        path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _chunks(values: list) -> Iterator[list]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def _as_json(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"`payload`: {value!r:.100} is no JSON ({error})") from None
