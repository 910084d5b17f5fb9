"""What comes of the files: rows by path, what made them, and the one .npz where they end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfhash import npz
from tfhash.errors import UserError
from tfhash.names import shown

ENGINE = "tensorflow"  # of servers, and of outputs of before there were others


class Source(NamedTuple):
    """What made a code; codes of two sources are never mixed.

    target: of the server; "" for an export in this process, whose folder model is then.
    fingerprint: "" of an export of before there were any, which the other fields alone tell apart.
    engine: what ran the network in this process.
    """

    target: str
    model: str
    version: int
    code_length: int
    fingerprint: str = ""
    engine: str = ENGINE

    @property
    def width(self) -> int:
        """The bytes of a code."""
        return -(-self.code_length // 8)

    def __str__(self) -> str:
        of = f", fingerprint {self.fingerprint}" if self.fingerprint else ""
        at = f" at {self.target}" if self.target else ""
        by = f", by {self.engine}" if self.engine != ENGINE else ""
        return shown(f"{self.model} version {self.version}{at}{of}{by}")


class Row(NamedTuple):
    """What came of a file of this size in bytes and modification time in nanoseconds.

    code: None for a file that could not be encoded; reason says why.
    """

    size: int
    modified: int
    code: bytes | None
    reason: str = ""


def write(output: Path, source: Source, rows: Mapping[str, Row]) -> None:
    """Writes the codes of those rows that have one, in one move; UserError where that fails.

    The .npz holds, without pickle: codes uint8 [n, ceil(k / 8)], paths str [n], sizes and modified
    int64 [n], and the fields of the source as scalars. A byte of a path that is no UTF-8 stands
    there as Python has it, a lone surrogate; os.fsencode gives it back.
    """
    coded = {path: row for path, row in rows.items() if row.code is not None}
    joined = b"".join(row.code for row in coded.values() if row.code is not None)
    codes = np.frombuffer(joined, np.uint8)
    arrays = {
        "codes": codes.reshape(len(coded), source.width),
        "paths": np.array(list(coded), np.str_),
        "sizes": np.array([row.size for row in coded.values()], np.int64),
        "modified": np.array([row.modified for row in coded.values()], np.int64),
    }
    try:
        npz.write(output, arrays | source._asdict())
    except OSError as error:
        raise cannot_write(output, error) from None


def read(output: Path) -> tuple[Source, dict[str, Row]] | None:
    """What `write` wrote, also without a fingerprint; None where there is nothing.

    UserError for a file of another kind, and for a damaged one.
    """
    if not output.exists():
        return None
    try:
        if not output.is_file():  # reading a pipe would wait for ever
            raise ValueError("no regular file")
        with np.load(output, allow_pickle=False) as file:
            return _read(file)
    except Exception as error:  # a damaged archive raises nearly everything that there is
        raise UserError(
            f"--output: {shown(str(output))} is there and was not written by this command, or is "
            f"damaged ({type(error).__name__}: {shown(str(error))}); allowed: another name, or "
            "without that file"
        ) from None


def cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"--output: cannot write {shown(str(path))} ({error.strerror or error})")


def _read(file: Mapping[str, np.ndarray]) -> tuple[Source, dict[str, Row]]:
    unknown = set(file) - {"codes", "paths", "sizes", "modified", *Source._fields}
    if unknown:  # a damaged name, else, would be a field that is not there
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    source = Source(**{name: file[name].item() for name in Source._fields if name in file})
    if [type(value) for value in source] != [str, str, int, int, str, str]:
        raise ValueError(f"its source is {source}")
    codes, paths, sizes, modified = (file[name] for name in ("codes", "paths", "sizes", "modified"))
    if (
        codes.dtype != np.uint8
        or codes.shape != (len(paths), source.width)
        or paths.dtype.kind != "U"
        or not paths.shape == sizes.shape == modified.shape
        or not sizes.dtype == modified.dtype == np.int64
    ):
        raise ValueError(f"codes {codes.shape} for {paths.shape} paths and {source.width} bytes")
    rows = zip(paths.tolist(), sizes.tolist(), modified.tolist(), codes, strict=True)
    return source, {path: Row(size, time, code.tobytes()) for path, size, time, code in rows}
