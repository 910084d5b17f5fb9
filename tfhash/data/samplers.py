"""What a sampler is: it draws one group of images, and what stands in relation within it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """Draws a group of images for a batch.

    group_size: m, the images of a group. `sample` answers arrays by name, of the same shapes each
    time: "images", int64 [m], positions in the labelled images; perhaps "unlabelled", int64 [u],
    positions in the unlabelled ones, where the method chooses these itself; and whatever its method
    learns from, such as "triplets", int32 [t, 3], or "pairs", int32 [p, 2], positions in the group.
    """

    @property
    def group_size(self) -> int: ...

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class RandomImages:
    """A group of images drawn at random from `count`, none twice where there are enough."""

    count: int
    group_size: int

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        members = rng.choice(self.count, self.group_size, replace=self.count < self.group_size)
        return {"images": members.astype(np.int64)}
