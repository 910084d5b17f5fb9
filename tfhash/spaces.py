"""Where a GAN for hashing works: on pixels, or on the features of a frozen backbone.

A space turns images into what the networks see, builds the networks for it, and puts together the
encoder that goes from an image to its code.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.neighbors import NearestNeighbors

from tfhash.backbone_settings import build_backbone
from tfhash.data.pipeline import Augment, FlipAndShift, random_view
from tfhash.deep import DeepSettings
from tfhash.errors import UserError
from tfhash.networks import discriminators, generators
from tfhash.networks.features import Standardise, cached_features
from tfhash.networks.hash_layer import HashNetwork

DISCRIMINATORS = ("joint", "siamese")
DESCRIBED = 64  # images at a time: vgg19's first layers take 26 MB of each


class PixelSpace:
    """G and D on images of gan_size px in [-1, 1], H on images of image_size px.

    width: filters of the narrowest convolution of G and D.
    """

    def __init__(
        self, settings: DeepSettings, image_size: int, gan_size: int, width: int, seed: int
    ):
        self.settings = settings
        self.image_size = image_size
        self.gan_size = gan_size
        self.width = width
        self.seed = seed
        self.augment: Augment = FlipAndShift(settings.flip, settings.shift)
        self._judge_backbone = build_backbone(settings, "all") if settings.weights else None

    def inputs(self, images: np.ndarray, learnable: np.ndarray) -> np.ndarray:
        """uint8 [n, S, S, 3] -> uint8 [n, 1, S, S, 3], one view each, without a copy."""
        return images[:, None]

    def to_gan(self, x: tf.Tensor) -> tf.Tensor:
        """[n, S, S, 3] in [0, 255] -> float32 [n, gan_size, gan_size, 3] in [-1, 1]."""
        x = tf.cast(x, tf.float32) / 127.5 - 1.0
        if x.shape[1] == self.gan_size:
            return x
        return tf.image.resize(x, (self.gan_size, self.gan_size), antialias=True)

    def synthetic(self, decoded: tf.Tensor, x: tf.Tensor | None = None) -> tf.Tensor:
        """What a generator decodes -> images in [-1, 1]; with x, a change of x, as to_gan has it.

        tanh(decoded), or tanh(decoded + artanh(.98 x)), which is near x where decoded is 0.
        """
        return tf.tanh(decoded if x is None else decoded + tf.atanh(0.98 * x))

    def to_hash(self, synthetic: tf.Tensor) -> tf.Tensor:
        """[n, gan_size, gan_size, 3] in [-1, 1] -> [0, 255], as large as real images.

        Differentiable. Were they of another size, H could tell them from real ones by it, and a
        backbone that takes images as they come would see another scale.
        """
        images = (synthetic + 1.0) * 127.5
        if self.gan_size == self.image_size:
            return images
        return tf.image.resize(images, (self.image_size, self.image_size), antialias=True)

    def describe(self, x: np.ndarray) -> np.ndarray:
        """What a judge of classes looks at, float32 [n, d]; x in [0, 255], or synthetic floats.

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

    def embed(self, hash_network: HashNetwork, images: np.ndarray) -> np.ndarray:
        """H of images uint8 [n, S, S, 3] -> float32 [n, k]."""
        return hash_network.predict(images, batch_size=256, verbose=int(len(images) > 10_000))

    def hash_network(
        self, code_length: int, hidden_units: Sequence[int], dropout: float
    ) -> HashNetwork:
        settings = self.settings
        keras.utils.set_random_seed(self.seed)
        backbone = build_backbone(settings, settings.frozen_through)
        network = HashNetwork(code_length, backbone, hidden_units, dropout)
        network.build((None, None, None, 3))
        return network

    def encoder(self, hash_network: HashNetwork) -> keras.Model:
        return hash_network

    def condition(self, size: int) -> keras.Model:
        return generators.image_condition(self.gan_size, self.width, size, self.seed + 100)

    def generator(self, name: str, salt: int) -> keras.Model:
        return generators.image_generator(self.gan_size, self.width, self.seed + salt, name)

    def discriminator(self, kind: str, batch_norm: bool, dropout: float) -> keras.Model:
        trunk = discriminators.image_trunk(self.gan_size, self.width, self.seed + 400, batch_norm)
        return _discriminator(kind, trunk, 4 * self.width, dropout, self.seed + 450)

    def source_class_discriminator(
        self, class_count: int, batch_norm: bool, dropout: float
    ) -> keras.Model:
        trunk = discriminators.image_trunk(self.gan_size, self.width, self.seed + 400, batch_norm)
        return discriminators.SourceClassDiscriminator(
            trunk, class_count, dropout, self.seed + 450
        )

    def example(self, count: int) -> tf.Tensor:
        return tf.zeros((count, self.gan_size, self.gan_size, 3))


