"""The file beside the codes of an index that keeps what faiss built of them.

It is made anew where it is not of these codes, so losing it loses time alone.
"""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfhash import npz
from tfhash.search.approximate import BACKENDS, Approximate, faiss_module
from tfhash.search.cells import Cells, Distinct

FORMAT = 1
NAME = "faiss-{}.npz"
_DAY = 86_400.0  # seconds; who still writes has touched its file since
_ARRAYS = ("codes", "centres", "rings", "rows", "starts")


class Of(NamedTuple):
    """What the file is of: a backend, and the first rows of a file of codes with its number."""

    backend: str
    file: str
    code_length: int
    rows: int
    checksum: int


def checksum(codes: np.ndarray) -> int:
    """Of rows uint64 [n, words]."""
    return zlib.crc32(np.ascontiguousarray(codes).data)


def write(directory: Path, file: str, built: Approximate, codes: np.ndarray) -> None:
    """Keeps what was built of the first rows of codes, in one move. OSError where that fails."""
    name = _name_of(built)
    of = Of(name, file, built.code_length, built.count, checksum(codes[: built.count]))
    distinct = built.distinct
    arrays = {
        "facts": np.array(json.dumps([FORMAT, of, built.chosen])),
        "faiss": built.faiss.serialize_index_binary(built.index),
        "codes": distinct.codes,
        "centres": distinct.cells.centres,
        "rings": distinct.cells.rings,
        "rows": distinct.rows,
        "starts": distinct.starts,
    }
    path = directory / NAME.format(name)
    npz.write(path, arrays, np.savez)  # each array has its own CRC-32
    for left in directory.glob(f".{path.name}.tmp-*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > _DAY:
            left.unlink(missing_ok=True)


def read(
    directory: Path, file: str, backend: str, code_length: int, codes: np.ndarray
) -> Approximate | None:
    """What was kept of the codes, or of the first of them; None where nothing was kept of them.

    ValueError for a file that is damaged.
    """
    path = directory / NAME.format(backend)
    if not path.exists():
        return None
    known, of, chosen = _facts(path)
    if known != FORMAT or of[:3] != (backend, file, code_length) or not 0 <= of.rows <= len(codes):
        return None
    if of.checksum != checksum(codes[: of.rows]):
        return None
    found = npz.read(path, [*_ARRAYS, "faiss"])
    try:
        index = faiss_module().deserialize_index_binary(found["faiss"])
    except RuntimeError:
        raise ValueError("no index of faiss in it") from None
    cells = Cells(*(found[name] for name in ("codes", "centres", "rings")))
    distinct = Distinct(cells, found["rows"], found["starts"])
    if not _fits(distinct, index, of.rows, codes.shape[1]):
        raise ValueError("its arrays do not fit each other")
    built = BACKENDS[backend](distinct, of.rows, code_length, index)
    if chosen is not None:
        built.resume(*chosen)
    return built


def _facts(path: Path) -> tuple[int, Of, tuple[float, int, str] | None]:
    """The format of a file, what it is of, and what was chosen. ValueError where they are none."""
    try:
        known, of, chosen = json.loads(str(npz.read(path, ["facts"])["facts"]))
        backend, file, code_length, rows, crc = of
        facts = Of(str(backend), str(file), int(code_length), int(rows), int(crc))
        if chosen is not None:
            recall, effort, told = chosen
            chosen = float(recall), int(effort), str(told)
    except (TypeError, OverflowError, RecursionError):
        raise ValueError("its facts are none") from None
    return known, facts, chosen


def _name_of(built: Approximate) -> str:
    return next(name for name, cls in BACKENDS.items() if type(built) is cls)


def _fits(distinct: Distinct, index: Any, count: int, words: int) -> bool:
    """Whether no number in the arrays leads out of another one."""
    cells, rows, starts = distinct.cells, distinct.rows, distinct.starts
    codes = cells.codes
    shapes = (
        codes.dtype == cells.centres.dtype == np.uint64
        and codes.ndim == cells.centres.ndim == 2
        and codes.shape[1] == cells.centres.shape[1] == words
        and cells.rings.shape == (len(cells.centres), words * 64 + 2)
        and starts.shape == (len(codes) + 1,)
        and (index.ntotal, index.d) == (len(codes), words * 64)
    )
    return bool(
        shapes
        and _within(rows, count - 1)
        and _within(cells.rings, len(codes))
        and _within(starts, len(rows))
        and (np.diff(starts) >= 0).all()
        and (np.diff(cells.rings, axis=1) >= 0).all()
    )


def _within(values: np.ndarray, most: int) -> bool:
    return values.dtype == np.int64 and bool(
        (values.min(initial=0) >= 0) and values.max(initial=0) <= max(most, 0)
    )
