"""Shards of codes as Parquet: what is written is what is read, by pyarrow too."""

from __future__ import annotations

import io
import json

import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow")

import pyarrow
from pyarrow import parquet

from tfhash import shards
from tfhash.shards import Facts, Row

FACTS = Facts("f" * 32, 13, 2, 7, 40, "inputs")
ROWS = [
    Row("a/ä.jpg", b"\x01\x08", 10, 1_700_000_000_000_000, bytes(32), None),
    Row("b.jpg", None, 20, -1, bytes(range(32)), "damaged"),
    Row("c.jpg", None, -1, -1, None, "Input/output error"),
]


def test_what_is_written_is_read():
    data = shards.to_bytes(FACTS, ROWS)
    facts, table = shards.read(io.BytesIO(data))
    assert facts == FACTS._replace(rows=3, errors=2, unread=1)
    assert shards.rows_of(table) == ROWS
    assert shards.read_facts(io.BytesIO(data)) == facts
    assert shards.to_bytes(FACTS, ROWS) == data


def test_no_flipped_bit_makes_other_rows():
    """Each byte in turn: it is told, or nothing that is read stands there."""
    data = shards.to_bytes(FACTS, ROWS)
    told = 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        try:
            assert shards.rows_of(shards.read(io.BytesIO(damaged))[1]) == ROWS
        except ValueError:
            told += 1
    assert told > len(data) / 2


def test_pyarrow_alone_reads_it():
    table = parquet.read_table(io.BytesIO(shards.to_bytes(FACTS, ROWS)))
    assert table.column_names == ["id", "code", "size", "modified", "sha256", "error"]
    assert table.schema.field("code").type == pyarrow.binary(2)
    assert table.column("code").to_pylist() == [b"\x01\x08", None, None]
    told = json.loads(table.schema.metadata[b"tfhash"])
    assert (told["fingerprint"], told["code_length"]) == ("f" * 32, 13)


def test_a_shard_without_rows():
    facts, table = shards.read(io.BytesIO(shards.to_bytes(FACTS, [])))
    assert (facts, shards.rows_of(table)) == (FACTS, [])


def other_columns() -> bytes:
    file = io.BytesIO()
    table = pyarrow.table({"x": [1]}).replace_schema_metadata(
        {b"tfhash": json.dumps(FACTS._asdict())}
    )
    parquet.write_table(table, file)
    return file.getvalue()


def other_facts(facts: object) -> bytes:
    file = io.BytesIO()
    _, table = shards.read(io.BytesIO(shards.to_bytes(FACTS, ROWS)))
    parquet.write_table(table.replace_schema_metadata({b"tfhash": json.dumps(facts)}), file)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PAR1 nothing PAR1",
        shards.to_bytes(FACTS, ROWS)[:-20],
        other_columns(),
        other_facts({"fingerprint": "f"}),
        other_facts(FACTS._asdict() | {"shard": "2"}),
        other_facts(FACTS._asdict() | {"rows": 4}),
        other_facts(FACTS._asdict() | {"rows": 3, "code_length": 17}),
    ],
)
def test_anything_else_is_one_line(data):
    with pytest.raises(ValueError, match="no shard of tfhash.serving.bulk, or damaged") as caught:
        shards.read(io.BytesIO(data))
    assert "\n" not in str(caught.value)


def test_names():
    assert shards.together("a@b/codes@16.parquet") == ("a@b/codes", 16)
    assert shards.path_of("out/codes", 3, 16) == "out/codes-00003-of-00016.parquet"
    assert shards.parts_of("out/c-1-00003-of-00016.parquet") == ("out/c-1", 3, 16)
    assert shards.parts_of("out/codes.parquet") is None
    number = "[0-9][0-9][0-9][0-9][0-9]"
    assert shards.glob_of("codes@*.parquet") == f"codes-{number}-of-{number}.parquet"
    assert shards.glob_of("codes@16.parquet") == f"codes-{number}-of-00016.parquet"
    assert shards.glob_of("codes-*.parquet") == "codes-*.parquet"


@pytest.mark.parametrize(
    "text",
    ["codes.parquet", "codes@0.parquet", "codes@*.parquet", "@3.parquet", "c@100000.parquet"],
)
def test_an_output_that_is_none(text):
    with pytest.raises(ValueError, match="allowed: NAME@SHARDS.parquet with 1 to 99,999 shards"):
        shards.together(text)
