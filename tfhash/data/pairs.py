"""Pairs of images, for methods that learn from which of two share a label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfhash.errors import UserError


def count_similar(labels: np.ndarray) -> int:
    """How many of the n² pairs share a label: multi-hot [n, C]; an image makes a pair with itself.

    No n² numbers are held: images of the same labels count at once.
    """
    sets, counts = np.unique(labels > 0, axis=0, return_counts=True)
    of_sets = sets.astype(np.float32)
    return sum(
        int(count * counts[of_sets @ one > 0].sum())
        for one, count in zip(of_sets, counts, strict=True)
    )


def check_pairs(labels: np.ndarray) -> None:
    """UserError where pairs of images with these labels, multi-hot [n, C], are of one kind alone.

    A pair of an image with itself does not count.
    """
    with_itself = int(np.any(labels, axis=1).sum())
    if count_similar(labels) in (with_itself, len(labels) ** 2):
        raise UserError(
            f"`labelled_per_class`: the {len(labels)} labelled images make pairs of one kind alone;"
            " two that share a label and two that share none are needed"
        )


@dataclass(frozen=True)
class InBatchPairs:
    """All pairs within a group of images that are drawn at random.

    labels: multi-hot [n, C] of the labelled images, of which at least two share a label and two do
    not; group_size: m, so there are p = m (m - 1) / 2 pairs. A group may hold pairs of one kind
    alone.
    """

    labels: np.ndarray
    group_size: int

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise UserError(f"`batch_size`: {self.group_size} images a group; at least 2 allowed")
        check_pairs(self.labels)

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        count = len(self.labels)
        members = rng.choice(count, self.group_size, replace=count < self.group_size)
        pairs = np.stack(np.triu_indices(self.group_size, 1), axis=1)
        return {"images": members.astype(np.int64), "pairs": pairs.astype(np.int32)}
