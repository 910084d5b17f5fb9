"""Rows of numbers that are made once, part by part, and kept in a file that is read as an array.

A folder has `rows`, the bytes of all rows one after the other, and `record.jsonl`, a line a part
that is whole: how many items it was made of, how many rows came of them, their CRC-32, and what
else there is to tell. A part counts once its line is there, so that a process which is killed loses
the part that it was at. A part whose bytes are others is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfhash.errors import NotNowError, unwritable
from tfhash.storage.locks import lock

ROWS, RECORD = "rows", "record.jsonl"
_SETTING = "cache_dir"

# Of the items start to stop - 1 their rows, at most as many, and a JSON object on them.
Make = Callable[[int, int], tuple[np.ndarray, dict[str, Any]]]


class Kept(NamedTuple):
    """array: [rows, ...] in the file, not writeable. facts: what `make` said of each part.
    was_there: whether all of it was made before."""

    array: np.ndarray
    facts: list[dict[str, Any]]
    was_there: bool


class _Part(NamedTuple):
    items: int
    rows: int
    crc: int
    facts: dict[str, Any]


def kept(folder: Path, count: int, shape: Sequence[int], dtype: Any, make: Make, part: int) -> Kept:
    """The rows of `count` items, of this shape and dtype each, from a folder or made into it.

    make: of some items, in their order; it may leave some out. part: items that are made at a time.
    The name of the folder has to tell all that decides the rows. Another process that makes them is
    waited for. NotNowError where the disk is full, before it begins or on the way: what was written
    is kept, and the next call goes on. UserError where the folder cannot be written.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with lock(folder, _SETTING, wait=True), _File(folder, size) as file:
        was_there = file.mend(make)
        missing = count - file.items
        if missing:
            was_there = False
            check_room(folder, missing * size)
        while file.items < count:
            file.append(make, min(part, count - file.items))
        total, facts = file.rows, [one.facts for one in file.parts]
        if not total * size:
            return Kept(np.empty((total, *shape), dtype), facts, was_there)
        array = np.memmap(folder / ROWS, dtype, "r", shape=(total, *shape))
    return Kept(array, facts, was_there)


def forget(folder: Path) -> None:
    """Lets the next call of `kept` make all anew. Arrays that are in use stay as they are."""
    with lock(folder, _SETTING, wait=True):
        for name in (RECORD, ROWS):  # in this order: rows without a record are none
            (folder / name).unlink(missing_ok=True)


def some_of(array: np.memmap, positions: np.ndarray) -> np.ndarray:
    """The rows array[positions] of what `kept` answered, in a file beside it, not in memory."""
    digest = hashlib.sha256(np.ascontiguousarray(positions, np.int64).data).hexdigest()[:16]
    folder = Path(str(array.filename)).parent / f"some-{digest}"

    def make(start: int, stop: int) -> tuple[np.ndarray, dict[str, Any]]:
        return array[positions[start:stop]], {}

    part = max(1, 2**26 // max(1, array[0].nbytes))
    return kept(folder, len(positions), array.shape[1:], array.dtype, make, part).array


def check_room(folder: Path, needed: int) -> None:
    """NotNowError where the disk of a folder has fewer free bytes than are needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NotNowError(
            f"`{_SETTING}`: {needed:,} bytes are needed in {folder}, {free:,} are free; allowed: "
            "to make room there, or a folder on another disk"
        )


class _File:
    """The two files of a folder, open to write; as many parts of them as are recorded."""

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        with self._writing():
            for name in (ROWS, RECORD):
                (folder / name).touch()
            self.data = open(folder / ROWS, "r+b", buffering=0)
            self.record = open(folder / RECORD, "r+b", buffering=0)
        self.parts = list(self._recorded())

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.data.close()
        self.record.close()

    @property
    def items(self) -> int:
        return sum(part.items for part in self.parts)

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def mend(self, make: Make) -> bool:
        """Makes the parts anew whose bytes are not as recorded; whether there were none."""
        item = row = number = damaged = 0
        while number < len(self.parts):
            part = self.parts[number]
            if zlib.crc32(self._read(row, part.rows)) != part.crc:
                damaged += 1
                path = self.folder / ROWS
                print(f"{path} is damaged (row {row} on): made anew", file=sys.stderr, flush=True)
                again = self._make(make, item, part.items, row)
                if again.rows != part.rows:
                    del self.parts[number + 1 :]  # they would stand elsewhere
                self.parts[number] = part = again
                self._write_record(self.parts)
            item, row, number = item + part.items, row + part.rows, number + 1
        return not damaged

    def append(self, make: Make, items: int) -> None:
        """Makes the next part."""
        part = self._make(make, self.items, items, self.rows)
        with self._writing():
            _write(self.record.fileno(), _line(part), os.fstat(self.record.fileno()).st_size)
        self.parts.append(part)

    def _make(self, make: Make, item: int, items: int, row: int) -> _Part:
        rows, facts = make(item, item + items)
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        with self._writing():
            _write(self.data.fileno(), data, row * self.size)
        return _Part(items, len(rows), zlib.crc32(data), facts)

    def _read(self, row: int, rows: int) -> bytes:
        return os.pread(self.data.fileno(), rows * self.size, row * self.size)

    def _recorded(self) -> Iterator[_Part]:
        """The parts until the first line that is none; what follows it is cut off."""
        self.record.seek(0)
        lines, whole = self.record.read().splitlines(keepends=True), 0
        for line in lines:
            try:
                part = _Part(*json.loads(line))
                if not line.endswith(b"\n"):
                    raise ValueError("half of a line")
            except (ValueError, TypeError):
                break
            whole += len(line)
            yield part
        with self._writing():
            self.record.truncate(whole)

    def _write_record(self, parts: Sequence[_Part]) -> None:
        lines = b"".join(map(_line, parts))
        with self._writing():
            _write(self.record.fileno(), lines, 0)
            self.record.truncate(len(lines))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(f"`{_SETTING}`", self.folder, error) from None


def _line(part: _Part) -> bytes:
    return json.dumps(list(part)).encode() + b"\n"


def _write(descriptor: int, data: Any, offset: int) -> None:
    """Writes all of it, until it is on the disk: a record must not be there before its rows."""
    view = memoryview(data)
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
    os.fsync(descriptor)
