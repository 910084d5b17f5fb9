"""Descriptors as networks: the values of what they wrap, and one structure for one setting."""

import numpy as np
import pytest

from tfhash.features import descriptors, gist


def images(size, count=3):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.float32)


def test_small_images_keep_their_pixels():
    found = descriptors.pixels(8)(images(8)).numpy()
    np.testing.assert_allclose(found, images(8).reshape(3, -1) / 255, rtol=1e-6)


def test_larger_images_are_averaged():
    """64 px: each of the 32 x 32 values is the mean of 2 x 2."""
    found = descriptors.pixels(64)(images(64)).numpy().reshape(3, 32, 32, 3)
    expected = images(64).reshape(3, 32, 2, 32, 2, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [33, 48, 100])
def test_any_size_gives_the_same_number_of_pixels(size):
    constant = np.full((1, size, size, 3), 51.0, np.float32)
    found = descriptors.pixels(size)(constant).numpy()
    np.testing.assert_allclose(found, np.full((1, 3072), 0.2), rtol=1e-5)


@pytest.mark.parametrize(
    ("side", "given", "size"), [(16, None, 32), (32, None, 32), (34, None, 36), (64, 32, 32)]
)
def test_gist_looks_at_images_at_their_own_size(side, given, size):
    found = descriptors.gist_of(side, given)(images(side)).numpy()
    np.testing.assert_allclose(found, gist.gist(images(side), size), rtol=1e-4, atol=1e-4)


def test_its_structure_says_the_size():
    """By which cached features are told apart."""
    assert '"size": 36' in descriptors.gist_of(34).to_json()
    assert descriptors.gist_of(64).to_json() != descriptors.gist_of(64, 32).to_json()
