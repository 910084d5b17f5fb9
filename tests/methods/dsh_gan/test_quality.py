"""Measures of synthetic images, on generators made by hand: right, wrong, copying, collapsed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfhash.data.pipeline import FlipAndShift, random_view
from tfhash.data.splits import RetrievalSplits
from tfhash.methods.dsh_gan import quality as synthetic_quality
from tfhash.methods.dsh_gan.quality import (
    ClassJudge,
    RealImages,
    diversity,
    every_view,
    nearest_real,
)

# Images 0, 2, 4, ... are of class 0 at about (-1, 1), the others of class 1 at about (1, -1).
CLASSES = np.arange(40) % 2
LABELS = np.eye(2, dtype=np.uint8)[CLASSES]
CENTRES = np.array([[-1, 1], [1, -1]], np.float32)
NOISE = np.random.default_rng(0).normal(size=(40, 2)) / 10
POINTS = (CENTRES[CLASSES] + NOISE).astype(np.float32)


def make_splits(query, labelled, validation=(), unlabelled=()):
    parts = {"query": query, "labelled": labelled, "validation": validation}
    parts |= {"unlabelled": unlabelled, "database": np.concatenate([labelled, unlabelled])}
    arrays = {name: np.asarray(part, np.int64) for name, part in parts.items()}
    return RetrievalSplits(protocol="by hand", seed=0, fingerprint="0" * 16, **arrays)


def real_images(points=POINTS, labels=LABELS, splits=None, augment=random_view, **more):
    if splits is None:
        splits = make_splits(range(0, 4), range(12, 20), range(8, 12), range(20, 40))
    flat = {"describe": lambda items: np.asarray(items, np.float32).reshape(len(items), -1)}
    return RealImages(points[:, None], labels, splits, augment, seed=0, **(flat | more))


def on_a_line(*values):
    return np.array(values, np.float32)[:, None]


def of_class(labels):
    """A G that does as it is told."""
    return CENTRES[labels.argmax(axis=1)]


@pytest.mark.parametrize(
    ("synthesise", "share"),
    [
        (of_class, 1.0),
        (lambda labels: of_class(1 - labels), 0.0),  # always the other class
        (lambda labels: np.tile(CENTRES[:1], (len(labels), 1)), 0.5),  # always class 0
        (lambda labels: of_class(np.where(np.arange(500)[:, None] % 5, labels, 1 - labels)), 0.8),
    ],
)
def test_the_judge_sees_which_class_was_made(synthesise, share):
    judge = ClassJudge(real_images())
    assert judge.on_synthetic(synthesise) == {"gauge/class_synthetic": share}


def test_the_judge_asks_for_each_class_equally_often_and_for_no_unknown_one():
    """Of three classes the labelled images know the first and the last."""
    asked = []
    labels = np.insert(LABELS, 1, 0, axis=1)

    def synthesise(wanted):
        asked.append(wanted)
        return CENTRES[wanted.argmax(axis=1) // 2]

    judge = ClassJudge(real_images(labels=labels))
    assert judge.on_synthetic(synthesise) == {"gauge/class_synthetic": 1.0}
    np.testing.assert_array_equal(asked[0].sum(axis=0), [250, 0, 250])


def test_the_accuracy_on_real_images_is_that_on_queries():
    """Query 0 looks like the other class; queries 1 to 3 do not: 3 of 4."""
    points = POINTS.copy()
    points[0] *= -1
    assert ClassJudge(real_images(points)).on_real() == {"gauge/class_real": 0.75}


def test_queries_with_several_labels_do_not_count():
    labels = LABELS.copy()
    labels[:2] = 1
    points = POINTS.copy()
    points[[0, 2]] *= -1  # of 2 and 3, which have one label, 2 looks like the other class
    assert ClassJudge(real_images(points, labels)).on_real() == {"gauge/class_real": 0.5}


def test_the_accuracy_is_that_on_validation_images_where_no_query_is_of_a_known_class():
    """As with the protocol of unseen classes. Validation image 8 looks like the other class."""
    labels = np.pad(LABELS, ((0, 0), (0, 1)))
    labels[:4] = [0, 0, 1]
    points = POINTS.copy()
    points[8] *= -1
    assert ClassJudge(real_images(points, labels)).on_real() == {"gauge/class_real": 0.75}


def test_no_accuracy_without_real_images_to_take_it_from():
    assert ClassJudge(real_images(splits=make_splits((), range(8)))).on_real() == {}


@pytest.mark.parametrize("of_all", [[1, 1], [1, 0]])
def test_nothing_is_judged_with_several_labels_an_image_or_one_for_all(of_all):
    judge = ClassJudge(real_images(labels=np.tile(np.array(of_all, np.uint8), (40, 1))))
    assert judge.on_real() == {} and judge.on_synthetic(of_class) == {}


def test_the_judge_learns_from_augmented_images():
    """The classes lie at 0 and 4, and augmentation moves them to 10 and 14, where G's are."""
    points = on_a_line(*np.where(CLASSES, 4.0, 0.0))

    def augment(items, rng):
        return items[:, 0] + 10

    judge = ClassJudge(real_images(points, augment=augment))
    assert judge.on_real() == {"gauge/class_real": 1.0}
    seen = judge.on_synthetic(lambda labels: 10 + 4.0 * labels[:, 1:])
    assert seen == {"gauge/class_synthetic": 1.0}


