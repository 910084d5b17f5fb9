"""Where a GAN for hashing works: G and D on the pixels or features that the hash network sees."""

from __future__ import annotations

import abc
import functools
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfhash.hashers.backbone_settings import build_backbone
from tfhash.hashers.spaces import PixelSpace, Space, check_flat
from tfhash.networks import discriminators, generators

DESCRIBED = 64  # images at a time: vgg19's first layers take 26 MB of each


class Trunk(NamedTuple):
    """The layers of a discriminator from an item to a hidden vector, and how wide its heads are."""

    layers: list[keras.layers.Layer]
    width: int


class GANSpace(Space):
    """A Space with G and D. Their items have `gan_shape`, those of H `item_shape`.

    `to_gan` leads from the items of H to those of D, `to_hash` from what G makes to those of H, and
    `synthetic` from what a generator decodes to what G makes. All three take flat items, check them
    and are differentiable; a subclass says in the methods with an underscore what they do.

    width: filters (units) of the narrowest layer of G and D. synthetic_is_visible: whether what G
    makes can be looked at. made_features: whether what G makes is seen by H above its backbone.
    """

    gan_shape: tuple[int, ...]
    synthetic_is_visible: bool
    made_features: bool = False
    width: int

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """That of the items which G and D are given of images: here those of H."""
        return self.item_shape

    def to_gan(self, x: Any) -> tf.Tensor:
        """Items [n, *seen_shape] -> what D sees of them, float32 [n, *gan_shape]."""
        check_flat(x, self.seen_shape, "to_gan")
        return self._to_gan(x)

    def to_hash(self, synthetic: Any) -> tf.Tensor:
        """What G made, [n, *gan_shape] -> items of H, float32 [n, *item_shape].

        With `made_features`, what H's backbone would answer of such items.
        """
        check_flat(synthetic, self.gan_shape, "to_hash")
        return self._to_hash(synthetic)

    def synthetic(self, decoded: tf.Tensor, x: tf.Tensor | None = None) -> tf.Tensor:
        """What a generator decodes -> what G makes; with x, of `to_gan`, a change of x.

        All of them [n, *gan_shape].
        """
        check_flat(decoded, self.gan_shape, "synthetic")
        if x is not None:
            check_flat(x, self.gan_shape, "synthetic, x")
        return self._synthetic(decoded, x)

    @abc.abstractmethod
    def _to_gan(self, x: Any) -> tf.Tensor: ...

    @abc.abstractmethod
    def _to_hash(self, synthetic: Any) -> tf.Tensor: ...

    @abc.abstractmethod
    def _synthetic(self, decoded: tf.Tensor, x: tf.Tensor | None) -> tf.Tensor: ...

    @abc.abstractmethod
    def describe(self, x: np.ndarray) -> np.ndarray:
        """What a judge of classes looks at, float32 [n, d]; x: items of H, or what G made."""

    @abc.abstractmethod
    def pictures(self, x: np.ndarray, *synthetic: np.ndarray) -> list[np.ndarray]:
        """Items of H, and what G made, as uint8 images [n, s, s, 3] of one size."""

    @abc.abstractmethod
    def generator(self, name: str, salt: int) -> keras.Model:
        """A decoder, float32 [n, d] -> [n, *gan_shape]; d is what it is first called with."""

    @abc.abstractmethod
    def condition(self, size: int) -> generators.ConditionModule:
        """x [n, *gan_shape] -> mean and log variance of a condition, float32 [n, size]."""

    @abc.abstractmethod
    def trunk(self, batch_norm: bool) -> Trunk:
        """The trunk of a discriminator."""

    def example(self, count: int) -> tf.Tensor:
        """`count` items of D, all 0."""
        return tf.zeros((count, *self.gan_shape))


class GANPixels(PixelSpace, GANSpace):
    """G and D on images of gan_size px in [-1, 1], H on images of image_size px."""

    synthetic_is_visible = True

    def __init__(self, settings: Any, image_size: int, gan_size: int, width: int, seed: int):
        super().__init__(settings, image_size, seed)
        self.gan_size = gan_size
        self.gan_shape = (gan_size, gan_size, 3)
        self.width = width

    @functools.cached_property
    def _judge_backbone(self) -> keras.Model | None:
        """The backbone as its weights file has it; read when it is first asked."""
        return build_backbone(self.settings, "all") if self.settings.weights else None

    def _to_gan(self, x: Any) -> tf.Tensor:
        x = tf.cast(x, tf.float32) / 127.5 - 1.0
        if self.image_size == self.gan_size:
            return x
        return tf.image.resize(x, (self.gan_size, self.gan_size), antialias=True)

    def _synthetic(self, decoded: tf.Tensor, x: tf.Tensor | None) -> tf.Tensor:
        # tanh(decoded + artanh(.98 x)) is near x where decoded is 0.
        return tf.tanh(decoded if x is None else decoded + tf.atanh(0.98 * x))

    def _to_hash(self, synthetic: Any) -> tf.Tensor:
        # As large as real images: were they of another size, H could tell them from real ones by
        # it, and a backbone that takes images as they come would see another scale.
        images = (synthetic + 1.0) * 127.5
        if self.gan_size == self.image_size:
            return images
        return tf.image.resize(images, (self.image_size, self.image_size), antialias=True)

    def describe(self, x: np.ndarray) -> np.ndarray:
        """x uint8 in [0, 255], or synthetic floats -> float32 [n, d].

        The features of the backbone as its weights file has it; without one, the pixels.
        """
        real = x.dtype == np.uint8
        if self._judge_backbone is None:
            return tf.reshape(self.to_gan(x) if real else x, [len(x), -1]).numpy()
        parts = [x[start : start + DESCRIBED] for start in range(0, len(x), DESCRIBED)]
        images = (tf.cast(part, tf.float32) if real else self.to_hash(part) for part in parts)
        described = [self._judge_backbone(part, training=False) for part in images]
        return tf.cast(tf.concat(described, axis=0), tf.float32).numpy()

    def pictures(self, x: np.ndarray, *synthetic: np.ndarray) -> list[np.ndarray]:
        """x uint8 [n, S, S, 3] and synthetic images -> uint8, all of gan_size px."""
        all_of_them = [self.to_gan(x).numpy(), *synthetic]
        return [
            np.clip(np.rint((images + 1.0) * 127.5), 0, 255).astype(np.uint8)
            for images in all_of_them
        ]

    def condition(self, size: int) -> generators.ConditionModule:
        return generators.image_condition(self.gan_size, self.width, size, self.seed + 100)

    def generator(self, name: str, salt: int) -> keras.Model:
        return generators.image_generator(self.gan_size, self.width, self.seed + salt, name)

    def trunk(self, batch_norm: bool) -> Trunk:
        layers = discriminators.image_trunk(self.gan_size, self.width, self.seed + 400, batch_norm)
        return Trunk(layers, 4 * self.width)
