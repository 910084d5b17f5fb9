"""Images that do not fit in memory: decoded once into a file, and read from there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfhash.data import image_files, prepared, sources
from tfhash.errors import NotNowError, UserError
from tfhash.storage import memory, rows
from tfhash.storage.place import Storage

CLASSES = ("cat", "dog")
TFDS_DIR = Path(__file__).parents[3] / "shared" / "data" / "tfds"


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8)
    encode = tf.io.encode_jpeg if path.suffix == ".jpg" else tf.io.encode_png
    path.write_bytes(encode(pixels).numpy())


@pytest.fixture
def photos(tmp_path):
    """Twelve images of two classes, one of them a copy of another one."""
    for number in range(11):
        suffix = "jpg" if number % 3 else "png"
        write_image(tmp_path / "photos" / CLASSES[number % 2] / f"{number:02d}.{suffix}", number)
    shutil.copy(tmp_path / "photos/cat/00.png", tmp_path / "photos/dog/copy.png")
    return tmp_path / "photos"


def load(photos, kind="disk", name="folder", **arguments):
    storage = Storage(kind, photos.parent / "cache")
    return sources.load(name, data_dir=photos, image_size=5, storage=storage, **arguments)


def folders(photos):
    return sorted((photos.parent / "cache" / "images").glob("*"))


@pytest.fixture
def no_decoding(monkeypatch):
    """From its call on, nothing is decoded any more."""

    def start():
        def fill(*_):
            raise AssertionError("decoded again")

        monkeypatch.setattr(image_files, "fill", fill)

    return start


def assert_same(one, other):
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert (one.ids, one.notes, one.class_names) == (other.ids, other.notes, other.class_names)
    if one.first is not None or other.first is not None:
        np.testing.assert_array_equal(one.first, other.first)


@pytest.mark.parametrize("duplicates", ["group", "drop", "keep"])
def test_they_are_those_that_memory_would_hold(photos, duplicates, no_decoding):
    expected = load(photos, "memory", duplicates=duplicates)
    found = load(photos, duplicates=duplicates)
    assert isinstance(found.images, np.memmap) and not isinstance(expected.images, np.memmap)
    assert len(found.images) == (11 if duplicates == "drop" else 12)
    assert_same(found, expected)
    no_decoding()
    assert_same(load(photos, duplicates=duplicates), expected)


@pytest.mark.parametrize("name", ["csv", "images"])
def test_other_sources_of_files_do_the_same(photos, name, no_decoding):
    arguments = {}
    if name == "csv":
        table = photos.parent / "labels.csv"
        table.write_text("path,labels\ncat/00.png,a\ncat/02.jpg,b\n")
        arguments["labels_csv"] = table
    expected = load(photos, "memory", name, **arguments)
    assert_same(load(photos, "disk", name, **arguments), expected)
    no_decoding()
    assert_same(load(photos, "disk", name, **arguments), expected)


def test_by_default_a_quarter_of_the_free_memory_decides(photos, monkeypatch):
    """12 images of 5 x 5 x 3 bytes are 900."""
    for free, mapped in ((3600, False), (3599, True)):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        assert isinstance(load(photos, "auto").images, np.memmap) == mapped


def touch(photos):
    os.utime(photos / "cat/02.jpg", ns=(1, 1))


def other_content_of_the_same_size_and_time(photos):
    path = photos / "cat/00.png"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "a new file": lambda photos: write_image(photos / "cat/new.png", 99),
    "one less": lambda photos: (photos / "cat/02.jpg").unlink(),
    "another name": lambda photos: (photos / "cat/02.jpg").rename(photos / "cat/03.jpg"),
    "another time": touch,
    "another size": lambda photos: write_image(photos / "cat/02.jpg", 99),
    "other content": other_content_of_the_same_size_and_time,
    "another folder": lambda photos: photos.rename(photos.parent / "moved"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_can_change_a_pixel_makes_another_file(photos, change):
    load(photos)
    change(photos)
    if not photos.exists():
        photos = photos.parent / "moved"
    load(photos, unreadable="skip")
    assert len(folders(photos)) == 2


def test_size_and_limit_make_another_file_and_the_rest_does_not(photos):
    storage = Storage("disk", photos.parent / "cache")
    for arguments in (
        {}, {"image_size": 6}, {"max_image_megapixels": 2},
        {"duplicates": "keep"}, {"unreadable": "skip"},
    ):  # fmt: skip
        sources.load("folder", data_dir=photos, storage=storage, **{"image_size": 5, **arguments})
    assert len(folders(photos)) == 3


@pytest.fixture
def with_bad_ones(photos):
    (photos / "cat/01bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    (photos / "dog/zz.jpg").write_bytes(b"")
    return photos


def test_unreadable_images_are_told_at_the_second_start_too(with_bad_ones, caplog):
    expected = load(with_bad_ones, "memory", unreadable="skip")
    assert expected.notes[0] == "2 unreadable files skipped"
    for _ in range(2):
        caplog.clear()
        found = load(with_bad_ones, unreadable="skip")
        assert_same(found, expected)
        assert [line for line in caplog.messages if "cat/01bad.png" in line]
    for kind in ("memory", "disk"):
        words = "2 of 14 files are unreadable, the first is cat/01bad.png"
        with pytest.raises(UserError, match=words):
            load(with_bad_ones, kind)


def test_an_image_that_can_be_read_later_is_there_then(photos, monkeypatch):
    """What refuses it is not in the file, but, say, a network."""
    plain = image_files.files.read

    def refuse(path, limit):
        if path.name == "02.jpg":
            raise image_files.files.NotReadError("no route to host")
        return plain(path, limit)

    with monkeypatch.context() as patched:
        patched.setattr(image_files.files, "read", refuse)
        for _ in range(2):
            before = load(photos, unreadable="skip")
            assert len(before.ids) == 11 and "1 unreadable files skipped" in before.notes
    pixels = np.array(before.images)
    found = load(photos, unreadable="skip")
    assert_same(found, load(photos, "memory", unreadable="skip"))
    assert len(found.ids) == 12
    np.testing.assert_array_equal(before.images, pixels)  # who reads the old file, still does


def test_a_jpeg_that_is_damaged_in_part_is_used_and_told_at_each_start(photos):
    path = photos / "cat/02.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes(200) + content[-2:])  # what many cameras write
    expected = load(photos, "memory")
    assert "1 JPEG files are damaged in part and used as they are" in expected.notes
    for _ in range(2):
        assert_same(load(photos), expected)


def test_names_of_any_bytes(photos):
    name = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(photos / "cat/02.jpg", photos / "cat" / name)
    (photos / "cat" / os.fsdecode(b"bad\xe9.jpg")).write_bytes(b"")
    for _ in range(2):
        found = load(photos, unreadable="skip")
        assert f"cat/{name}" in found.ids and found.notes[0] == "1 unreadable files skipped"


Usage = namedtuple("Usage", "total used free")


def test_a_disk_without_room_is_one_line_before_anything_is_decoded(
    photos, monkeypatch, no_decoding
):
    no_decoding()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1000, 101, 899))
    with pytest.raises(NotNowError, match="`cache_dir`: 900 bytes are needed in .*, 899 are free"):
        load(photos)


READER = """
    import sys, time
    from pathlib import Path
    from tfhash.data import image_files, prepared, sources
    from tfhash.storage.place import Storage

    image_files._BLOCK = 2
    plain = image_files.fill

    def slow(pixels, root, ids, megapixels):
        print("decodes", *ids, flush=True)
        time.sleep(float(sys.argv[3]))
        return plain(pixels, root, ids, megapixels)

    image_files.fill = slow
    storage = Storage("disk", Path(sys.argv[2]))
    read = sources.load("folder", data_dir=sys.argv[1], image_size=5, storage=storage)
    print("done", len(read.ids), read.images.sum(), flush=True)
