"""Strong views: each change by hand, draws of each image's own, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.data.augmentation import StrongView
from tfhash.data.pipeline import FlipAndShift

STILL = FlipAndShift(flip=False, shift=0)
IMAGES = np.random.default_rng(0).integers(60, 140, (40, 1, 16, 16, 3), np.uint8)


def view(images=IMAGES, seed=1, **options):
    return StrongView(STILL, **options)(images, np.random.default_rng(seed))


def test_without_strength_and_hole_it_is_the_weak_view():
    np.testing.assert_array_equal(view(strength=0.0, hole=0.0), IMAGES[:, 0])
    weak = FlipAndShift(flip=True, shift=3)
    moved = StrongView(weak, 0.0, 0.0)(IMAGES, np.random.default_rng(1))
    np.testing.assert_array_equal(moved, weak(IMAGES, np.random.default_rng(1)))
    assert (moved != IMAGES[:, 0]).any()


def test_the_hole_is_a_grey_square_inside_of_each_image():
    """Of .25 of 16 px: 4 by 4, elsewhere in each image, and the rest is as it was."""
    found = view(strength=0.0, hole=0.25)
    corners = set()
    for image, before in zip(found, IMAGES[:, 0], strict=True):
        changed = (image != before).any(axis=-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert rows[-1] - rows[0] < 4 and columns[-1] - columns[0] < 4
        assert set(image[changed].ravel()) == {128}
        corners.add((rows[0], columns[0]))
    assert len(corners) > 20
    for rows in zip(*corners, strict=True):
        assert min(rows) <= 1 and max(rows) >= 11


def by_hand(image, brightness, contrast, colour):
    """One image pixel by pixel."""
    luma = np.array([0.299, 0.587, 0.114])
    lit = image.astype(np.float64) * brightness
    mean = np.mean([pixel @ luma for row in lit for pixel in row])
    found = np.empty_like(lit)
    for y, row in enumerate(lit):
        for x, pixel in enumerate(row):
            stretched = mean + (pixel - mean) * contrast
            grey = stretched @ luma
            found[y, x] = grey + (stretched - grey) * colour
    return np.clip(np.rint(found), 0, 255)


def test_brightness_contrast_and_colour_by_hand():
    """In this order, by the draws that follow those of the weak view."""
    found = view(strength=0.5, hole=0.0)
    rng = np.random.default_rng(1)
    STILL(IMAGES, rng)
    factors = rng.uniform(0.5, 1.5, (3, len(IMAGES)))
    for number in (0, 7, 39):
        expected = by_hand(IMAGES[number, 0], *factors[:, number])
        assert np.abs(found[number].astype(int) - expected).max() <= 1  # of rounding
    assert len({tuple(factor.round(2)) for factor in factors.T}) > 30


def test_values_stay_in_range_and_the_same_seed_gives_the_same_view():
    bright = np.full((8, 1, 16, 16, 3), 250, np.uint8)
    assert view(bright, strength=0.9).dtype == np.uint8 and view(bright, strength=0.9).max() == 255
    np.testing.assert_array_equal(view(), view())
    assert (view() != view(seed=2)).any()


@pytest.mark.parametrize("shape", [(0, 1, 16, 16, 3), (2, 1, 5, 9, 3)])
def test_any_number_and_shape_of_images(shape):
    assert view(np.zeros(shape, np.uint8)).shape == (shape[0], *shape[2:])
