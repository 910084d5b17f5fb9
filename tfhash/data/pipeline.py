"""Training batches as a pure function of (seed, step), and the tf.data pipeline over them.

Whatever is random in a batch (which images, which triplets, augmentation, the generators' noise)
comes from a generator seeded by (seed, step). A run that starts again at any step therefore sees
what an uninterrupted one would have seen, and each replica of a strategy gets its own rows of the
same global batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfhash.data.samplers import Sampler
from tfhash.errors import UserError

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
FILLS = ("repeat", "reflect")
STAGES = 3  # of a method, at most, by whose numbers `seed` ends


@dataclass(frozen=True)
class FlipAndShift:
    """Random horizontal flips, and shifts by up to `shift` pixels.

    fill: what comes in at an edge, one of FILLS: the edge repeated, or what is beside it reflected.
    """

    flip: bool
    shift: int
    fill: str = "repeat"

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[n, 1, H, W, 3] -> [n, H, W, 3] of the same dtype; each image has its own draw."""
        images = images[:, 0]
        count, height, width = images.shape[:3]
        flipped = rng.integers(0, 2, count).astype(bool) & self.flip
        down, right = rng.integers(-self.shift, self.shift + 1, (2, count))
        rows = self._inside(np.arange(height) + down[:, None], height)
        columns = self._inside(np.arange(width) + right[:, None], width)
        columns = np.where(flipped[:, None], width - 1 - columns, columns)
        return images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]

    def _inside(self, places: np.ndarray, length: int) -> np.ndarray:
        """Which pixel of a row of `length` stands at places that may be outside of it."""
        if self.fill == "repeat":
            return np.clip(places, 0, length - 1)
        period = max(2 * (length - 1), 1)
        return np.minimum(places % period, -places % period)


def random_view(inputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the stored views of each item, e.g. features of an image and of its mirror image.

    [n, views, ...] -> [n, ...].
    """
    return inputs[np.arange(len(inputs)), rng.integers(0, inputs.shape[1], len(inputs))]


@dataclass(frozen=True)
class TrainingBatches:
    """The batch of each step.

    inputs: [n, views, ...], images or features; labelled, unlabelled: positions in it (unlabelled
    may be empty); sampler: draws a group of the labelled ones, and triplets or pairs in it; groups:
    B groups a batch, the leading axis that a strategy divides; unlabelled_size: u unlabelled items
    a group; noise_size: length of the normal noise vector of each item; augment: from [n, views,
    ...] to [n, ...]; other_view: a second augmentation of each item goes with the first; labels:
    multi-hot [n, C] of the inputs, for those methods that need them in a batch; places: whether a
    batch says which of the labelled items it holds, for methods that keep something of each;
    unlabelled_augment: of the first view of unlabelled items, where it is not `augment`;
    other_augment: of the other views, likewise; others: [n, views, ...], what the other views are
    of, where that is not `inputs`.
    """

    inputs: np.ndarray
    labelled: np.ndarray
    unlabelled: np.ndarray
    sampler: Sampler
    groups: int
    augment: Augment
    seed: Sequence[int]
    unlabelled_size: int = 0
    noise_size: int = 0
    other_view: bool = False
    labels: np.ndarray | None = None
    places: bool = False
    unlabelled_augment: Augment | None = None
    other_augment: Augment | None = None
    others: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "unlabelled", np.asarray(self.unlabelled, np.int64))
        if self.unlabelled_size and not len(self.unlabelled):
            raise UserError("`dataset`: no unlabelled images, and the method asks for some")

    def of_round(self, number: int) -> TrainingBatches:
        """The batches of a stage when it is run for the number-th time: 1, as they are."""
        *first, stage = self.seed
        return dataclasses.replace(self, seed=(*first, stage + STAGES * (number - 1)))

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step.

        images [B, m, ...] and unlabelled [B, u, ...] in the dtype of `inputs`; what else the
        sampler answers, such as triplets int32 [B, t, 3], positions among the m; noise float32
        [B, m + u, noise_size]; with other_view also other_images and other_unlabelled; with labels,
        labels float32 [B, m, C]; with places, places int64 [B, m], positions in `labelled`.
        """
        rng = np.random.Generator(np.random.PCG64([*self.seed, int(step)]))
        groups = [self.sampler.sample(rng) for _ in range(self.groups)]
        drawn = {name: np.stack([group[name] for group in groups]) for name in groups[0]}
        places = drawn.pop("images")
        labelled = self.labelled[places.reshape(-1)]
        # All that a method without unlabelled images draws comes first, so that it sees the same
        # labelled batches as one with them.
        batch = {"images": self._view(labelled, rng)}
        chosen = drawn.pop("unlabelled", None)
        batch |= drawn
        if chosen is None:
            count = self.groups * self.unlabelled_size
            chosen = rng.integers(0, max(len(self.unlabelled), 1), count)
        unlabelled = self.unlabelled[chosen.reshape(-1)]
        noise_shape = (
            self.sampler.group_size + len(unlabelled) // self.groups,
            self.noise_size,
        )
        batch["unlabelled"] = self._view(unlabelled, rng, self.unlabelled_augment)
        batch["noise"] = rng.standard_normal((self.groups, *noise_shape), np.float32)
        if self.other_view:
            batch["other_images"] = self._other_view(labelled, rng)
            batch["other_unlabelled"] = self._other_view(unlabelled, rng)
        if self.labels is not None:
            of_items = self.labels[labelled].astype(np.float32)
            batch["labels"] = of_items.reshape(self.groups, -1, of_items.shape[1])
        if self.places:
            batch["places"] = places
        return batch

    def _view(
        self, positions: np.ndarray, rng: np.random.Generator, augment: Augment | None = None
    ) -> np.ndarray:
        """An augmentation of each item: positions [B j] -> [B, j, ...]."""
        return self._grouped((augment or self.augment)(self.inputs[positions], rng))

    def _other_view(self, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        inputs = self.inputs if self.others is None else self.others
        return self._grouped((self.other_augment or self.augment)(inputs[positions], rng))

    def _grouped(self, items: np.ndarray) -> np.ndarray:
        """[B j, ...] -> [B, j, ...]."""
        return items.reshape(self.groups, len(items) // self.groups, *items.shape[1:])

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
