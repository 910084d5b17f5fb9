"""Where large arrays are: in memory, or in files of a folder."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfhash.errors import unwritable
from tfhash.storage import memory
from tfhash.storage.rows import check_room

AUTO, MEMORY, DISK = "auto", "memory", "disk"
KINDS = (AUTO, MEMORY, DISK)
_SHARE = 4  # of the available memory a quarter may be taken by one array


@dataclass(frozen=True)
class Storage:
    """Where large arrays are.

    kind: memory; disk; or auto, disk for what takes more than a quarter of the available memory.
    folder: for those on disk; None: all are in memory.
    """

    kind: str = MEMORY
    folder: Path | None = None

    def on_disk(self, size: int) -> bool:
        """Whether an array of so many bytes has its place on disk."""
        if self.folder is None or self.kind == MEMORY:
            return False
        return self.kind == DISK or size > memory.available() // _SHARE

    def empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """An array to be filled, as of np.empty; on disk in a file that goes with the array.

        NotNowError where the disk has no room for it, UserError where it cannot be written.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if not size or self.folder is None or not self.on_disk(size):
            return np.empty(shape, dtype)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            check_room(self.folder, size)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                if hasattr(os, "posix_fallocate"):
                    # A full disk is an error here; at a write to the array it would be a signal.
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                return np.memmap(file, dtype, "r+", shape=tuple(shape))
        except OSError as error:
            raise unwritable("`cache_dir`", self.folder, error) from None
