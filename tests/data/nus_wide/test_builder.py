"""The builder of NUS-WIDE on dummy data in the layout of the owners, by the tests of TFDS."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("dill", reason="the tests of TFDS need dill")
import tensorflow_datasets as tfds  # noqa: E402

from tfhash import prepare_nus_wide  # noqa: E402
from tfhash.data import sources, splits  # noqa: E402
from tfhash.data.nus_wide import builder as builders  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.runs.experiment_settings import Experiment  # noqa: E402
from tfhash.storage.place import Storage  # noqa: E402

CONCEPTS = [f"c{n:02d}" for n in range(23)]  # of which the last two are the rarest
PATHS = [f"{'actor' if n % 2 else 'zoo'}/{n:04d}_{900 + n}.jpg" for n in range(30)]
LOST, BROKEN = PATHS[3], PATHS[5]


def labels():
    """Image n has concept n % 23; every image below 21 also has concept 0. 21 and 22: one each."""
    hot = np.zeros((30, 23), np.uint8)
    hot[np.arange(30), np.arange(30) % 23] = 1
    hot[:21, 0] = 1
    return hot


def write_owners(root: Path):
    listed = "\n".join(path.replace("/", "\\") for path in PATHS)
    (root / "ImageList").mkdir(parents=True)
    (root / "ImageList" / "Imagelist.txt").write_text(listed + "\n")
    of_concepts = root / "Groundtruth" / "AllLabels"
    of_concepts.mkdir(parents=True)
    for name, column in zip(CONCEPTS, labels().T, strict=True):
        (of_concepts / f"Labels_{name}.txt").write_text("".join(f"{v}\n" for v in column))
    write_images(root / "Flickr")


def write_lists(root: Path):
    hot = labels()[:, :21]
    for name, rows in (("train", range(4)), ("test", range(4, 8)), ("database", range(2, 20))):
        lines = [f"images/{Path(PATHS[n]).name} {' '.join(map(str, hot[n]))}" for n in rows]
        (root / f"{name}.txt").write_text("\n".join(lines))
    write_images(root / "Flickr")


def write_images(root: Path):
    for number, path in enumerate(PATHS):
        if path == LOST:
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        Image.new("RGB", (8 + number, 9), (10 * number % 250, 20 * number % 250, 0)).save(
            content, "JPEG"
        )
        (root / path).write_bytes(b"<html>" if path == BROKEN else content.getvalue())


class Owners(tfds.testing.DatasetBuilderTestCase):
    """Of the 30, 21 and 22 have rare concepts alone, one is lost and one is no image."""

    DATASET_CLASS = builders.NusWide
    BUILDER_CONFIG_NAMES_TO_TEST = ["owners"]  # noqa: RUF012
    SPLITS = {"images": 26}  # noqa: RUF012
    SKIP_TF1_GRAPH_MODE = True
    write = staticmethod(write_owners)

    @classmethod
    def setUpClass(cls):
        cls.dummy_data = Path(tempfile.mkdtemp(prefix="nus_wide-"))
        cls.write(cls.dummy_data)
        super().setUpClass()


class Lists(Owners):
    """One of the train list is lost, one of the test list is no image."""

    BUILDER_CONFIG_NAMES_TO_TEST = ["lists"]  # noqa: RUF012
    SPLITS = {"train": 3, "test": 3, "database": 12}  # noqa: RUF012
    write = staticmethod(write_lists)


@pytest.fixture
def prepare(command, tmp_path):
    def run(write, *flags):
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        write(source)
        where = (f"--source={source}", f"--data_dir={tmp_path / 'tfds'}")
        return command(prepare_nus_wide, *where, *flags)

    return run


def test_the_command_says_what_is_there_and_what_is_not(prepare, tmp_path):
    ended = prepare(write_owners)
    assert ended.status == 0, ended.errors
    lines = dict(line.split(":", 1) for line in ended.output.splitlines() if ":" in line)
    # c00 has 21 + image 23; c01 to c06 have two images each, the others one; c21, c22 come last.
    assert lines["concepts"].split() == [f"{name}," for name in CONCEPTS[:20]] + ["c20"]
    assert lines["listed"] == "     30 images" and lines["images"] == "     images 26"
    assert lines["lost"] == f"       1 ({LOST})" and lines["unreadable"] == f" 1 ({BROKEN})"
    assert "26 is not 193,734 or 195,834, as papers count" in ended.output
    builder = builders.NusWide(config="owners", data_dir=tmp_path / "tfds")
    found = {item["id"].decode(): item for item in tfds.as_numpy(builder.as_dataset("images"))}
    assert set(found) == {p for n, p in enumerate(PATHS) if n not in (21, 22)} - {LOST, BROKEN}
    item = found[PATHS[2]]
    assert item["image"].shape == (9, 10, 3)
    assert abs(item["image"].mean((0, 1)) - [20, 40, 0]).max() < 4  # JPEG
    assert {name.decode() for name in item["concepts"]} == {"c00", "c02"}
    assert builder.info.metadata["lost"] == [LOST]
    assert list(builder.info.metadata["unreadable"]) == [BROKEN]


def test_lists_keep_their_split(prepare, tmp_path):
    assert "train 3, test 3, database 12" in prepare(write_lists, "--config=lists").output
    builder = builders.NusWide(config="lists", data_dir=tmp_path / "tfds")
    found = {item["id"].decode(): item for item in tfds.as_numpy(builder.as_dataset("test"))}
    assert set(found) == {f"images/{Path(PATHS[n]).name}" for n in (4, 6, 7)}
    item = found[f"images/{Path(PATHS[4]).name}"]
    assert {name.decode() for name in item["concepts"]} == {"concept01", "concept05"}


def test_the_owners_images_are_a_data_set(prepare, tmp_path):
    prepare(write_owners)
    for storage in (None, Storage("disk", tmp_path / "cache")):
        where = {"data_dir": tmp_path / "tfds", "image_size": 8, "storage": storage}
        found = sources.load("nus_wide", **where)
        assert list(found.ids) == sorted(
            set(PATHS) - {PATHS[21], PATHS[22], LOST, BROKEN}
        ) and found.class_names == (*CONCEPTS[:20], "c20")
        numbers = [PATHS.index(path) for path in found.ids]
        np.testing.assert_array_equal(found.labels, labels()[numbers][:, :21])
        red = found.images.mean((1, 2))[:, 0]
        assert np.abs(red - [10 * n % 250 for n in numbers]).max() < 6  # JPEG
        assert isinstance(found.images, np.memmap) == (storage is not None)
        assert found.notes == (
            "26 images: not 193,734 or 195,834, as papers count",
            "1 images that are listed are lost",
            "1 images that are listed are unreadable",
        )


def test_the_split_of_lists(prepare, tmp_path):
    prepare(write_lists, "--config=lists")
    experiment = Experiment(dataset="nus_wide", data_dir=str(tmp_path / "tfds"), protocol="lists")
    found = sources.load(**experiment.loading)
    parts = splits.from_lists(found, seed=0, validation_fraction=0.4)
    names = [int(name[7:11]) for name in found.ids]  # the numbers of images
    of = {part: {names[row] for row in getattr(parts, part)} for part in splits.PARTS}
    assert of["query"] == {4, 6, 7} and of["unlabelled"] == set(range(8, 20))
    assert of["labelled"] | of["validation"] == {0, 1, 2} and len(of["validation"]) == 1
    assert of["database"] == {0, 1, 2, *range(8, 20)}
    assert parts.protocol == "lists(validation=0.4)"
    assert (
        parts.fingerprint != splits.from_lists(found, seed=1, validation_fraction=0.4).fingerprint
    )
    copies = dataclasses.replace(found, first=np.arange(len(found.ids)))
    with pytest.raises(UserError, match="`duplicates`: group, not with `protocol`=lists"):
        splits.from_lists(copies, seed=0)
    images = found.images.copy()
    images[-3:] = images[0]
    dropped = sources._with_copies(dataclasses.replace(found, images=images), "drop")
    by_id = dict(zip(found.ids, found.of_list, strict=True))
    assert len(dropped.ids) == len(found.ids) - 3
    assert [by_id[name] for name in dropped.ids] == list(dropped.of_list)
    digits = sources.load("digits")
    with pytest.raises(
        UserError, match="`protocol`=lists: digits has no lists; allowed: `dataset`"
    ):
        splits.from_lists(digits, seed=0)


def test_what_is_not_prepared_is_told_how_to_be():
    with pytest.raises(UserError, match="no prepared nus_wide/owners there; prepare it once with "):
        sources.load("nus_wide")
    with pytest.raises(UserError, match="nus_wide/lists there; .* --config=lists and give"):
        sources.load("nus_wide", data_dir="no/such", lists=True)


def spoilt(name, content):
    def write(root):
        write_owners(root)
        (root / name).write_text(content)

    return write


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (lambda root: None, "--source: "),
        (lambda root: (root / "a.jpg").touch(), "--source: no ImageList/Imagelist.txt in "),
        (spoilt("Groundtruth/AllLabels/Labels_c00.txt", "1\n0"), "2 values in Labels_c00.txt; all"),
        (spoilt("Groundtruth/AllLabels/Labels_c00.txt", "2\n" * 30), "30 values in Labels_c00.txt"),
    ],
)
def test_other_files_are_one_line(prepare, write, line):
    assert line in prepare(write).line("tfhash.prepare_nus_wide")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a.jpg 1 0\nb.jpg 1", "line 2 of train.txt: 'b.jpg 1'; allowed: `path l1"),
        ("a.jpg 1 2", "line 1 of train.txt: 'a.jpg 1 2'"),
        ("", "no line in train.txt"),
        ("a.jpg 1 0\na.jpg 1 0", "1 lines of train.txt that repeat an image"),
        ("t.jpg 1 0", "1 images both in train.txt and test.txt"),
        ("a.jpg 1 0 1", "lists of [2, 3] labels an image"),
    ],
)
def test_other_lists_are_one_line(prepare, content, line):
    def write(root):
        (root / "test.txt").write_text("t.jpg 0 1\n")
        (root / "train.txt").write_text(content)

    assert line in prepare(write, "--config=lists").line("tfhash.prepare_nus_wide")
