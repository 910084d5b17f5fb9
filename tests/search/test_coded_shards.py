"""Codes in shards of Parquet, and an index that is built of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow")

from tfhash import shards
from tfhash.errors import UserError
from tfhash.search import coded_shards
from tfhash.search.index import Index
from tfhash.shards import Facts, Row

CODES = {f"p/{number}.jpg": bytes([number, 16 * number]) for number in range(9)}  # 12 bits


@pytest.fixture
def written(tmp_path, monkeypatch) -> Path:
    """The folder of codes@3.parquet: item i is in shard i % 3, and there is one error."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


def write(folder: Path, name: str = "codes", count: int = 3, fingerprint: str = "m1") -> None:
    for shard in range(count):
        rows = [Row(id, code, 9, 1, bytes(32), None) for id, code in CODES.items()]
        mine = [*rows[shard::count], Row(f"bad/{shard}", None, 9, 1, None, "damaged")]
        data = shards.to_bytes(Facts(fingerprint, 12, shard, count, 40, "d"), mine)
        (folder / shards.path_of(name, shard, count)).write_bytes(data)


@pytest.mark.parametrize("pattern", ["codes@3.parquet", "codes@*.parquet", "codes-*.parquet"])
def test_all_rows_with_a_code(written, pattern):
    codes, ids, code_length, fingerprint = coded_shards.read(pattern)
    assert (code_length, fingerprint, codes.dtype) == (12, "m1", np.uint8)
    assert dict(zip(ids, map(bytes, codes), strict=True)) == CODES
    assert len(ids) == 9


def test_an_index_of_them(written, search):
    ended = search("build", "--index=i", "--codes=codes@3.parquet")
    assert "9 codes, 0 removed" in ended.output
    with Index.load("i") as index:
        assert index.model == "m1"
        assert {name: index.codes([name]).tobytes() for name in index.ids()} == CODES
    write(written, "others", 2, "m2")
    line = search("build", "--index=i", "--codes=others@2.parquet", status=2).line("tfhash.search")
    assert "m2" in line and "m1" in line


def test_a_name_with_signs_of_a_pattern(written):
    write(written, "c[1]")
    assert len(coded_shards.read("c[1]@3.parquet")[1]) == 9


def test_a_shard_that_is_missing(written):
    (written / "codes-00001-of-00003.parquet").unlink()
    with pytest.raises(UserError, match="`codes`: 1 of 3 shards are missing, such as codes-00001"):
        coded_shards.read("codes@3.parquet")


def test_shards_of_two_models(written):
    data = (written / "codes-00002-of-00003.parquet").read_bytes()
    write(written, fingerprint="m2")
    (written / "codes-00002-of-00003.parquet").write_bytes(data)
    with pytest.raises(UserError, match="codes-00002-of-00003.parquet is of model m1, .* of m2"):
        coded_shards.read("codes@3.parquet")


def test_two_sets(written):
    write(written, "codes", 2)
    with pytest.raises(UserError, match="matches codes@2.parquet, codes@3.parquet; allowed: one"):
        coded_shards.read("codes-*.parquet")


def test_codes_with_bits_beyond_their_length(written):
    data = shards.to_bytes(Facts("m1", 12, 0, 1, 40, "d"), [Row("a", b"\1\1", 1, 1, None, None)])
    (written / "wrong-00000-of-00001.parquet").write_bytes(data)
    with pytest.raises(UserError, match="`codes`: wrong-00000-of-00001.parquet: "):
        coded_shards.read("wrong@1.parquet")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("none@3.parquet", "`codes`: no file matches none@3.parquet"),
        ("mine.parquet", "`codes`: mine.parquet is no shard; allowed: NAME@SHARDS"),
        ("broken@1.parquet", "broken-00000-of-00001.parquet: no shard of tfhash.serving.bulk"),
    ],
)
def test_what_is_no_shard(written, pattern, expected):
    for name in ("mine.parquet", "broken-00000-of-00001.parquet"):
        (written / name).write_bytes(b"other")
    with pytest.raises(UserError, match=expected):
        coded_shards.read(pattern)
