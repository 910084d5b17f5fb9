"""The tables of SQLite that an index has, and what SQLite and the system say of them, as one line.

Write-ahead logging: who reads goes on with what was there while another process writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tfhash.errors import NO_ROOM, NotNowError, UserError, unwritable
from tfhash.names import shown
from tfhash.search.snapshot import CODES

DATABASE = "items.sqlite"
TABLES = """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE items (
        number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, payload TEXT, content TEXT
    );
    CREATE TABLE checks (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, crc INTEGER NOT NULL);
"""
WAIT_SECONDS = 5.0  # for another process that writes
# Pages in memory: few stay in the cache of the processor; a change looks in all places of the ids.
READING_KB, CHANGING_KB = 2_000, 64_000
_LOG_BYTES = 64 << 20  # what is left of a long log after it was taken over

Stamp = tuple[int, int]  # size and time of the database


def stamp_of(directory: Path | None) -> Stamp | None:
    """That of a database that can only be read; None of one that SQLite watches itself."""
    if directory is None or not _can_only_be_read(directory):
        return None
    status = (directory / DATABASE).stat()
    return status.st_size, status.st_mtime_ns


def connect(directory: Path | None, stamp: Stamp | None = None) -> sqlite3.Connection:
    """The database of a folder; of None one in memory. Made where there is none.

    stamp: `stamp_of` the folder. Where it has one, SQLite does not see what others change: who asks
    has to connect again once the stamp is another.
    """
    path = ":memory:" if directory is None else directory / DATABASE
    is_uri = stamp is not None
    # isolation_level=None: transactions begin where the store says so.
    # Threads take turns by the lock of the index.
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?immutable=1" if is_uri else path,
        timeout=WAIT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        uri=is_uri,
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{READING_KB}")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    return connection


def _can_only_be_read(directory: Path) -> bool:
    """Whether no log can be written there, and none is there: nobody changes the database now.

    Who may write there can do so later.
    """
    log = directory / f"{DATABASE}-wal"
    if os.access(directory, os.W_OK) or (log.exists() and log.stat().st_size):
        return False
    return (directory / DATABASE).exists()


def are_there(connection: sqlite3.Connection) -> bool:
    """Whether the tables have been made."""
    (count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return count > 0


def is_there(directory: Path) -> bool:
    """Whether there is an index in a folder, if a damaged one.

    What a process left that was killed while it made one, before there was anything in it, is none.
    """
    if not (directory / DATABASE).is_file():
        return False
    if any(path.stat().st_size for path in directory.glob(CODES.format("*"))):
        return True
    try:
        with contextlib.closing(connect(directory, stamp_of(directory))) as database:
            return are_there(database)
    except sqlite3.Error:
        return True


def mend(directory: Path | str) -> str:
    """What to do where an index is damaged, for the end of a line."""
    place = shown(directory)
    return f"move {place} away and build it again"


def condition(conditions: Mapping[str, Sequence[Any]]) -> tuple[str, list[Any]]:
    """A condition on the payload of items, and its values: of each name one of its values.

    Of a list in a payload one element has to be one of them.
    """
    clauses: list[str] = []
    values: list[Any] = []
    for name, wanted in conditions.items():
        one = f"IN ({','.join('?' * len(wanted)) or 'NULL'})"
        if '"' in name or "\\" in name:  # which a path of SQLite cannot name
            clauses.append(
                "EXISTS (SELECT 1 FROM json_each(items.payload) AS e WHERE "
                "json_type(items.payload) = 'object' AND e.key = ? AND CASE e.type WHEN 'array' "
                f"THEN EXISTS (SELECT 1 FROM json_each(e.value) WHERE atom {one}) "
                f"ELSE e.atom {one} END)"
            )
            values += [name, *wanted, *wanted]
        else:
            clauses.append(
                "CASE json_type(payload, ?) WHEN 'array' "
                f"THEN EXISTS (SELECT 1 FROM json_each(items.payload, ?) WHERE atom {one}) "
                f"WHEN 'object' THEN 0 ELSE json_extract(payload, ?) {one} END"
            )
            path = "$." + json.dumps(name)  # as the payload is written, in ASCII
            values += [path, path, *wanted, path, *wanted]
    return " AND ".join(clauses) or "1", values


@contextlib.contextmanager
def errors(directory: Path | None) -> Iterator[None]:
    """What SQLite and the system say of a folder, as one line."""
    where = shown(directory or "memory")
    try:
        yield
    except sqlite3.OperationalError as error:
        words = str(error)
        if "locked" in words or "busy" in words:
            line = f"`index`: another process changes {where}; try again when it has ended"
            raise NotNowError(line) from None
        if words.startswith("no such"):
            raise UserError(f"`index`: {where} is damaged ({words}); {mend(where)}") from None
        if "readonly" in words:
            raise UserError(f"`index`: cannot write to {where} ({words})") from None
        raise NotNowError(f"`index`: {where}: {words}; nothing of this change was kept") from None
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # of what was asked of it, not of the file
            words = f"{error}; nothing of this change was kept"
            raise UserError(f"`index`: {where}: {words}") from None
        raise UserError(f"`index`: {where} is damaged ({error}); {mend(where)}") from None
    except OSError as error:
        if error.errno in NO_ROOM:
            raise NotNowError(
                f"`index`: cannot write to {where} ({error}); nothing of this change was kept"
            ) from None
        raise unwritable("`index`", where, error) from None
