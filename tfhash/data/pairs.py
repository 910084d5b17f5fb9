"""Pairs of images, for methods that learn from which of two share a label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfhash.errors import UserError


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
        counts = self.labels.astype(np.int32)
        shared = (counts @ counts.T > 0)[np.triu_indices(len(counts), 1)]
        if not shared.any() or shared.all():
            raise UserError(
                f"`labelled_per_class`: the {len(counts)} labelled images make pairs of one kind "
                "alone; two that share a label and two that share none are needed"
            )

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        count = len(self.labels)
        members = rng.choice(count, self.group_size, replace=count < self.group_size)
        pairs = np.stack(np.triu_indices(self.group_size, 1), axis=1)
        return {"images": members.astype(np.int64), "pairs": pairs.astype(np.int32)}