class FeatureSpace:
    """G, D and H on the standardised features of a frozen backbone with given weights.

    The features of each image and of its mirror image are computed once and kept in the cache;
    the mirror image's are a second view, which is this space's augmentation.
    """

    def __init__(
        self, settings: DeepSettings, image_size: int, gan_size: int, width: int, seed: int
    ):
        if settings.weights is None:
            raise UserError("--weights: none; features of a frozen backbone need trained weights")
        self.settings = settings
        self.width = width
        self.seed = seed
        self.augment: Augment = random_view
        self.backbone = build_backbone(settings, "all")
        width = self.backbone.output_shape[-1]
        components = settings.feature_components
        if components is not None and not 1 <= components <= width:
            raise UserError(f"--feature_components: {components}; allowed: 1 to {width}")
        self.features = components or width
        self.standardise = Standardise(width, components)

    def _raw(self, images: np.ndarray) -> np.ndarray:
        return cached_features(self.backbone, images, self.settings.cache_dir)

    def inputs(self, images: np.ndarray, learnable: np.ndarray) -> np.ndarray:
        """uint8 [n, S, S, 3] -> float32 [n, views, F]; the statistics are those of `learnable`."""
        views = [self._raw(images)]
        self.standardise.adapt(views[0][learnable])
        if self.settings.flip:
            views.append(self._raw(np.ascontiguousarray(images[:, :, ::-1])))
        inputs = np.stack([self.standardise(view).numpy() for view in views], axis=1)
        self._gallery = images, inputs[:, 0], learnable
        return inputs

    def to_gan(self, x: tf.Tensor) -> tf.Tensor:
        return x

    def synthetic(self, decoded: tf.Tensor, x: tf.Tensor | None = None) -> tf.Tensor:
        """What a generator decodes, or x changed by it."""
        return decoded if x is None else x + decoded

    def to_hash(self, synthetic: tf.Tensor) -> tf.Tensor:
        return synthetic

    def hash_network(
        self, code_length: int, hidden_units: Sequence[int], dropout: float
    ) -> HashNetwork:
        keras.utils.set_random_seed(self.seed)
        network = HashNetwork(code_length, None, hidden_units, dropout)
        network.build((None, self.features))
        return network

    def describe(self, x: np.ndarray) -> np.ndarray:
        return x

    def pictures(self, *features: np.ndarray) -> list[np.ndarray]:
        """Of each feature vector [n, F] the image that is nearest to it, uint8 [n, S, S, 3]."""
        images, known, learnable = self._gallery
        neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(known[learnable])
        return [
            images[learnable[neighbours.kneighbors(rows, return_distance=False)[:, 0]]]
            for rows in features
        ]

    def embed(self, hash_network: HashNetwork, images: np.ndarray) -> np.ndarray:
        features = self.standardise(self._raw(images)).numpy()
        return hash_network.predict(features, batch_size=1024, verbose=0)

    def encoder(self, hash_network: HashNetwork) -> keras.Model:
        return FeatureEncoder(self.backbone, self.standardise, hash_network)

    def condition(self, size: int) -> keras.Model:
        return generators.feature_condition(self.width, size, self.seed + 100)

    def generator(self, name: str, salt: int) -> keras.Model:
        return generators.feature_generator(self.features, self.width, self.seed + salt, name)

    def discriminator(self, kind: str, batch_norm: bool, dropout: float) -> keras.Model:
        trunk = discriminators.feature_trunk(self.width, self.seed + 400)
        return _discriminator(kind, trunk, self.width, dropout, self.seed + 450)

    def source_class_discriminator(
        self, class_count: int, batch_norm: bool, dropout: float
    ) -> keras.Model:
        trunk = discriminators.feature_trunk(self.width, self.seed + 400)
        return discriminators.SourceClassDiscriminator(
            trunk, class_count, dropout, self.seed + 450
        )

    def example(self, count: int) -> tf.Tensor:
        return tf.zeros((count, self.features))


SPACES = {"pixels": PixelSpace, "features": FeatureSpace}


class FeatureEncoder(keras.Model):
    """Images [n, S, S, 3] in [0, 255] -> H of their standardised features, float32 [n, k]."""

    def __init__(
        self, backbone: keras.Model, standardise: Standardise, hash_network: HashNetwork
    ):
        super().__init__(name="encoder", dtype="float32")
        self.backbone = backbone
        self.standardise = standardise
        self.hash_network = hash_network
        self.built = True

    def call(self, images, training=False):
        features = keras.ops.cast(self.backbone(images, training=False), "float32")
        return self.hash_network(self.standardise(features), training=training)


def _discriminator(
    kind: str, trunk: list[layers.Layer], width: int, dropout: float, seed: int
) -> discriminators.JointDiscriminator:
    if kind == "joint":
        return discriminators.JointDiscriminator(trunk, dropout, seed)
    return discriminators.SiameseDiscriminator(trunk, width, width, dropout, seed)
