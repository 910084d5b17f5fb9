"""Where the codes of files are kept: in a journal while they are made, in one .npz at the end."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfhash.errors import UserError


class Source(NamedTuple):
    """What made a code; codes of two sources are never mixed."""

    target: str
    model: str
    version: int
    code_length: int


class Row(NamedTuple):
    """What came of a file of this size in bytes and modification time in nanoseconds.

    code: None for a file that could not be encoded; reason says why.
    """

    size: int
    modified: int
    code: bytes | None
    reason: str = ""


def journal_path(output: Path) -> Path:
    """Where the journal of an output is."""
    return output.with_name(f"{output.name}.part")


class Journal:
    """The rows of a run, kept beside its output from the moment of their answer.

    In the file, JSON lines, an object is a source and an array is a path and its row, made by the
    source above it. The file only grows, so that no end of a run and no wrong target loses a row.
    """

    def __init__(self, output: Path, source: Source, rows: Mapping[str, Row]):
        """Opens OUTPUT.part or makes it, UserError where that cannot be.

        rows: what is known already; what the file holds of this source comes on top.
        """
        self.path = journal_path(output)
        self.rows = dict(rows)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="ascii", errors="replace")
        except OSError as error:
            raise self._cannot_write(error) from None
        self._read(source)
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
            raise self._cannot_write(error) from None

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(f"--output: cannot write {self.path} ({error})")

    def _read(self, source: Source) -> None:
        self._file.seek(0)
        made_by = None
        for line in self._file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # half a line
            if isinstance(entry, dict):
                made_by = entry
            elif made_by == source._asdict():
                path, size, modified, code, reason = entry
                code = None if code is None else bytes.fromhex(code)
                self.rows[path] = Row(size, modified, code, reason)


def write(output: Path, source: Source, rows: Mapping[str, Row]) -> None:
    """Writes the codes of those rows that have one, in one move; UserError where that fails.

    The .npz holds, without pickle: codes uint8 [n, ceil(k / 8)], paths str [n], sizes and modified
    int64 [n], and the fields of the source as scalars.
    """
    coded = {path: row for path, row in rows.items() if row.code is not None}
    width = -(-source.code_length // 8)
    joined = b"".join(row.code for row in coded.values() if row.code is not None)
    codes = np.frombuffer(joined, np.uint8)
    temporary = output.with_name(f".{output.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                codes=codes.reshape(-1, width),
                paths=np.array(list(coded), np.str_),
                sizes=np.array([row.size for row in coded.values()], np.int64),
                modified=np.array([row.modified for row in coded.values()], np.int64),
                **source._asdict(),
            )
        os.replace(temporary, output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"--output: cannot write {output} ({error})") from None


def read(output: Path) -> tuple[Source, dict[str, Row]] | None:
    """What `write` wrote, None where there is nothing; UserError for a file of another kind."""
    if not output.exists():
        return None
    try:
        with np.load(output, allow_pickle=False) as file:
            source = Source(*(file[name].item() for name in Source._fields))
            columns = [file[name].tolist() for name in ("paths", "sizes", "modified")]
            codes = [code.tobytes() for code in file["codes"]]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"--output: {output} is there and was not written by this command ({error}); "
            "allowed: another name"
        ) from None
    return source, {
        path: Row(size, modified, code)
        for path, size, modified, code in zip(*columns, codes, strict=True)
    }
