"""DRSCH: groups that hold images of as many classes as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.methods.drsch.sampler import ImagesOfClasses


def test_a_group_has_images_of_as_many_classes_as_asked():
    """Eleven places and four of six classes: 3, 3, 3 and 2 images, none of them twice."""
    labels = np.eye(6, dtype=np.uint8)[np.arange(60) % 6]
    sampler, rng = ImagesOfClasses(labels, 11, 4), np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        images = sampler.sample(rng)["images"]
        assert images.shape == (11,) and images.dtype == np.int64 and len(set(images)) == 11
        classes, counts = np.unique(images % 6, return_counts=True)
        assert sorted(counts) == [2, 3, 3, 3]
        seen |= set(classes)
    assert seen == set(range(6))


@pytest.mark.parametrize(("size", "classes", "expected"), [(3, 10, 2), (8, 10, 4), (9, 2, 2)])
def test_classes_are_fewer_where_the_group_is_small(size, classes, expected):
    """Two images of each at least, but two classes also of three images; two asked for are two."""
    labels = np.eye(6, dtype=np.uint8)[np.arange(60) % 6]
    images = ImagesOfClasses(labels, size, classes).sample(np.random.default_rng(1))["images"]
    assert len(np.unique(images % 6)) == expected and len(images) == size


@pytest.mark.parametrize("size", [3, 4, 7])
def test_every_group_has_a_triplet_although_most_classes_have_one_image(size):
    """Class 0 has two images, the nine others one each."""
    labels = np.eye(10, dtype=np.uint8)[[0, 0, *range(1, 10)]]
    sampler, rng = ImagesOfClasses(labels, size, 3), np.random.default_rng(2)
    for _ in range(20):
        of_images = labels[sampler.sample(rng)["images"]]
        shares = of_images @ of_images.T > 0
        with_another = shares.sum(1) > 1  # not only with itself
        assert (with_another & ~shares.all(1)).any()


def test_the_first_class_of_a_group_has_two_different_images():
    """So that a positive is another image: class 0 is the only one with two."""
    labels = np.eye(10, dtype=np.uint8)[[0, 0, *range(1, 10)]]
    sampler, rng = ImagesOfClasses(labels, 4, 2), np.random.default_rng(3)
    assert all({0, 1} <= set(sampler.sample(rng)["images"]) for _ in range(20))


def test_images_of_several_labels_come_for_any_of_them():
    labels = np.uint8([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    images = ImagesOfClasses(labels, 6, 3).sample(np.random.default_rng(4))["images"]
    assert labels[images][:, :3].any(axis=0).all()  # class 3 has no image, and is not drawn
