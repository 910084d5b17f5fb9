"""benchmarks/nus_wide.py: its stand-ins are what the files say, and its table tells a run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("dill", reason="the tests of TFDS need dill")

from tfhash.data.nus_wide import listed  # noqa: E402

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
REAL = os.environ.get("TFHASH_NUS_WIDE_LISTS")  # a folder of train.txt and test.txt of a paper


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))  # where a script of it finds the others
        spec = importlib.util.spec_from_file_location("of_nus_wide", BENCHMARKS / "nus_wide.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def label_sets(count: int) -> np.ndarray:
    """One or two of 21 concepts an image, the first ones more often: multi-hot [count, 21]."""
    rng = np.random.default_rng(count)
    labels = np.zeros((count, 21), np.uint8)
    for concepts in (rng.geometric(0.2, count), rng.integers(1, 22, count)):
        labels[np.arange(count), np.minimum(concepts, 21) - 1] = 1
    return labels


@pytest.fixture
def lists(tmp_path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    for name, count in (("train", 40), ("test", 20)):
        rows = [" ".join(map(str, row)) for row in label_sets(count)]
        lines = (f"images/{n:04d}_{name}.jpg {row}\n" for n, row in enumerate(rows))
        (folder / f"{name}.txt").write_text("".join(lines))
    return folder


def test_the_table_of_a_small_run(lists, tmp_path):
    """By the real commands: the owners' layout is read by the next test."""
    command = [sys.executable, BENCHMARKS / "nus_wide.py", tmp_path / "work", f"--lists={lists}"]
    ended = subprocess.run(
        [*command, "--parts=lists", "--size=16"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [line.split(" | ") for line in ended.stdout.splitlines() if line.startswith("| lists")]
    assert [row[1] for row in rows] == ["prepare", "first", "second"]
    assert all(0.1 < float(row[4]) < 10 for row in rows)  # GB of a process with TensorFlow
    assert "lists: images: train 40, test 20\nlists: lost: 0\nlists: unreadable: 0" in ended.stdout
    assert "lists: lists(validation=0.1), split " in ended.stdout
    counts = label_sets(40).sum(axis=0, dtype=int) + label_sets(20).sum(axis=0, dtype=int)
    assert f"images of each concept: {', '.join(map(str, counts))}\n" in ended.stdout


def test_the_layout_of_the_owners_is_read_as_it_was_made(benchmark, tmp_path):
    labels = label_sets(60)
    part = benchmark.of_owners(tmp_path, labels, 300)
    found = listed.owners(tmp_path)
    assert found.total == round(300 * 269_648 / 195_834) == 413 and len(found.paths) == 300
    assert list(found.paths) == list(part.paths)
    columns = [int(name.removeprefix("concept")) for name in found.concepts]
    np.testing.assert_array_equal(found.labels, part.labels[:, columns])
    given = {tuple(row) for row in labels}
    assert {tuple(row) for row in part.labels} <= given
    shares = part.labels.mean(axis=0) - labels.mean(axis=0)
    assert np.abs(shares).max() < 0.1  # 300 draws: a deviation of .03 at most


def test_images_follow_their_concepts_and_are_made_once(benchmark, tmp_path):
    """The mean of two forms is between the two; noise is of each image alone."""
    labels = np.eye(21, dtype=np.uint8)[[0, 1, 0, 0]]
    labels[2, 1] = 1
    paths = [f"images/{number}.jpg" for number in range(4)]
    part = benchmark.Part("lists", tmp_path, labels, paths, ())
    benchmark.write_images(part, 64)
    first, second, both, again = (
        np.asarray(Image.open(tmp_path / "images" / path)).astype(float) for path in paths
    )
    assert first.shape == (64, 64, 3)
    assert np.abs(both - (first + second) / 2).mean() < 25 < np.abs(first - second).mean()
    assert 0 < np.abs(first - again).mean() < 40
    (tmp_path / "images" / paths[0]).unlink()
    benchmark.write_images(part, 64)
    assert not (tmp_path / "images" / paths[0]).exists()


def test_words_have_a_line_for_each_image(benchmark, tmp_path):
    benchmark.write_words(tmp_path / "BoW_int.dat", 1003)
    found = np.loadtxt(tmp_path / "BoW_int.dat", dtype=int)
    assert found.shape == (1003, 500) and np.array_equal(found[0], found[1000])
    assert not np.array_equal(found[0], found[1])


@pytest.mark.skipif(REAL is None, reason="TFHASH_NUS_WIDE_LISTS names no lists of a paper")
def test_the_real_lists():
    """DeepHash-pytorch's nuswide_21, as the page of NUS-WIDE has it."""
    found = listed.lists(Path(REAL))
    assert {name: len(part.paths) for name, part in found.items()} == {
        "train": 10_500,
        "test": 2_100,
    }
    labels = np.concatenate([part.labels for part in found.values()])
    counts = labels.sum(axis=0, dtype=int)
    assert len(counts) == 21 and (counts.min(), counts.max()) == (902, 6222)