# Real images at 0, 10, ..., 90, query images between them: the nearest other one is 10 away.
LINE = on_a_line(*range(0, 100, 10), *range(5, 95, 10))
LINE_SPLITS = make_splits(range(10, 19), range(0, 4), range(4, 6), range(6, 10))
LINE_LABELS = np.eye(2, dtype=np.uint8)[np.arange(19) % 2]


def line(**more):
    return real_images(LINE, LINE_LABELS, LINE_SPLITS, **more)


def test_the_nearest_real_images_and_their_distances_by_hand():
    """46 is 4 from 50 and 6 from 40, over 10; the query image at 45 is none that G learned from."""
    positions, distances = nearest_real(line(), on_a_line(46, 0, 94), count=3)
    np.testing.assert_array_equal(positions, [[5, 4, 6], [0, 1, 2], [9, 8, 7]])
    expected = [[0.4, 0.6, 1.4], [0, 1, 2], [0.4, 1.4, 2.4]]
    np.testing.assert_allclose(distances, expected, atol=1e-6)


def test_copies_are_at_0_and_unseen_images_at_about_1():
    """2,000 points in a square, half of them learned from. G answers some of these, or others."""
    points = np.random.default_rng(1).random((2000, 2), np.float32)
    labels = np.eye(2, dtype=np.uint8)[np.arange(2000) % 2]
    real = real_images(points, labels, make_splits((), range(20), (), range(20, 1000)))
    copied = np.median(nearest_real(real, points[500:700])[1])
    new = np.median(nearest_real(real, points[1000:])[1])
    assert copied < 1e-3 and new == pytest.approx(1, abs=0.15)


def test_in_parts_the_nearest_are_those_of_brute_force(monkeypatch):
    points = np.random.default_rng(2).normal(size=(60, 3)).astype(np.float32)
    labels = np.eye(2, dtype=np.uint8)[np.arange(60) % 2]
    synthetic = np.random.default_rng(3).normal(size=(7, 3)).astype(np.float32)
    monkeypatch.setattr(synthetic_quality, "CHUNK", 8)
    real = real_images(points, labels, make_splits(range(0, 5), range(5, 9), (), range(9, 60)))
    positions, distances = nearest_real(real, synthetic, count=4)
    all_distances = np.linalg.norm(synthetic[:, None] - points[None], axis=2)
    all_distances[:, :5] = np.inf
    np.testing.assert_array_equal(positions, np.argsort(all_distances, axis=1)[:, :4])
    between = np.linalg.norm(points[5:, None] - points[None, 5:], axis=2)
    usual = np.median(np.sort(between, axis=1)[:, 1])  # the first is the image itself
    expected = np.sort(all_distances, axis=1)[:, :4] / usual
    np.testing.assert_allclose(distances, expected, rtol=1e-5)


def test_a_shifted_and_mirrored_copy_is_a_copy_where_g_learned_from_such():
    images = np.random.default_rng(4).integers(0, 256, (10, 6, 6, 3)).astype(np.uint8)
    labels = np.eye(2, dtype=np.uint8)[np.arange(10) % 2]
    copy = np.pad(images[3], ((0, 1), (1, 0), (0, 0)), mode="edge")[1:, :-1][None, :, ::-1]
    splits = make_splits((), range(10))
    augmented = real_images(images, labels, splits, FlipAndShift(True, 1))
    plain = real_images(images, labels, splits, FlipAndShift(False, 0))
    assert nearest_real(augmented, copy)[1] < 1e-3
    assert nearest_real(plain, copy)[1] > 0.5
    assert nearest_real(augmented, copy)[0] == [[3]]


def test_of_too_many_views_shifts_are_passed_over_first_and_images_later():
    """4 images of 5 x 5 shifts and 2 flips: 200 views. 8 are each image and its mirror image, so
    an unshifted copy of any image is found, and a shifted one is not at 0."""
    images = np.random.default_rng(4).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
    labels = np.eye(2, dtype=np.uint8)[np.arange(4) % 2]
    splits = make_splits((), range(2), (), range(2, 4))
    real = real_images(images, labels, splits, FlipAndShift(True, 2))
    shifted = np.pad(images[3], ((0, 1), (0, 0), (0, 0)), mode="edge")[None, 1:]
    for copy, most, at_0 in (
        (images[3:, :, ::-1], 200, True),
        (images[3:, :, ::-1], 8, True),
        (shifted, 200, True),
        (shifted, 8, False),
    ):
        positions, distances = nearest_real(real, copy, most_views=most)
        assert positions == [[3]] and (distances < 1e-3) == at_0


