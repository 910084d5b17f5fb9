"""GANs for hashing whose G and D see features: of a frozen backbone, or of H's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.neighbors import NearestNeighbors

from tfhash.hashers.gan_spaces import GANPixels, GANSpace, Trunk
from tfhash.hashers.spaces import FeatureSpace, PixelSpace
from tfhash.networks import discriminators, generators
from tfhash.networks.features import Standardise, cached_features, parts, weights_digest
from tfhash.networks.hash_layer import HashNetwork


class OnFeatures(GANSpace):
    """A GANSpace whose G and D see feature vectors."""

    synthetic_is_visible = False
    # Images, features [n, F] of them, and the positions of those that pictures may show.
    _gallery: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def _to_gan(self, x: Any) -> tf.Tensor:
        return x

    def _synthetic(self, decoded: tf.Tensor, x: tf.Tensor | None) -> tf.Tensor:
        return decoded if x is None else x + decoded

    def describe(self, x: np.ndarray) -> np.ndarray:
        return x

    def pictures(self, x: np.ndarray, *synthetic: np.ndarray) -> list[np.ndarray]:
        """Of each feature vector [n, F] the image that is nearest to it, uint8 [n, S, S, 3].

        RuntimeError before `inputs` was asked for the features of any images.
        """
        if self._gallery is None:
            raise RuntimeError("pictures: expected `inputs` first, which knows the images")
        images, known, positions = self._gallery
        return [images[nearest(rows, known, positions)] for rows in (x, *synthetic)]

    def condition(self, size: int) -> generators.ConditionModule:
        return generators.feature_condition(self.width, size, self.seed + 100)

    def generator(self, name: str, salt: int) -> keras.Model:
        (features,) = self.gan_shape
        return generators.feature_generator(features, self.width, self.seed + salt, name)

    def trunk(self, batch_norm: bool) -> Trunk:
        return Trunk(discriminators.feature_trunk(self.width, self.seed + 400), self.width)


class GANFeatures(FeatureSpace, OnFeatures):
    """G, D and H on the standardised features of a frozen backbone."""

    def __init__(self, settings: Any, image_size: int, width: int, seed: int):
        super().__init__(settings, image_size, seed)
        self.gan_shape = self.item_shape
        self.width = width

    def inputs(self, images: np.ndarray, learnable: np.ndarray) -> np.ndarray:
        inputs = super().inputs(images, learnable)
        self._gallery = images, inputs[:, 0], learnable
        return inputs

    def _to_hash(self, synthetic: Any) -> tf.Tensor:
        return synthetic


class GANTrunk(PixelSpace, OnFeatures):
    """H on images, G and D on the features that H's backbone had of them when `look` was called.

    Those are standardised over the images that are learned from, whatever H's own are.
    """

    made_features = True

    def __init__(self, settings: Any, image_size: int, width: int, seed: int):
        super().__init__(settings, image_size, seed)
        self.width = width

    def hash_network(self, *arguments: Any, **options: Any) -> HashNetwork:
        network = super().hash_network(*arguments, **options)
        assert network.backbone is not None  # on pixels there is one
        self._backbone: keras.Model = network.backbone
        self.gan_shape = (self._backbone.output_shape[-1],)
        self.standardise = Standardise(*self.gan_shape)
        return network

    @property
    def seen_shape(self) -> tuple[int, ...]:
        return self.gan_shape

    def digest(self) -> str:
        """16 hexadecimal digits of the weights of H's backbone as they are now."""
        return weights_digest(self._backbone)

    def look(self, images: np.ndarray, learnable: np.ndarray, cache_dir: Path | None) -> np.ndarray:
        """uint8 [n, S, S, 3] -> float32 [n, 1, F], of the backbone as it is now.

        One view of each, for all images of a set pass through the network. cache_dir keeps what is
        computed.
        """
        raw = cached_features(self._backbone, images, cache_dir)
        storage = self.settings.storage
        self.standardise.adapt(raw, learnable, storage)
        seen = storage.empty(raw.shape, np.float32)
        self.standardise.of(raw, np.arange(len(raw)), seen)
        self._gallery = images, seen, learnable
        return seen[:, None]

    def _to_hash(self, synthetic: Any) -> tf.Tensor:
        return synthetic * self.standardise.deviation + self.standardise.mean


def nearest(rows: np.ndarray, known: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Of each row [m, F] which of the `positions` in known [n, F] is nearest: int64 [m]."""
    best = np.full(len(rows), np.inf)
    found = np.zeros(len(rows), np.int64)
    for some in parts(len(positions)):
        neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(known[positions[some]])
        distances, places = neighbours.kneighbors(rows)
        nearer = distances[:, 0] < best
        best[nearer] = distances[nearer, 0]
        found[nearer] = positions[some][places[nearer, 0]]
    return found


def make_gan_space(
    kind: str, settings: Any, image_size: int, gan_size: int, width: int, seed: int
) -> GANSpace:
    """The GANSpace of a name: one of `spaces.SPACES`, or trunk, see GANTrunk."""
    if kind == "features":
        return GANFeatures(settings, image_size, width, seed)
    if kind == "trunk":
        return GANTrunk(settings, image_size, width, seed)
    return GANPixels(settings, image_size, gan_size, width, seed)
