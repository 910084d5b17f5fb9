"""Where a hash network works: on pixels, or on the features of a frozen backbone.

A space turns images into what the networks see, builds the hash network for it, and puts together
the encoder that goes from an image to its code.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfhash.data.augmentation import StrongView
from tfhash.data.pipeline import Augment, FlipAndShift, random_view
from tfhash.errors import UserError
from tfhash.hashers.backbone_settings import BackboneSettings, build_backbone
from tfhash.networks.encoder import FeatureEncoder
from tfhash.networks.features import Standardise, cached_features, parts
from tfhash.networks.hash_layer import HashNetwork

SPACES = ("pixels", "features")
_AT_ONCE = 2**26  # bytes of images that go to a network in one call
ADAPT = 2048  # images that the statistics of features are taken of, where the backbone learns


class Space(abc.ABC):
    """What the networks see of an image, an item.

    An item has `item_shape`. A batch may hold groups [B, j, ...], but what a space takes is always
    flat, [n, *item_shape], and it raises ValueError for anything else. augment: from the views of
    items to one of each, as `data.pipeline` has it; unlabelled_augment: the same of unlabelled
    items; weak_view: what neither changes much, for G and D.

    settings: backbone and augmentation; image_size: S, the side of images in px; seed: of weights.
    """

    augment: Augment
    unlabelled_augment: Augment
    weak_view: Augment
    item_shape: tuple[int, ...]

    def __init__(self, settings: Any, image_size: int, seed: int):
        self.settings = settings
        self.image_size = image_size
        self.seed = seed

    @abc.abstractmethod
    def inputs(self, images: np.ndarray, learnable: np.ndarray) -> np.ndarray:
        """uint8 [n, S, S, 3] -> [n, views, *item_shape].

        learnable: positions of the images that statistics may be taken of.
        """

    @property
    def has_strong_views(self) -> bool:
        return not (self.augment is self.unlabelled_augment is self.weak_view)

    @abc.abstractmethod
    def hash_network(
        self,
        code_length: int,
        hidden_units: Sequence[int],
        dropout: float,
        kind: Callable[..., HashNetwork] = HashNetwork,
    ) -> HashNetwork:
        """H on items, built: [n, *item_shape] -> float32 [n, k] in (0, 1)."""

    def beside(self, hash_network: HashNetwork, code_length: int, *others: Any) -> HashNetwork:
        """H of another code length on the same backbone, built as `hash_network` has it.

        others: the other arguments of `hash_network`. Its other layers begin as those that
        `hash_network` makes for that length.
        """
        del hash_network  # where the backbone is no part of it
        return self.hash_network(code_length, *others)

    @abc.abstractmethod
    def encoder(self, hash_network: HashNetwork) -> keras.Model:
        """From images float32 [n, S, S, 3] in [0, 255] to what H answers of their items."""

    @abc.abstractmethod
    def embed(self, hash_network: HashNetwork, images: np.ndarray) -> np.ndarray:
        """H of images uint8 [n, S, S, 3] -> float32 [n, k]."""


def predict(network: keras.Model, images: np.ndarray, batch_size: int) -> np.ndarray:
    """What a network answers of images [n > 0, S, S, 3], in batches as `network.predict` has them.

    That would copy all images first. Of many images a progress bar is shown.
    """
    at_once = batch_size * max(1, _AT_ONCE // (batch_size * images[0].nbytes))
    starts = range(0, len(images), at_once)
    bar: Any = None
    if len(images) > 10_000:
        bar = keras.utils.Progbar(len(images), unit_name="image")
    answers = []
    for start in starts:
        some = images[start : start + at_once]
        answers.append(network.predict(some, batch_size=batch_size, verbose=0))
        if bar is not None:
            bar.add(len(some))
    return np.concatenate(answers)


def check_flat(items: Any, shape: Sequence[int], what: str) -> None:
    """ValueError where items are not [n, *shape]; a size that a graph does not know yet passes."""
    received = tuple(items.shape)
    fits = len(received) == len(shape) + 1 and all(
        size in (None, expected) for size, expected in zip(received[1:], shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{what}: expected [n, {', '.join(map(str, shape))}], received {received}")


class PixelSpace(Space):
    """H on images of image_size px, and the backbone under it learns."""

    def __init__(self, settings: Any, image_size: int, seed: int):
        super().__init__(settings, image_size, seed)
        self.item_shape = (image_size, image_size, 3)
        weak = FlipAndShift(settings.flip, settings.shift, settings.shift_fill)
        strong = StrongView(weak, settings.strength, settings.cut_out)
        views: dict[str, Augment] = {"weak": weak, "strong": strong}
        self.weak_view = weak
        self.augment = views[settings.view]
        self.unlabelled_augment = views[settings.unlabelled_view]
        self._plain: keras.Model | None = None  # the backbone before its features are standardised
        self._standardise: Standardise | None = None

    def inputs(self, images: np.ndarray, learnable: np.ndarray) -> np.ndarray:
        """uint8 [n, S, S, 3] -> uint8 [n, 1, S, S, 3], one view each, without a copy.

        Where features are standardised it is by those of at most 2,048 of the learnable images.
        """
        check_flat(images, self.item_shape, "images")
        if self._plain is not None and self._standardise is not None:
            count = min(len(learnable), ADAPT)
            some = learnable[np.linspace(0, len(learnable) - 1, count).astype(int)]
            features = self._plain.predict(images[some], batch_size=128, verbose=0)
            self._standardise.adapt(features.astype(np.float32))
        return images[:, None]

    def embed(self, hash_network: HashNetwork, images: np.ndarray) -> np.ndarray:
        return predict(hash_network, images, 256)

    def hash_network(
        self,
        code_length: int,
        hidden_units: Sequence[int],
        dropout: float,
        kind: Callable[..., HashNetwork] = HashNetwork,
    ) -> HashNetwork:
        settings = self.settings
        keras.utils.set_random_seed(self.seed)
        backbone = build_backbone(settings, settings.frozen_through)
        if settings.standardise_features:
            self._plain = backbone
            self._standardise = Standardise(backbone.output_shape[-1])
            scaled = self._standardise(backbone.output)
            backbone = keras.Model(backbone.input, scaled, name=backbone.name)
        return self._above(backbone, code_length, hidden_units, dropout, kind)

    def beside(self, hash_network: HashNetwork, code_length: int, *others: Any) -> HashNetwork:
        keras.utils.set_random_seed(self.seed)
        # For what it draws of the random numbers, as `hash_network` does before the other layers.
        build_backbone(self.settings, self.settings.frozen_through)
        return self._above(hash_network.backbone, code_length, *others)

    def _above(self, backbone, code_length, hidden_units, dropout, kind) -> HashNetwork:
        mirrored = self.settings.mirrored_codes
        network = kind(code_length, backbone, hidden_units, dropout, mirrored=mirrored)
        network.build((None, None, None, 3))
        return network

    def encoder(self, hash_network: HashNetwork) -> keras.Model:
        return hash_network


class FeatureSpace(Space):
    """H on the standardised features of a frozen backbone with given weights.

    The features of each image and of its mirror image are computed once and kept in the cache;
    the mirror image's are a second view, which is this space's augmentation.
    """

    def __init__(self, settings: BackboneSettings, image_size: int, seed: int):
        if settings.weights is None:
            raise UserError("`weights`: none; features of a frozen backbone need trained weights")
        super().__init__(settings, image_size, seed)
        for name in ("view", "unlabelled_view"):
            if getattr(settings, name, "weak") != "weak":
                raise UserError(
                    f"`{name}`: strong; not on features of a frozen backbone, which are computed "
                    "once; allowed: weak"
                )
        if getattr(settings, "mirrored_codes", False):
            raise UserError(
                "`mirrored_codes`: True; not on features of a frozen backbone, which cannot be "
                "mirrored; allowed: False"
            )
        for name, plain in (("standardise_features", False), ("trunk_rate", 1), ("trunk_from", 0)):
            if getattr(settings, name, plain) != plain:
                raise UserError(
                    f"`{name}`: {getattr(settings, name)}; not on features of a frozen backbone, "
                    f"which does not learn; allowed: {plain}"
                )
        self.augment = self.unlabelled_augment = self.weak_view = random_view
        self.backbone = build_backbone(settings, "all")
        width = self.backbone.output_shape[-1]
        components = settings.feature_components
        if components is not None and not 1 <= components <= width:
            raise UserError(f"`feature_components`: {components}; allowed: 1 to {width}")
        self.item_shape = (components or width,)
        self.standardise = Standardise(width, components)

    def _raw(self, images: np.ndarray, mirrored: bool = False) -> np.ndarray:
        check_flat(images, (self.image_size, self.image_size, 3), "images")
        return cached_features(self.backbone, images, self.settings.cache_dir, mirrored)

    def inputs(self, images: np.ndarray, learnable: np.ndarray) -> np.ndarray:
        """uint8 [n, S, S, 3] -> float32 [n, views, F]; the statistics are those of `learnable`."""
        storage = self.settings.storage
        views = [self._raw(images)]
        self.standardise.adapt(views[0], learnable, storage)
        if self.settings.flip:
            views.append(self._raw(images, mirrored=True))
        everything = np.arange(len(images))
        inputs = storage.empty((len(images), len(views), *self.item_shape), np.float32)
        for number, view in enumerate(views):
            self.standardise.of(view, everything, inputs[:, number])
        return inputs

    def hash_network(
        self,
        code_length: int,
        hidden_units: Sequence[int],
        dropout: float,
        kind: Callable[..., HashNetwork] = HashNetwork,
    ) -> HashNetwork:
        keras.utils.set_random_seed(self.seed)
        network = kind(code_length, None, hidden_units, dropout)
        network.build((None, *self.item_shape))
        return network

    def embed(self, hash_network: HashNetwork, images: np.ndarray) -> np.ndarray:
        raw = self._raw(images)
        answers = []
        for some in parts(len(raw)):
            features = self.standardise(raw[some]).numpy()
            answers.append(hash_network.predict(features, batch_size=1024, verbose=0))
        return np.concatenate(answers)

    def encoder(self, hash_network: HashNetwork) -> keras.Model:
        return FeatureEncoder(self.backbone, self.standardise, hash_network)


def make_space(kind: str, settings: Any, image_size: int, seed: int) -> Space:
    """The space of a name, one of SPACES."""
    space = {"pixels": PixelSpace, "features": FeatureSpace}[kind]
    return space(settings, image_size, seed)