def test_labelled_images_are_searched_before_unlabelled_ones():
    """Of ten images with one view each four are labelled; those are the four of most_views."""
    positions, _ = nearest_real(line(), on_a_line(*range(0, 100)), most_views=4)
    assert set(positions.ravel()) == {0, 1, 2, 3}
    positions, _ = nearest_real(line(), on_a_line(*range(0, 100)), most_views=6)
    assert {0, 1, 2, 3} < set(positions.ravel()) and len(set(positions.ravel())) == 6


def test_as_many_views_as_asked_for_are_looked_at():
    looked_at = []

    def describe(items):
        looked_at.append(items)
        return items

    synthetic = on_a_line(*range(0, 100))
    positions, _ = nearest_real(line(describe=describe), synthetic, most_views=4)
    pool = np.unique(looked_at[-1])
    assert len(pool) == 4 and set(LINE[positions, 0].ravel()) == set(pool)


def test_real_images_that_are_there_twice_give_no_scale():
    points = on_a_line(1, 1, 2, 2, 3, 3)
    labels = np.eye(2, dtype=np.uint8)[np.arange(6) % 2]
    real = real_images(points, labels, make_splits((), range(6)))
    assert not np.isfinite(nearest_real(real, on_a_line(1, 5))[1]).any()


def test_a_generator_of_one_image_a_class_has_no_diversity():
    assert diversity(real_images(), of_class) == 0


def test_a_generator_as_various_as_real_images_has_a_diversity_of_about_1():
    def synthesise(labels):
        noise = np.random.default_rng(5).normal(size=(len(labels), 2)) / 10
        return (of_class(labels) + noise).astype(np.float32)

    labelled = real_images(splits=make_splits((), range(40)))
    assert diversity(labelled, synthesise) == pytest.approx(1, abs=0.2)


def test_diversity_is_the_mean_ratio_of_the_classes():
    """Class 0: images at 0, 0, 3, pairs 0, 3, 3 apart, 2 in the mean. Class 1: at 0, 8.

    Of 50 synthetic images half are at 0 and half at 1: 25 * 25 of 1,225 pairs are 1 apart.
    """
    points = on_a_line(0, 0, 3, 0, 8)
    labels = np.eye(2, dtype=np.uint8)[[0, 0, 0, 1, 1]]
    real = real_images(points, labels, make_splits((), range(5)))
    spread = 25 * 25 / 1225
    measured = diversity(real, lambda wanted: on_a_line(*np.arange(len(wanted)) % 2))
    assert measured == pytest.approx((spread / 2 + spread / 8) / 2)


@pytest.mark.filterwarnings("error")
def test_label_sets_are_compared_each_with_itself():
    """{0} lies at 0 and 1, {0, 1} at 5 and 7; the single {1} and what has no label are left out."""
    points = on_a_line(0, 1, 5, 7, 100, 200, 300)
    labels = np.array([[1, 0], [1, 0], [1, 1], [1, 1], [0, 1], [0, 0], [0, 0]], np.uint8)
    real = real_images(points, labels, make_splits((), range(7)))
    asked = []

    def synthesise(wanted):
        asked.append(tuple(wanted[0]))
        return on_a_line(*np.arange(len(wanted)) % 2)

    assert diversity(real, synthesise) == pytest.approx(25 * 25 / 1225 * (1 + 1 / 2) / 2)
    assert sorted(asked) == [(1, 0), (1, 1)]


@pytest.mark.parametrize("labelled", [[0, 1], [0, 2]])
def test_no_diversity_without_two_different_images_of_the_same_labels(labelled):
    """Images 0 and 1 differ in their labels; 0 and 2 have the same ones, and are the same here."""
    points = POINTS.copy()
    points[2] = points[0]
    real = real_images(points, splits=make_splits((), labelled))
    assert diversity(real, of_class) is None


def test_diversity_compares_with_augmented_images():
    """Augmentation doubles the distances between real images, and so halves the ratio."""
    real = real_images()
    wider = dataclasses.replace(real, augment=lambda items, rng: 2 * items[:, 0])

    def synthesise(labels):
        return on_a_line(*np.arange(len(labels))) * [1, 1]

    assert diversity(wider, synthesise) == pytest.approx(diversity(real, synthesise) / 2)


@pytest.mark.parametrize("fill", ["repeat", "reflect"])
@pytest.mark.parametrize(("flip", "shift", "count"), [(True, 1, 18), (False, 2, 25), (True, 0, 2)])
def test_every_view_holds_all_that_augmentation_draws(flip, shift, count, fill):
    images = np.random.default_rng(6).integers(0, 256, (2, 1, 5, 5, 3)).astype(np.uint8)
    augment = FlipAndShift(flip, shift, fill)
    views = every_view(images, augment)
    assert views.shape == (2, count, 5, 5, 3)
    rng = np.random.default_rng(7)
    drawn = [augment(images, rng) for _ in range(40 * count)]
    for image, of_image in enumerate(views):
        held = {view.tobytes() for view in of_image}
        assert held == {view[image].tobytes() for view in drawn} and len(held) == count


def test_stored_views_are_all_views():
    stored = np.zeros((3, 2, 4), np.float32)
    assert every_view(stored, random_view) is stored
