"""Tiny sets of images, and what the tests of splits ask of a split."""

import dataclasses

import numpy as np

from tfhash.data import splits
from tfhash.data.sources import ImageSet


def image_set(labels: list[list[int]]) -> ImageSet:
    """Images of one pixel with these label rows; split protocols never look at pixels."""
    count = len(labels)
    return ImageSet(
        name="tiny",
        images=np.zeros((count, 1, 1, 3), np.uint8),
        labels=np.array(labels, np.uint8),
        class_names=tuple("abcdefghijklmnopqrstu"[: len(labels[0])]),
        ids=tuple(f"image/{index}" for index in range(count)),
    )


def single_label(classes: int, images_per_class: int, without_label: int = 0) -> ImageSet:
    rows = np.eye(classes, dtype=int).tolist() * images_per_class + [[0] * classes] * without_label
    return image_set(rows)


def make(images: ImageSet, **arguments) -> splits.RetrievalSplits:
    defaults = {"seed": 0, "queries_per_class": 1, "labelled_per_class": 4}
    return splits.make(images, **{**defaults, **arguments})


def counts(split: splits.RetrievalSplits) -> dict[str, int]:
    return {part: len(getattr(split, part)) for part in splits.PARTS}


def same(one: splits.RetrievalSplits, other: splits.RetrievalSplits, *parts: str) -> bool:
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


# Twelve images, five of them queries of triplets; 3 is the query of two, and a positive for 0.
TRIPLETS = [[0, 1, 2], [0, 3, 5], [3, 4, 0], [3, 4, 5], [6, 7, 8], [9, 7, 0], [11, 8, 10]]


def with_triplets(rows: list[list[int]] = TRIPLETS) -> ImageSet:
    """Twelve images without labels."""
    unlabelled = {"class_names": (), "labels": np.zeros((12, 0), np.uint8)}
    return dataclasses.replace(image_set([[1]] * 12), **unlabelled, triplets=np.array(rows))
