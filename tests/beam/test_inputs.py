"""Inputs: files as encode finds them, paths of a CSV, records of TFRecord files."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from pathlib import Path

import pytest

pytest.importorskip("apache_beam", reason="needs Apache Beam: `make beam`")

import tensorflow as tf

from tfhash.errors import UserError
from tfhash.serving.bulk import records
from tfhash.serving.bulk.inputs import Files, Item, Paths, Records, source_of
from tfhash.serving.encode import files as of_encode

LIMIT = 2**16


def items_of(source) -> list[Item]:
    return [item for draft in source.find() for item in source.items(draft)]


def test_files_are_those_of_encode(photos):
    (photos / ".hidden.png").write_bytes(b"")
    os.mkfifo(photos / "pipe.png")
    found = items_of(Files("photos/**", LIMIT))
    assert [item.id for item in found] == of_encode.find("photos/**").paths
    assert len(found) == 42
    for item in found:
        status = Path(item.id).stat()
        assert (item.size, item.modified) == (status.st_size, status.st_mtime_ns // 1000)
        assert item.path == str(Path(item.id).absolute()) and item.error is None


def test_a_name_that_is_no_utf_8_has_no_row_but_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(os.fsdecode(b"\xff.png")).write_bytes(b"\x89PNG")
    (item,) = items_of(Files("*.png", LIMIT))
    assert (item.id, item.error) == (
        "\\xff.png",
        "its name is no UTF-8, and Parquet cannot hold it",
    )


def test_a_link_that_leads_nowhere_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop.png").symlink_to("loop.png")
    (item,) = items_of(Files("*.png", LIMIT))
    assert item.id == "loop.png" and "symbolic links" in item.error


def test_paths_of_a_csv(photos):
    with open("paths.csv", "w", encoding="utf-8") as file:
        file.write('label,path\nx,photos/a/00.png\ny,"photos/a/02.png"\nz,photos/gone.png\nw,\n')
    source = Paths("paths.csv", LIMIT)
    source.check()
    found = items_of(source)
    assert [(item.id, item.error) for item in found] == [
        ("photos/a/00.png", None),
        ("photos/a/02.png", None),
        ("photos/gone.png", "No such file or directory"),
    ]
    assert source.read(found[0]) == Path("photos/a/00.png").read_bytes()


def example(**features: bytes) -> bytes:
    made = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write_records(path: str, data: list[bytes], compression: str | None = None) -> None:
    with tf.io.TFRecordWriter(path, compression) as writer:
        for one in data:
            writer.write(one)


@pytest.fixture
def data(draw) -> list[bytes]:
    return [
        example(image=draw(0), id=b"first"),
        example(image=draw(1)),
        example(other=draw(2)),
        b"\xff no example",
        example(image=b"no image", id=b"text"),
        example(image=draw(3), id=b"last"),
    ]


@pytest.mark.parametrize("compression", [None, "GZIP"])
def test_records(data, draw, tmp_path, compression):
    """Offsets by the format: 12 bytes before the data of a record, 4 behind."""
    end = ".gz" if compression else ""
    path = f"{tmp_path}/images.tfrecord-00000-of-00001{end}"
    write_records(path, data, compression)
    source = source_of(f"{tmp_path}/images.tfrecord@*{end}", LIMIT, "image", "id")
    if compression:
        source = Records(path, LIMIT, "image", "id")
    found = items_of(source)
    offsets = [12]
    for one in data:
        offsets.append(offsets[-1] + len(one) + 16)
    names = ["first", f"{path}:{offsets[1]}", f"{path}:{offsets[2]}", f"{path}:{offsets[3]}"]
    assert [item.id for item in found] == [*names, f"{path}:{offsets[4]}", "last"]
    assert [item.error for item in found] == [
        None,
        None,
        "no image: 0 values of bytes in its feature 'image'",
        "no tf.train.Example",
        "not a JPEG or PNG image",
        None,
    ]
    for item, seed in ((found[0], 0), (found[1], 1), (found[5], 3)):
        assert source.read(item) == draw(seed)
        assert (item.size, item.sha256) == (len(draw(seed)), hashlib.sha256(draw(seed)).digest())


def read_all(content: bytes, limit: int = LIMIT) -> list[tuple[int, bytes | None, str | None]]:
    found = records.records(io.BytesIO(content), limit)
    return [(record.offset, record.data, record.error) for record in found]


@pytest.fixture
def content(tmp_path) -> bytes:
    """Three records, of 3, 2 and 4 bytes: their data begin at 12, 31 and 49."""
    write_records(f"{tmp_path}/r", [b"one", b"no", b"last"])
    return (tmp_path / "r").read_bytes()


def test_a_damaged_record_costs_itself(content):
    assert read_all(content) == [(12, b"one", None), (31, b"no", None), (49, b"last", None)]
    flipped = content[:31] + b"N" + content[32:]
    assert read_all(flipped) == [
        (12, b"one", None),
        (31, None, "damaged: not what its checksum is of"),
        (49, b"last", None),
    ]


def test_a_damaged_length_costs_what_is_behind_it(content):
    flipped = content[:19] + b"\x09" + content[20:]
    found = [(12, b"one", None), (31, None, "damaged from here on: no length of a record")]
    assert read_all(flipped) == found


@pytest.mark.parametrize("length", [20, 25, 32, 34])
def test_a_file_that_ends_within_a_record(content, length):
    found = read_all(content[:length])
    assert found == [(12, b"one", None), (31, None, "the file ends within this record")]


def test_a_record_over_the_limit_is_skipped(tmp_path):
    large = bytes(records._MARGIN + 11)
    write_records(f"{tmp_path}/r", [large, b"next"])
    found = read_all((tmp_path / "r").read_bytes(), limit=10)
    error = "1.0 MiB; allowed: 0.0 MiB, by max_image_megapixels"
    assert found == [(12, None, error), (len(large) + 28, b"next", None)]


def test_a_csv_of_excel(tmp_path):
    """Its "CSV UTF-8" begins with a byte-order mark."""
    (tmp_path / "paths.csv").write_text("path\nphotos/ä.png\n", encoding="utf-8-sig")
    source = Paths(f"{tmp_path}/paths.csv", LIMIT)
    source.check()
    assert [item.id for item in source.find()] == ["photos/ä.png"]


def test_a_file_that_is_not_packed_is_told(tmp_path):
    (tmp_path / "x.tfrecord.gz").write_bytes(gzip.compress(b"")[:-4] + b"....")
    (item,) = items_of(Records(f"{tmp_path}/x.tfrecord.gz", LIMIT, "image", "id"))
    assert item.id.endswith("x.tfrecord.gz:0") and item.error


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("photos/**", Files),
        ("a.csv/*.jpg", Files),
        ("gs://b/paths.csv", Paths),
        ("paths.csv.gz", Paths),
        ("images.tfrecord@*", Records),
        ("d/images.tfrecord-00000-of-00002", Records),
        ("images.tfrecords", Records),
    ],
)
def test_what_a_pattern_means(pattern, kind):
    assert type(source_of(pattern, LIMIT, "image", "id")) is kind


def test_the_names_of_data_sets():
    assert records.glob_of("i.tfrecord@16") == "i.tfrecord-*-of-00016"
    assert records.glob_of("i.tfrecord@*") == "i.tfrecord-*-of-*"
    assert records.glob_of("me@home/i.tfrecord") == "me@home/i.tfrecord"
    with pytest.raises(UserError, match="--input: i.tfrecord@0; allowed"):
        records.glob_of("i.tfrecord@0")
