"""What stands in shards, read by pyarrow alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pyarrow import parquet


def rows(folder: Path | str = "out") -> dict[str, dict]:
    """The rows of all shards by their ids, once it is sure that no id comes twice."""
    found = [row for path in shards(folder) for row in rows_of(path)]
    by_id = {row["id"]: row for row in found}
    assert len(by_id) == len(found)
    return by_id


def rows_of(path: Path) -> list[dict]:
    """The rows of a shard, in its order."""
    return parquet.read_table(path).to_pylist()


def codes(folder: Path | str = "out") -> dict[str, bytes]:
    """The codes of all rows that have one."""
    return {name: row["code"] for name, row in rows(folder).items() if row["code"] is not None}


def shards(folder: Path | str = "out") -> list[Path]:
    return sorted(Path(folder).glob("*.parquet"))


def facts(path: Path) -> dict:
    return json.loads(parquet.read_schema(path).metadata[b"tfhash"])


def times(paths: Iterable[Path]) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in paths}
