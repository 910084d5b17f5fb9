"""Bags of words as NUS-WIDE's owners give them, kept for the images of a prepared data set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tfhash import npz
from tfhash.errors import UserError

WORDS = 500
FILE = "bow.npz"
_MOST = np.iinfo(np.uint16).max
_ALLOWED = f"{WORDS} whole numbers from 0 to {_MOST:,}"


def place(builder: Any) -> Path:
    """Where the bags of words of a prepared data set are: beside its versions, not among them.

    What is added to a version's own folder would be taken for other images.
    """
    return Path(builder.data_dir).parent / FILE


def keep(path: Path, listed: Sequence[str], ids: Sequence[str], target: Path) -> None:
    """Writes the bags of words of images, as `features.bag_of_words.read` reads them.

    path: the owners' BoW_int.dat, a line an image; listed: the images of these lines, in their
    order; ids: the images to keep, by their paths in the list or by their file names. What is kept
    is uint16 [n, 500]. UserError for a file of other lines, and for an image that is not listed.
    OSError where target cannot be written.
    """
    rows = _rows(listed, ids)
    at = np.full(len(listed), -1)
    at[rows] = np.arange(len(rows))
    features = np.empty((len(rows), WORDS), np.uint16)
    for line, numbers in enumerate(_lines(path, len(listed))):
        if at[line] >= 0:
            features[at[line]] = numbers
    npz.write(target, {"ids": np.array(ids, str), "features": features})


def _rows(listed: Sequence[str], ids: Sequence[str]) -> list[int]:
    """The line of each image, counted from 0."""
    row_of = {path: row for row, path in enumerate(listed)}
    # Lists of papers have folders of their own; an image's own name is a number and that of Flickr.
    by_name: dict[str, list[int]] = {}
    for row, path in enumerate(listed):
        by_name.setdefault(PurePosixPath(path).name, []).append(row)
    rows: dict[int, str] = {}
    missing = []
    for id_ in ids:
        found = [row_of[id_]] if id_ in row_of else by_name.get(PurePosixPath(id_).name, [])
        if len(found) == 1 and found[0] not in rows:
            rows[found[0]] = id_
        else:
            missing.append(id_)
    if missing:
        raise UserError(
            f"`bow`: no line of its own in the image list for {len(missing):,} of {len(ids):,} "
            f"images, the first is {missing[0]}; allowed: the ImageList that `bow` has a line for"
        )
    return list(rows)


def _lines(path: Path, count: int) -> Iterator[np.ndarray]:
    """The numbers of each line, int64 [500], all of them checked; no more than one is held."""
    number = 0
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                number += 1
                if number <= count:
                    yield _numbers(line, number, path)
                elif not line.strip():  # at the end of the file
                    number -= 1
    except OSError as error:
        raise UserError(f"`bow`={path}: cannot be read ({error.strerror})") from None
    if number != count:
        raise UserError(
            f"`bow`={path}: {number:,} lines; allowed: {count:,}, one for each image of the list"
        )


def _numbers(line: str, number: int, path: str | os.PathLike) -> np.ndarray:
    words = line.split()
    try:
        values = np.array(words, np.int64)
    except (ValueError, OverflowError):
        values = np.array([-1])
    if len(words) != WORDS or values.min() < 0 or values.max() > _MOST:
        raise UserError(
            f"`bow`={path}, line {number:,}: {len(words)} values, {line.strip()[:30]!r}...; "
            f"allowed: {_ALLOWED}"
        )
    return values
