"""Where the codes of files are kept while they are made, and the lock on it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from tfhash.errors import NO_LOCKS
from tfhash.names import shown
from tfhash.serving.encode.results import ENGINE, Row, Source, cannot_write


class InUseError(Exception):
    """Another process writes the same output."""


def journal_path(output: Path) -> Path:
    """Where the journal of an output is."""
    return output.with_name(f"{output.name}.part")


@contextlib.contextmanager
def locked(output: Path) -> Iterator[None]:
    """No other process gets here with the same output: InUseError there, at once.

    The lock is on OUTPUT.lock, and the system lets it go however this process ends. UserError where
    the file cannot be made.
    """
    path = output.with_name(f"{output.name}.lock")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(path)
    except BlockingIOError:
        raise InUseError(f"--output: another process writes {shown(str(output))}") from None
    except OSError as error:
        raise cannot_write(path, error) from None
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is locked, as it may be another's after that


def _lock(path: Path) -> TextIO:
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the process before has removed it between the two lines above


class Journal:
    """The rows of a run, kept beside its output from the moment of their answer.

    In the file, JSON lines, an object is a source and an array is a path and its row, made by the
    source above it. The file only grows, so that no end of a run and no wrong target loses a row.
    dropped: how many of its rows can be no rows of this source, and do not count.
    """

    def __init__(self, output: Path, source: Source, rows: Mapping[str, Row]):
        """Opens OUTPUT.part or makes it, UserError where that cannot be.

        rows: what is known already; what the file holds of this source comes on top.
        """
        self.path = journal_path(output)
        self.rows = dict(rows)
        self.dropped = 0
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="ascii", errors="replace")
            self._read(source)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        # On a new line, as the last run may have been stopped within one.
        self._append(["", json.dumps(source._asdict())])

    def add(self, rows: Mapping[str, Row]) -> None:
        """Keeps rows by path, even if this process is killed next; UserError where it cannot."""
        self.rows.update(rows)
        self._append(
            json.dumps([path, row.size, row.modified, row.code and row.code.hex(), row.reason])
            for path, row in rows.items()
        )

    def delete(self) -> None:
        """Removes the file, once its rows stand elsewhere."""
        self.path.unlink()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: Any) -> None:
        with contextlib.suppress(OSError):  # of lines that `add` has complained about
            self._file.close()

    def _append(self, lines: Iterable[str]) -> None:
        try:
            self._file.writelines(f"{line}\n" for line in lines)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def _read(self, source: Source) -> None:
        self._file.seek(0)
        made_by = None
        for line in self._file:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue  # half a line
            if isinstance(entry, dict):
                made_by = {"fingerprint": "", "engine": ENGINE, **entry}
            elif made_by == source._asdict():
                try:
                    path, row = _row(entry, source.width)
                    self.rows[path] = row
                except (TypeError, ValueError):
                    self.dropped += 1


def _row(entry: Any, width: int) -> tuple[str, Row]:
    """A path and its row; TypeError or ValueError for anything else."""
    path, size, modified, code, reason = entry
    row = Row(size, modified, None if code is None else bytes.fromhex(code), reason)
    kinds = [type(value) for value in (path, size, modified, reason)]
    if kinds != [str, int, int, str] or row.code is not None and len(row.code) != width:
        raise ValueError
    return path, row
