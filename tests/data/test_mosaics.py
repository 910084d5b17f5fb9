"""cifar10_mosaics: label sets, tiles, and the 60,000 that everybody builds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tfhash.data import mosaics, sources
from tfhash.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data"
TFDS_DIR = SHARED / "tfds"
NUS_WIDE = SHARED / "nus_wide_21_lists"
A_CLASS = 8  # images of a class of the small CIFAR-10


@pytest.fixture(scope="module")
def label_sets() -> np.ndarray:
    return mosaics.label_sets(mosaics.COUNT)


def test_label_sets_are_matched(label_sets):
    """Sizes within .0001. Concepts within .019 of their shares, all alike too low.

    Of five labels and more one mosaic has four: so all shares are the listed ones times the same
    factor, the mean of min(size, 4) over the mean size, 2.232 / 2.3075.
    """
    assert label_sets.shape == (60_000, 10) and label_sets.dtype == np.uint8
    sizes = np.bincount(label_sets.sum(axis=1), minlength=5) / 60_000
    assert sizes[0] == 0 and len(sizes) == 5
    np.testing.assert_allclose(sizes[1:], [3686 / 10995, 3145 / 10995, 2101 / 10995, 2063 / 10995],
                               rtol=0, atol=1e-4)  # fmt: skip
    listed = np.array(mosaics.LISTED_CONCEPTS) / 10995
    shares = label_sets.mean(axis=0)
    assert 0.018 < np.abs(shares - listed).max() < 0.019
    factor = (3686 + 2 * 3145 + 3 * 2101 + 4 * 2063) / sum(mosaics.LISTED_CONCEPTS)
    np.testing.assert_allclose(shares, listed * factor, rtol=0, atol=1e-4)


def test_sets_of_one_size_differ_by_the_odds_of_their_classes(label_sets):
    """The form of the law: P({a}) P({b, c}) / (P({b}) P({a, c})) is 1 for all a, b, c.

    {a}, {b} against {a, c}, {b, c}, for the five most frequent classes; a set has at least some
    hundred mosaics here, and is off by half a one.
    """
    sets, counts = np.unique(label_sets, axis=0, return_counts=True)
    times = {tuple(np.flatnonzero(row)): n for row, n in zip(sets, counts, strict=True)}
    for a, b, c in [(0, 1, 2), (0, 1, 4), (1, 2, 3), (0, 4, 2)]:
        pair_a, pair_b = (times[tuple(sorted((one, c)))] for one in (a, b))
        assert times[(a,)] * pair_b / (times[(b,)] * pair_a) == pytest.approx(1, abs=0.01)
    assert len(times) == 10 + 45 + 120 + 210


def test_label_sets_stand_in_no_order(label_sets):
    """Halves have the same shares, within four standard errors, and neighbours are independent."""
    labels = label_sets.astype(float)
    error = np.sqrt(labels.var(axis=0) / 15_000)
    assert (np.abs(labels[:30_000].mean(axis=0) - labels[30_000:].mean(axis=0)) < 4 * error).all()
    sizes = labels.sum(axis=1)
    assert abs(np.corrcoef(sizes[:-1], sizes[1:])[0, 1]) < 4 / np.sqrt(60_000)


def test_the_label_sets_are_those_of_everybody(label_sets):
    """No image has a say in them."""
    assert hashlib.sha256(label_sets).hexdigest()[:16] == "73b1e39a2220241e"


def test_tiles_have_the_classes_of_the_set_anywhere(label_sets):
    """Of a set {a, b} the tiles are a b, and two of either: a stands on 2 of 4 on average; a class
    of its own stands nowhere more often than elsewhere."""
    labels = label_sets[:20_000]
    classes = mosaics.tile_classes(labels)
    assert classes.shape == (20_000, 4)
    found = (classes[:, :, None] == np.arange(10)).any(axis=1)
    np.testing.assert_array_equal(found, labels == 1)
    pairs = labels.sum(axis=1) == 2
    first = classes[pairs] == labels[pairs].argmax(axis=1)[:, None]
    np.testing.assert_allclose(first.mean(axis=0), [0.5] * 4, rtol=0, atol=0.03)
    times = np.bincount(first.sum(axis=1), minlength=5) / len(first)
    np.testing.assert_allclose(times, [0, 1 / 4, 1 / 2, 1 / 4, 0], rtol=0, atol=0.03)
    np.testing.assert_array_equal(mosaics.tile_classes(labels), classes)


def test_a_mosaic_is_put_together_row_by_row():
    """Tile t is of the colour 50 t, but for a mark in its upper right corner."""
    tiles = np.repeat(np.arange(4, dtype=np.uint8) * 50, 2 * 2 * 3).reshape(1, 4, 2, 2, 3)
    tiles[:, :, 0, 1] += 1
    expected = [[0, 1, 50, 51], [0, 0, 50, 50], [100, 101, 150, 151], [100, 100, 150, 150]]
    np.testing.assert_array_equal(mosaics.assembled(tiles)[0, :, :, 2], expected)


@pytest.fixture
def small(monkeypatch) -> sources.ImageSet:
    """A CIFAR-10 of eight images a class, of one colour each (class, number, 7); 400 mosaics."""
    numbers = np.arange(10 * A_CLASS)
    colours = np.stack([numbers % 10, numbers // 10, np.full_like(numbers, 7)], axis=1)
    images = np.broadcast_to(np.uint8(colours)[:, None, None], (len(numbers), 32, 32, 3))
    labels = np.eye(10, dtype=np.uint8)[numbers % 10]
    names, ids = tuple("abcdefghij"), tuple(map(str, numbers))
    cifar10 = sources.ImageSet("cifar10", np.array(images), labels, names, ids)
    monkeypatch.setattr(sources, "_cifar10", lambda **_: cifar10)
    monkeypatch.setattr(mosaics, "COUNT", 400)
    return cifar10


def test_labels_are_the_union_of_those_of_the_tiles(small):
    made = sources.load("cifar10_mosaics")
    assert made.images.shape == (400, 64, 64, 3) and made.class_names == small.class_names
    assert made.ids[0] == "cifar10_mosaics/00000" and made.ids[-1] == "cifar10_mosaics/00399"
    assert made.notes == (mosaics.PROXY,) and made.first is None
    used = []
    for image, labels in zip(made.images, made.labels, strict=True):
        tiles = [image[top : top + 32, left : left + 32] for top in (0, 32) for left in (0, 32)]
        colours = [tuple(tile[0, 0]) for tile in tiles]
        for tile, colour in zip(tiles, colours, strict=True):
            assert (tile == colour).all()
        assert {class_ for class_, _, _ in colours} == set(np.flatnonzero(labels))
        assert len(set(colours)) == 4  # none twice in a mosaic
        used += colours
    for class_ in range(10):
        times = [used.count((class_, number, 7)) for number in range(A_CLASS)]
        assert max(times) - min(times) <= 1 and min(times) > 0


def test_the_order_of_cifar10_changes_nothing(small, monkeypatch):
    made = sources.load("cifar10_mosaics")
    order = np.random.default_rng(0).permutation(len(small.ids))
    other = sources.ImageSet("cifar10", small.images[order], small.labels[order],
                             small.class_names, tuple(small.ids[row] for row in order))  # fmt: skip
    monkeypatch.setattr(sources, "_cifar10", lambda **_: other)
    again = sources.load("cifar10_mosaics")
    np.testing.assert_array_equal(again.images, made.images)
    np.testing.assert_array_equal(again.labels, made.labels)


def test_another_size_is_the_same_mosaics_resized(small):
    """The pixels in the corners are far from the other tiles, so they keep their colours."""
    made, tiny = sources.load("cifar10_mosaics"), sources.load("cifar10_mosaics", image_size=8)
    assert tiny.images.shape == (400, 8, 8, 3)
    np.testing.assert_array_equal(tiny.images[:, ::7, ::7], made.images[:, ::63, ::63])
    np.testing.assert_array_equal(tiny.labels, made.labels)


def test_without_cifar10_the_flag_is_named():
    with pytest.raises(UserError, match="`data_dir`=no/such: no prepared cifar10 there"):
        sources.load("cifar10_mosaics", data_dir="no/such")


@pytest.mark.skipif(not NUS_WIDE.is_dir(), reason=f"no {NUS_WIDE}")
def test_the_table_is_counted_in_the_real_lists():
    rows = [
        line.split()[1:] for name in ("train", "test") for line in open(NUS_WIDE / f"{name}.txt")
    ]
    labels = np.array(rows, int)
    counts = labels.sum(axis=0)
    most = sorted(range(21), key=lambda concept: -counts[concept])[:10]
    assert tuple(counts[most]) == mosaics.LISTED_CONCEPTS
    sizes = labels[:, most].sum(axis=1)
    assert mosaics.LISTED == (sizes > 0).sum()
    assert mosaics.LISTED_SIZES == (*((sizes == s).sum() for s in (1, 2, 3)), (sizes >= 4).sum())


@pytest.mark.long  # label sets, tiles and their order have shorter tests
@pytest.mark.skipif(not TFDS_DIR.is_dir(), reason="../shared/data/tfds is not here")
def test_all_60000_are_those_of_everybody(label_sets):
    """Of that copy of CIFAR-10, which went through JPEG; that of TFDS itself has other pixels."""
    made = sources.load("cifar10_mosaics", data_dir=TFDS_DIR)
    assert made.class_names[:2] == ("airplane", "automobile")
    np.testing.assert_array_equal(made.labels, label_sets)
    assert hashlib.sha256(made.images).hexdigest()[:16] == "d2dae6be305d69e0"
