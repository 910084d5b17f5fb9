"""What a request becomes: the memory that its rows take in the graph, and rows in chunks of it.

The figures are of the exports of this library. They are upper bounds; docs/serving.md has the sum.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfhash import exports
from tfhash.serving.server import image_headers

MOST_ROWS = 256  # in a chunk: between chunks a request whose time is up ends
_CHUNK = 256 * 2**20  # bytes of a chunk of more than one row

# Bytes a pixel. Of pixels that come as such: uint8, and float32 for the resizing. Of a JPEG also
# the coefficients of a progressive one and the turned copy; of a PNG what its transparency takes.
_PIXEL, _JPEG_PIXEL, _PNG_PIXEL = 16, 24, 32
_FILE = 6  # bytes for each byte of a file, whose scans are counted
_MOST_SIDE = 32_768  # of a file, as the graph has it
_RESIZED_COLUMN = 12  # resizing in one direction first makes float32 [size, width, 3]
# What a network holds of a row at once, in units of its float32 input: VGG-19, the largest here,
# takes up to 54.
_NETWORK = 64


class Plan(NamedTuple):
    """Bytes that the largest chunk of rows takes, and the row that each begins with."""

    chunk_size: int
    starts: Sequence[int]


@dataclass(frozen=True)
class Footprint:
    """How large the images of an export may become: its input's side, and its limit of a file."""

    image_size: int = 224
    max_pixels: int = 40_000_000

    @classmethod
    def of(cls, folder: Path) -> Footprint:
        """From `tfhash.json`; the defaults where there is none."""
        try:
            told = json.loads((folder / exports.METADATA).read_text(encoding="utf-8"))
            return cls(
                int(told.get("image_size", cls.image_size)),
                int(told.get("limits", {}).get("max_pixels", cls.max_pixels)),
            )
        except (OSError, ValueError, TypeError, AttributeError):
            return cls()

    def plan(self, array: np.ndarray, most: int) -> Plan | None:
        """Of pixels uint8 [N, H, W, 3], or of files as bytes objects [N]; N at least 1.

        most: bytes that a chunk may take. None of another array, which is no batch of images.
        """
        most = min(most, _CHUNK)
        if array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3 and array.size:
            height, width = array.shape[1:3]
            size = self._row(height * width, _PIXEL, max(height, width))
            rows = min(len(array), max(1, min(most // size, MOST_ROWS)))
            return Plan(rows * size, range(0, len(array), rows))
        if array.dtype == object and array.ndim == 1 and array.size:
            sizes = [self._file(content) for content in array]
            return _chunks(sizes, most)
        return None

    def _file(self, content: bytes | str) -> int:
        """`str` is what TensorFlow makes of a string tensor without values."""
        size = image_headers.size(content) if isinstance(content, bytes) else image_headers.NOTHING
        pixels = self.max_pixels if size.pixels is None else size.pixels
        side = _MOST_SIDE if size.side is None else size.side
        if side > _MOST_SIDE or size.is_png and pixels > self.max_pixels:
            pixels = side = 0  # the graph refuses it
        per_pixel = _PNG_PIXEL if size.is_png else _JPEG_PIXEL
        pixels = min(pixels, self.max_pixels)  # of a JPEG of more, the graph leaves some out
        return _FILE * len(content) + self._row(pixels, per_pixel, side)

    def _row(self, pixels: int, per_pixel: int, side: int) -> int:
        network = _NETWORK * 12 * self.image_size**2
        return per_pixel * pixels + _RESIZED_COLUMN * self.image_size * side + network


def _chunks(sizes: Sequence[int], most: int) -> Plan:
    """Rows one after the other, together at most `most` bytes, or a single one."""
    starts, taken, largest = [0], 0, 0
    for row, size in enumerate(sizes):
        if row > starts[-1] and (taken + size > most or row - starts[-1] == MOST_ROWS):
            starts.append(row)
            taken = 0
        taken += size
        largest = max(largest, taken)
    return Plan(largest, starts)
