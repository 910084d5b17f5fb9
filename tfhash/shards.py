"""Shards of codes: the Parquet files that tfhash.serving.bulk writes and tfhash.search reads.

NAME@3.parquet stands for NAME-00000-of-00003.parquet and its two neighbours, each whole or not
there. A row is an image, with a code or with the reason why it has none. pyarrow is imported where
a file is read or written, not before.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

from tfhash.errors import UserError
from tfhash.names import shown

_KEY = b"tfhash"  # of the facts, JSON, in the metadata of a file's schema
_TOGETHER = re.compile(r"(.*)@(\d+|\*)\.parquet", re.DOTALL)
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.parquet", re.DOTALL)
MOST = 99_999
ALLOWED = f"NAME@SHARDS.parquet with 1 to {MOST:,} shards, such as codes@16.parquet"


class Facts(NamedTuple):
    """What a shard says of itself.

    fingerprint, code_length: of the model. megapixels: the limit of an image that held. inputs:
    digest of what the rows are of, so that a shard of the same inputs need not be made again.
    unread: rows whose image the system did not give, and may give next time. errors: rows without
    a code, those among them. engine: what ran the network; a shard of before there were several
    does not tell.
    """

    fingerprint: str
    code_length: int
    shard: int
    shards: int
    megapixels: int
    inputs: str
    rows: int = 0
    errors: int = 0
    unread: int = 0
    engine: str = "tensorflow"

    @property
    def width(self) -> int:
        """The bytes of a code."""
        return -(-self.code_length // 8)


class Row(NamedTuple):
    """An image: its name, and its code of `Facts.width` bytes, or else the error in words.

    size: in bytes, -1 where the system did not give it. modified: of its file, microseconds since
    1970, -1 where that is not known. sha256: 32 bytes, of the image; None where it was not read.
    """

    id: str
    code: bytes | None
    size: int
    modified: int
    sha256: bytes | None
    error: str | None


def together(output: str) -> tuple[str, int]:
    """The NAME and the number of NAME@SHARDS.parquet. ValueError for another text."""
    match = _TOGETHER.fullmatch(output)
    if not match or match[2] == "*" or not match[1] or not 1 <= int(match[2]) <= MOST:
        raise ValueError(f"{output}; allowed: {ALLOWED}")
    return match[1], int(match[2])


def path_of(name: str, shard: int, shards: int) -> str:
    """Where a shard is."""
    return f"{name}-{shard:05d}-of-{shards:05d}.parquet"


def parts_of(path: str) -> tuple[str, int, int] | None:
    """What `path_of` made a path of; None where it is no path of a shard."""
    match = _SHARD.fullmatch(path)
    return (match[1], int(match[2]), int(match[3])) if match else None


def glob_of(pattern: str, escape: Any = str) -> str:
    """NAME@3.parquet and NAME@*.parquet as a pattern of file names; anything else as it is.

    escape: what keeps signs of a pattern in NAME from being ones.
    """
    match = _TOGETHER.fullmatch(pattern)
    if not match:
        return pattern
    number = "[0-9]" * 5
    return (
        escape(match[1])
        + f"-{number}-of-"
        + (f"{number}.parquet" if match[2] == "*" else f"{int(match[2]):05d}.parquet")
    )


def to_bytes(facts: Facts, rows: Iterable[Row]) -> bytes:
    """The file of a shard: the same rows make the same bytes. facts: counts are taken of the rows.

    Columns: id string, code fixed-size binary, size and modified int64, sha256 of 32 bytes, error.
    """
    pyarrow, parquet = _pyarrow()
    rows = list(rows)
    facts = facts._replace(
        rows=len(rows),
        errors=sum(row.code is None for row in rows),
        unread=sum(row.code is None and row.size < 0 for row in rows),
    )
    text = json.dumps(facts._asdict(), sort_keys=True)
    schema = pyarrow.schema(
        {
            "id": pyarrow.string(),
            "code": pyarrow.binary(facts.width),
            "size": pyarrow.int64(),
            "modified": pyarrow.int64(),
            "sha256": pyarrow.binary(32),
            "error": pyarrow.string(),
        }.items(),
        metadata={_KEY: text},
    )
    columns = [*zip(*rows, strict=True)] or [()] * len(Row._fields)
    arrays = [
        pyarrow.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)
    ]
    file = io.BytesIO()
    table = pyarrow.Table.from_arrays(arrays, schema=schema)
    # Without checksums a flipped bit may make another row, and nobody is told.
    parquet.write_table(table, file, write_page_checksum=True)
    return file.getvalue()


def read_facts(file: BinaryIO) -> Facts:
    """What a shard says of itself; ValueError, in one line, where the file is none."""
    _, parquet = _pyarrow()
    try:
        return _facts(parquet.read_schema(file).metadata)
    except Exception as error:  # a damaged file raises many kinds
        raise _no_shard(error) from None


def read(file: BinaryIO) -> tuple[Facts, Any]:
    """The facts and the pyarrow.Table of a shard; ValueError, in one line, where it is none."""
    _, parquet = _pyarrow()
    try:
        table = parquet.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
        facts = _facts(table.schema.metadata)
        names = [*Row._fields]
        width = table.schema.field("code").type.byte_width
        if table.column_names != names or width != facts.width or len(table) != facts.rows:
            raise ValueError(f"columns {table.column_names}, codes of {width} bytes")
    except Exception as error:
        raise _no_shard(error) from None
    return facts, table


def rows_of(table: Any) -> list[Row]:
    """The rows of a table that `read` has read."""
    columns = (table.column(name).to_pylist() for name in Row._fields)
    return [Row(*values) for values in zip(*columns, strict=True)]


def _facts(metadata: Any) -> Facts:
    facts = Facts(**json.loads((metadata or {})[_KEY]))
    if [type(value) for value in facts] != [str, int, int, int, int, str, int, int, int, str]:
        raise ValueError(f"its facts are {facts}")
    return facts


def _no_shard(error: Exception) -> ValueError:
    reason = shown(" ".join(str(error).split())[:200])
    return ValueError(f"no shard of tfhash.serving.bulk, or damaged ({reason})")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("Parquet needs pyarrow, which the extra bulk of tfhash brings") from None
    return pyarrow, parquet
