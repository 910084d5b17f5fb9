"""What the stages of a deep method learn from: the images of a set as networks see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfhash.data.samplers import Sampler
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.data.triplets import (
    InBatchTriplets,
    ListedTriplets,
    SampledTriplets,
    check_group_size,
)
from tfhash.errors import UserError


@dataclass(frozen=True)
class LearningData:
    """What the stages learn from.

    inputs: [n, views, ...] of all images of the set, as the networks see them; labels: multi-hot
    [n, C]; listed: int64 [T, 3], a user's own triplets as positions in inputs, or None;
    gan_inputs: [n, views, ...], what G and D are given of the images, where that is not `inputs`.
    """

    inputs: np.ndarray
    labels: np.ndarray
    splits: RetrievalSplits
    listed: np.ndarray | None = None
    gan_inputs: np.ndarray | None = None

    @property
    def for_gan(self) -> np.ndarray:
        """What G and D are given of the images."""
        return self.inputs if self.gan_inputs is None else self.gan_inputs

    @property
    def labelled(self) -> np.ndarray:
        """The images that triplets are made of: positions in inputs."""
        return self.splits.labelled if self.listed is None else np.arange(len(self.inputs))

    @property
    def multi_label(self) -> bool:
        """Whether a labelled image has several labels."""
        return bool((self.labels[self.labelled].sum(axis=1, dtype=int) > 1).any())

    def triplets(self, kind: str, group_size: int, per_query: int) -> Sampler:
        """Triplets of the labelled images, or the user's own: "images" are positions in `labelled`.

        kind: in_batch, each image the query of `per_query` triplets; sampled, each triplet with
        three images of its own. UserError where a group of group_size images makes no triplet.
        """
        check_group_size(group_size)
        if self.listed is not None:
            return ListedTriplets(self.listed, group_size // 3)
        labels = self.labels[self.labelled]
        if kind == "sampled":
            return SampledTriplets(labels, group_size // 3)
        return InBatchTriplets(labels, group_size, per_query)


def listed_triplets(image_set: ImageSet, splits: RetrievalSplits) -> np.ndarray | None:
    """The user's own triplets whose three images are learned from, int64 [T, 3]; None of none.

    Left out are those that hold an image of the query or the validation part, or what repeats one,
    and those with an image of neither the labelled nor the unlabelled part, e.g. of a class that is
    not to be seen. Says how many. UserError where none is left.
    """
    listed = image_set.triplets
    if listed is None:
        return None
    first = np.arange(len(image_set.ids)) if image_set.first is None else image_set.first
    learned = np.concatenate([splits.labelled, splits.unlabelled])
    left = np.ones(len(listed), bool)
    for what, held in (
        ("a query image", np.isin(first[listed], first[splits.query])),
        ("a validation image", np.isin(first[listed], first[splits.validation])),
        ("an image that is not learned from", ~np.isin(listed, learned)),
    ):
        out = held.any(axis=1) & left
        if out.any():
            print(f"{out.sum()} of {len(listed)} triplets hold {what}: left out")
        left &= ~out
    if not left.any():
        raise UserError(
            "`triplets_csv`: each triplet in it holds an image that is not learned from"
        )
    return listed[left]
