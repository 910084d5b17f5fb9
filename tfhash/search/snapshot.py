"""An index at one moment: where its codes are, and what is derived of them."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CODES = "codes-{}.bin"  # the number rises when the file is written anew
NUMBERS = "numbers-{}.bin"  # of the codes that were taken over into that file


@dataclass(frozen=True)
class State:
    """What tells one moment from another.

    version: rises with each change. next_number: of the next item. base: from this number on items
    lie in the file in the order of their numbers, after those `kept` when it was written anew.
    file: its number. count: of items.
    """

    version: int = 0
    next_number: int = 0
    base: int = 0
    kept: int = 0
    file: int = 1
    count: int = 0

    @property
    def rows(self) -> int:
        """Codes in the file, those that were removed among them."""
        return self.kept + self.next_number - self.base


class Snapshot:
    """Codes and numbers of a state. A row is a place in the file; a number is an item's for good.

    codes: uint64 [rows, words]; numbers: int64 [kept], of the first rows, rising.
    """

    def __init__(self, state: State, codes: np.ndarray, numbers: np.ndarray):
        self.state, self.codes, self.kept_numbers = state, codes, numbers
        self.rank: np.ndarray | None = None

    def rows_of(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of items by their numbers, int64 [n]; the items have to be there."""
        state = self.state
        rows = numbers - state.base + state.kept
        if state.kept:
            early = numbers < state.base
            rows[early] = np.searchsorted(self.kept_numbers, numbers[early])
        return rows

    def numbers_of(self, rows: np.ndarray) -> np.ndarray:
        """The numbers of the items in rows, int64 [n]."""
        state = self.state
        numbers = rows + (state.base - state.kept)
        if state.kept:
            early = rows < state.kept
            numbers[early] = self.kept_numbers[rows[early]]
        return numbers

    def set_rank(self, by_id: np.ndarray) -> np.ndarray:
        """By rows, the place of each item in the order of ids, given their numbers in that order.

        -1 of rows without an item. In 4 bytes, for there is one for each code.
        """
        small = self.state.rows < 2**31
        self.rank = np.full(self.state.rows, -1, np.int32 if small else np.int64)
        self.rank[self.rows_of(by_id)] = np.arange(len(by_id), dtype=self.rank.dtype)
        return self.rank


def mapped(path: Path, count: int, words: int = 1, dtype: type = np.uint64) -> np.ndarray:
    """The first codes or numbers of a file, read only when they are looked at: [count, words].

    FileNotFoundError where it is gone; ValueError where it is shorter.
    """
    if not count:
        path.stat()
        return np.zeros((0, words), dtype)
    return np.memmap(path, dtype, "r", shape=(count, words))


def crc_of(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data)


def sync_folder(directory: Path) -> None:
    """Puts on the disk which files a folder has."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_anew(path: Path, values: np.ndarray) -> None:
    with open(path, "wb") as file:
        file.write(values.data)
        file.flush()
        os.fsync(file.fileno())
