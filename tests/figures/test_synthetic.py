"""Which images the figures of DSH-GANs show, with a space in which an item is its own picture."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash import figures
from tfhash.data.pipeline import random_view
from tfhash.data.splits import RetrievalSplits
from tfhash.hashers.gan_features import GANFeatures
from tfhash.hashers.gan_spaces import GANSpace
from tfhash.methods.dsh_gan import figures as _dsh_gan_figures
from tfhash.methods.dsh_gan.figures import (
    draw_by_class,
    draw_label_sets,
    draw_nearest,
    label_set_pairs,
)
from tfhash.methods.dsh_gan.quality import RealImages

# Image i has the grey level i. 0 to 9 are queries, 10 to 19 labelled, the others unlabelled.
COUNT = 40
CLASSES = np.arange(COUNT) % 2
LABELS = np.eye(2, dtype=np.uint8)[CLASSES]


class Pictures(GANSpace):
    """A space of images: synthetic ones come as pictures. It has no networks."""

    synthetic_is_visible = True

    def __init__(self):
        super().__init__(settings=None, image_size=2, seed=0)

    def pictures(self, x, *made):
        return [x, *made]

    def _none(self, *_):
        raise NotImplementedError

    inputs = hash_network = encoder = embed = _none
    _to_gan = _to_hash = _synthetic = describe = generator = condition = trunk = _none


def real_images(labels=LABELS):
    parts = {"query": range(10), "labelled": range(10, 20), "validation": []}
    parts |= {"unlabelled": range(20, COUNT), "database": range(10, COUNT)}
    arrays = {name: np.array(part, np.int64) for name, part in parts.items()}
    splits = RetrievalSplits(protocol="by hand", seed=0, fingerprint="0" * 16, **arrays)
    grey = np.broadcast_to(np.arange(COUNT)[:, None, None, None, None], (COUNT, 1, 2, 2, 3))
    return RealImages(grey.astype(np.uint8), labels, splits, random_view, lambda x: x, seed=0)


def synthesise(labels):
    """Grey levels that tell what was asked for: 100 and the labels as a binary number."""
    grey = 100 + labels @ 2 ** np.arange(labels.shape[1])
    return np.broadcast_to(grey[:, None, None, None], (len(labels), 2, 2, 3)).astype(np.uint8)


@pytest.fixture
def drawn(monkeypatch):
    """What the figures were given: the positional arguments but the path, and the options."""
    kept = []

    def keep(*arguments, **options):
        *arrays, _ = arguments
        kept.append((arrays, options))

    for name in ("synthetic_by_class", "synthetic_label_sets"):
        monkeypatch.setattr(figures, name, keep)
    monkeypatch.setattr(
        figures,
        "nearest_real",
        lambda real, distances, path, synthetic: kept.append((real, distances, synthetic)),
    )
    return kept


def test_a_row_of_a_class_has_real_images_of_it_and_what_g_makes_of_its_labels(drawn):
    draw_by_class(Pictures(), synthesise, real_images(), ["even", "odd"], "unused.png")
    [((real, synthetic), options)] = drawn
    assert options["class_names"] == ["even", "odd"]
    levels = real[:, :, 0, 0, 0]
    assert levels.shape == (2, 8) and levels.min() >= 10  # no queries
    assert all(len(set(row)) == 8 for row in levels)
    np.testing.assert_array_equal(levels % 2, [[0] * 8, [1] * 8])
    np.testing.assert_array_equal(synthetic[:, :, 0, 0, 0], [[101] * 8, [102] * 8])


def test_classes_without_labelled_images_are_left_out_and_few_images_make_few_columns(drawn):
    """Classes 0 and 2 have labelled images, and of class 2 one image can be learned from."""
    labels = np.zeros((COUNT, 3), np.uint8)
    labels[10:19, 0] = labels[19, 2] = labels[25, 1] = 1
    draw_by_class(Pictures(), synthesise, real_images(labels), ["a", "b", "c"], "unused.png")
    [((real, synthetic), options)] = drawn
    assert options["class_names"] == ["a", "c"]
    assert real.shape[:2] == (2, 1) and real[1, 0, 0, 0, 0] == 19
    np.testing.assert_array_equal(synthetic[:, :, 0, 0, 0], [[101] * 8, [104] * 8])


def test_a_class_is_made_of_label_sets_that_labelled_images_have(drawn):
    """Class 0 is only ever there with class 1, as 0b11; class 1 also alone."""
    labels = np.zeros((COUNT, 2), np.uint8)
    labels[:, 1] = 1
    labels[:14, 0] = 1
    draw_by_class(Pictures(), synthesise, real_images(labels), ["a", "b"], "unused.png")
    [((_, synthetic), _)] = drawn
    of_a, of_b = synthetic[:, :, 0, 0, 0]
    assert set(of_a) == {103} and set(of_b) == {102, 103}


def test_of_many_classes_some_evenly_spread_are_drawn(drawn, monkeypatch):
    monkeypatch.setattr(_dsh_gan_figures, "MOST_CLASSES", 3)
    labels = np.eye(5, dtype=np.uint8)[np.arange(COUNT) % 5]
    draw_by_class(Pictures(), synthesise, real_images(labels), list("abcde"), "unused.png")
    assert drawn[0][1]["class_names"] == ["a", "c", "e"]


def test_label_set_pairs_by_hand():
    """{0}: 3 images, {1}: 1, {0, 1}: 2, {0, 1, 2}: 1, none: 5.

    {0} and {0, 1} are the most frequent pair, 2; {0, 1} and {0, 1, 2}, as well as {1} and one of
    both, count 1; of those only one can still have {0, 1, 2} at its right, and {0, 1} is taken.
    """
    sets = [[1, 0, 0]] * 3 + [[0, 1, 0]] + [[1, 1, 0]] * 2 + [[1, 1, 1]] + [[0, 0, 0]] * 5
    pairs = label_set_pairs(np.array(sets, np.uint8)).tolist()
    assert pairs[0] == [[1, 0, 0], [1, 1, 0]]
    assert len(pairs) == 2 and pairs[1][1] == [1, 1, 1] and pairs[1][0] != [1, 0, 0]


def test_of_a_label_set_pair_the_rarer_counts():
    """{0} and {0, 1}: 5 and 1 images; {2} and {1, 2}: 2 each, and so they come first."""
    sets = [[1, 0, 0]] * 5 + [[1, 1, 0]] + [[0, 0, 1]] * 2 + [[0, 1, 1]] * 2
    assert label_set_pairs(np.array(sets, np.uint8))[0].tolist() == [[0, 0, 1], [0, 1, 1]]


def test_label_set_pairs_are_no_more_than_fit(monkeypatch):
    monkeypatch.setattr(_dsh_gan_figures, "MOST_PAIRS", 1)
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]], np.uint8)
    assert label_set_pairs(sets).shape == (1, 2, 3)


def test_label_sets_that_share_a_label_are_no_pair():
    sets = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]], np.uint8)
    assert label_set_pairs(sets).tolist() == [[[1, 0, 0], [1, 1, 0]]]


def test_label_sets_are_drawn_with_their_names(drawn):
    labels = np.tile(np.array([[1, 0], [1, 1]], np.uint8), (COUNT // 2, 1))
    assert draw_label_sets(Pictures(), synthesise, real_images(labels), ["sky", "sun"], "unused")
    [((sets, larger), options)] = drawn
    assert options == {"set_names": ["sky"], "superset_names": ["sky + sun"]}
    assert sets.shape == larger.shape == (1, 8, 2, 2, 3)
    assert (sets == 101).all() and (larger == 103).all()


def test_one_label_a_labelled_image_gives_no_figure_of_label_sets(drawn):
    labels = LABELS.copy()
    labels[:10] = labels[20:] = 1  # of queries and unlabelled images: not known to G
    assert not draw_label_sets(Pictures(), synthesise, real_images(labels), ["a", "b"], "unused")
    assert drawn == []


POSITIONS = np.array([[11, 12], [21, 22], [31, 32]])
DISTANCES = np.array([[0.9, 1.0], [0.1, 0.3], [0.5, 2.0]])


def test_the_nearest_real_images_come_by_their_distance(drawn):
    made = np.arange(200, 203, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)
    draw_nearest(Pictures(), real_images(), made, POSITIONS, DISTANCES, "unused.png")
    [(real, distances, synthetic)] = drawn
    np.testing.assert_array_equal(real[:, :, 0, 0, 0], [[21, 31, 11], [22, 32, 12]])
    np.testing.assert_array_equal(distances, [0.1, 0.5, 0.9])
    np.testing.assert_array_equal(synthetic[:, 0, 0, 0], [201, 202, 200])


def test_of_many_the_nearest_and_the_farthest_are_drawn_too(drawn, monkeypatch):
    monkeypatch.setattr(_dsh_gan_figures, "NEAREST_COLUMNS", 2)
    made = np.zeros((3, 2, 2, 3), np.uint8)
    draw_nearest(Pictures(), real_images(), made, POSITIONS, DISTANCES, "unused.png")
    np.testing.assert_array_equal(drawn[0][1], [0.1, 0.9])


def test_synthetic_features_are_told_from_images(drawn, monkeypatch):
    """They are not drawn with their nearest images; in the other figures, a title says so."""
    monkeypatch.setattr(GANFeatures, "pictures", Pictures.pictures)
    space = GANFeatures.__new__(GANFeatures)
    draw_nearest(space, real_images(), POSITIONS, POSITIONS, DISTANCES, "unused.png")
    assert drawn[0][2] is None
    draw_by_class(space, synthesise, real_images(), ["a", "b"], "unused.png")
    assert drawn[1][1]["titles"] == ("real images", "real images nearest to synthetic features")