"""


def reader(python, photos, wait):
    source = textwrap.dedent(READER)
    command = [python, "-c", source, str(photos), str(photos.parent / "cache"), str(wait)]
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def decoded(lines):
    return [id_ for line in lines if line.startswith("decodes") for id_ in line.split()[1:]]


def test_after_kill_9_the_parts_that_were_whole_are_not_decoded_again(python, photos):
    """Killed while it decodes the third pair of files; what comes of it is what memory has."""
    process = reader(sys.executable, photos, 0.2)
    lines = []
    while len(decoded(lines)) < 6:
        lines.append(process.stdout.readline())
        assert lines[-1], "it ended before"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    expected = load(photos, "memory")
    again = reader(python, photos, 0).communicate(timeout=300)[0].splitlines()
    files = sorted(decoded(lines)[:4] + decoded(again))
    assert files == sorted(expected.ids)  # the two whole pairs were not decoded again
    assert again[-1] == f"done {len(expected.ids)} {expected.images.sum()}"
    assert_same(load(photos), expected)


def test_of_two_processes_one_decodes_and_the_other_waits_and_reads(python, photos):
    first = reader(python, photos, 0.5)
    while not first.stdout.readline().startswith("decodes"):
        assert first.poll() is None
    second = reader(python, photos, 0)
    began = time.monotonic()
    outputs = [process.communicate(timeout=300)[0].splitlines() for process in (first, second)]
    expected = load(photos, "memory")
    done = f"done {len(expected.ids)} {expected.images.sum()}"
    assert [output[-1] for output in outputs] == [done, done]
    assert not decoded(outputs[1]), time.monotonic() - began
    assert len(folders(photos)) == 1


@pytest.mark.skipif(not TFDS_DIR.is_dir(), reason="../shared/data/tfds is not here")
def test_cifar10_on_disk_is_that_in_memory(tmp_path, monkeypatch):
    """Of 50 images; the second start reads none of them."""
    monkeypatch.setattr(prepared, "CIFAR10_SPLITS", ("train[:30]", "test[:20]"))
    monkeypatch.setattr(prepared, "_READ_BATCH", 8)
    expected = sources.load("cifar10", data_dir=TFDS_DIR, image_size=9)
    assert len(expected.ids) == 50 and list(expected.ids) == sorted(expected.ids)
    storage = Storage("disk", tmp_path)
    for _ in range(2):
        found = sources.load("cifar10", data_dir=TFDS_DIR, image_size=9, storage=storage)
        assert isinstance(found.images, np.memmap)
        assert_same(found, expected)
        monkeypatch.setattr(prepared.Prepared, "_resized", None)


@pytest.mark.skipif(not TFDS_DIR.is_dir(), reason="../shared/data/tfds is not here")
def test_of_parts_of_cifar10_that_are_mended_each_gets_its_own_images(tmp_path, monkeypatch):
    """Of seven parts the second and the sixth are damaged: between them nothing is decoded."""
    monkeypatch.setattr(prepared, "CIFAR10_SPLITS", ("train[:30]", "test[:20]"))
    monkeypatch.setattr(prepared, "_READ_BATCH", 8)

    def load_them():
        storage = Storage("disk", tmp_path)
        return sources.load("cifar10", data_dir=TFDS_DIR, image_size=9, storage=storage).images

    part = 8 * load_them()[0].nbytes
    (path,) = tmp_path.glob(f"images/*/{rows.ROWS}")  # what the order of ids is made of
    expected = path.read_bytes()
    with path.open("r+b") as file:
        for number in (1, 5):
            file.seek(number * part + 3)
            file.write(b"damaged")
    load_them()
    assert path.read_bytes() == expected
