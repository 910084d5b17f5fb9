"""Training batches as a pure function of (seed, step), and the tf.data pipeline over them.

Whatever is random in a batch (which images, which triplets, augmentation, the generators' noise)
comes from a generator seeded by (seed, step). A run that starts again at any step therefore sees
what an uninterrupted one would have seen, and each replica of a strategy gets its own rows of the
same global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfhash.data.triplets import TripletSampler
from tfhash.errors import UserError

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class FlipAndShift:
    """Random horizontal flips, and shifts by up to `shift` pixels with the edge repeated."""

    flip: bool
    shift: int

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[n, 1, H, W, 3] -> [n, H, W, 3] of the same dtype; each image has its own draw."""
        images = images[:, 0]
        count, height, width = images.shape[:3]
        flipped = rng.integers(0, 2, count).astype(bool) & self.flip
        down, right = rng.integers(-self.shift, self.shift + 1, (2, count))
        rows = np.clip(np.arange(height) + down[:, None], 0, height - 1)
        columns = np.clip(np.arange(width) + right[:, None], 0, width - 1)
        columns = np.where(flipped[:, None], width - 1 - columns, columns)
        return images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def random_view(inputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the stored views of each item, e.g. features of an image and of its mirror image.

    [n, views, ...] -> [n, ...].
    """
    return inputs[np.arange(len(inputs)), rng.integers(0, inputs.shape[1], len(inputs))]


@dataclass(frozen=True)
class TrainingBatches:
    """The batch of each step.

    inputs: [n, views, ...], images or features; labelled, unlabelled: positions in it (unlabelled
    may be empty); triplets: positions in `labelled`; groups: B groups a batch, the leading axis
    that a strategy divides; unlabelled_size: u unlabelled items a group; noise_size: length of the
    normal noise vector of each item; augment: from [n, views, ...] to [n, ...]; other_view: a
    second augmentation of each item goes with the first; labels: multi-hot [n, C] of the inputs,
    for those methods that need them in a batch.
    """

    inputs: np.ndarray
    labelled: np.ndarray
    unlabelled: np.ndarray
    triplets: TripletSampler
    groups: int
    unlabelled_size: int
    noise_size: int
    augment: Augment
    seed: Sequence[int]
    other_view: bool = False
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.unlabelled_size and not len(self.unlabelled):
            raise UserError("--dataset: no unlabelled images, and the method asks for some")

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step.

        images [B, m, ...] and unlabelled [B, u, ...] in the dtype of `inputs`; triplets int32
        [B, t, 3], positions among the m; noise float32 [B, m + u, noise_size]; with other_view
        also other_images and other_unlabelled; with labels, labels float32 [B, m, C].
        """
        rng = np.random.Generator(np.random.PCG64([*self.seed, int(step)]))
        drawn = [self.triplets.sample(rng) for _ in range(self.groups)]
        labelled = self.labelled[np.concatenate([members for members, _ in drawn])]
        # All that a method without unlabelled images draws comes first, so that it sees the same
        # labelled batches as one with them.
        batch = {
            "images": self._view(labelled, rng),
            "triplets": np.stack([triplets for _, triplets in drawn]),
        }
        chosen = rng.integers(0, max(len(self.unlabelled), 1), self.groups * self.unlabelled_size)
        unlabelled = self.unlabelled[chosen]
        noise_shape = (self.triplets.group_size + self.unlabelled_size, self.noise_size)
        batch["unlabelled"] = self._view(unlabelled, rng)
        batch["noise"] = rng.standard_normal((self.groups, *noise_shape), np.float32)
        if self.other_view:
            batch["other_images"] = self._view(labelled, rng)
            batch["other_unlabelled"] = self._view(unlabelled, rng)
        if self.labels is not None:
            of_items = self.labels[labelled].astype(np.float32)
            batch["labels"] = of_items.reshape(self.groups, -1, of_items.shape[1])
        return batch

    def _view(self, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An augmentation of each item: positions [B j] -> [B, j, ...]."""
        items = self.augment(self.inputs[positions], rng)
        return items.reshape(self.groups, len(positions) // self.groups, *items.shape[1:])

    def dataset(self, start: int, stop: int) -> tf.data.Dataset:
        """The batches of steps start..stop-1 in order, two of them prepared ahead."""
        example = self(0)
        names = list(example)

        def load(step: tf.Tensor) -> dict[str, tf.Tensor]:
            arrays = tf.numpy_function(
                lambda s: list(self(s).values()),
                [step],
                [example[name].dtype for name in names],
                stateful=False,
            )
            return {
                name: tf.ensure_shape(array, example[name].shape)
                for name, array in zip(names, arrays, strict=True)
            }

        steps = tf.data.Dataset.range(start, stop)
        return steps.map(load, num_parallel_calls=2, deterministic=True).prefetch(2)
