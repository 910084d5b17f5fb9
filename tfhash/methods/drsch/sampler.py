"""Groups of several images of a few classes, which make many triplets."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tfhash.data.triplets import check_group_size, relevance
from tfhash.errors import UserError


@dataclass(frozen=True)
class ImagesOfClasses:
    """Groups of images of a few classes, several of each: they make many triplets.

    labels: multi-hot [n, C] of the labelled images; group_size: m; classes: how many of them a
    group is drawn of, fewer where there are fewer or the group has no two images for each. One is
    a class of two images at least, so with one label an image there is a triplet in every group.
    Images of a class that has too few stand twice, each as an image of its own; so may an image
    with several labels, drawn for two of them.
    """

    labels: np.ndarray
    group_size: int
    classes: int
    _known: np.ndarray = field(init=False, repr=False, compare=False)
    _pairable: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_group_size(self.group_size)
        positives = relevance(self.labels).sum(axis=1)
        if not ((positives > 0) & (positives < len(self.labels) - 1)).any():
            raise UserError(
                f"`labelled_per_class`: no triplet can be made of the {len(self.labels)} labelled "
                "images; at least two images that share a label and one that does not are needed"
            )
        counts = self.labels.sum(axis=0, dtype=np.int64)
        object.__setattr__(self, "_known", np.flatnonzero(counts > 0))
        object.__setattr__(self, "_pairable", np.flatnonzero(counts > 1))

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        count = min(self.classes, len(self._known), max(self.group_size // 2, 2))
        first = rng.choice(self._pairable)
        others = rng.choice(self._known[self._known != first], count - 1, replace=False)
        members = []
        for place, label in enumerate([first, *others]):
            images = np.flatnonzero(self.labels[:, label])
            size = self.group_size // count + (place < self.group_size % count)
            members.append(rng.choice(images, size, replace=len(images) < size))
        return {"images": np.concatenate(members).astype(np.int64)}
