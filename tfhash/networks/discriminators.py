"""Discriminators of triplets: is (q, p, n) a real triplet in the right order?

Both take the images (or features) of a step in two moves, `embed` for each item once and `compare`
for triplets of what it answered, so that an item that stands in several triplets costs one pass.
"""

from __future__ import annotations

import keras
from keras import layers

from tfhash.networks.generators import convolution_stack, dcgan_initializer


def _logit(seed: int) -> layers.Layer:
    """The float32 logit of D; float32 also under mixed precision."""
    return layers.Dense(
        1, kernel_initializer=dcgan_initializer(seed), dtype="float32", name="logit"
    )


class JointDiscriminator(keras.Model):
    """D on the three items stacked along the last axis, as the paper draws it (Fig. 1)."""

    def __init__(self, trunk: list[layers.Layer], seed: int):
        super().__init__(name="discriminator")
        self.trunk = keras.Sequential(trunk, name="trunk")
        self.logit = _logit(seed)

    def embed(self, x, training=False):
        return x

    def compare(self, query, positive, negative, training=False):
        """Three [t, ...] -> logits float32 [t]."""
        stacked = keras.ops.concatenate([query, positive, negative], axis=-1)
        return self.logit(self.trunk(stacked, training=training))[:, 0]

    def call(self, x, training=False):
        """Three [t, ...] as one tuple -> logits float32 [t]."""
        return self.compare(*(self.embed(item, training) for item in x), training=training)


class SiameseDiscriminator(JointDiscriminator):
    """D with one trunk for the three items, then q·p and q·n beside p and n themselves.

    The order of a triplet shows in the products alone, which generalises from few labels; the
    items themselves tell real from synthetic.
    """

    def __init__(self, trunk: list[layers.Layer], embedding_size: int, width: int, seed: int):
        super().__init__(trunk, seed)
        self.embedding = layers.Dense(
            embedding_size, kernel_initializer=keras.initializers.GlorotNormal(seed + 1)
        )
        self.hidden = layers.Dense(width, kernel_initializer=keras.initializers.HeNormal(seed + 2))
        self.activation = layers.LeakyReLU(0.2)

    def embed(self, x, training=False):
        """[n, ...] -> [n, embedding_size]."""
        return self.embedding(self.trunk(x, training=training))

    def compare(self, query, positive, negative, training=False):
        """Three [t, embedding_size] -> logits float32 [t]."""
        pairs = [query * positive, query * negative, positive, negative]
        return self.logit(self.activation(self.hidden(keras.ops.concatenate(pairs, -1))))[:, 0]


def image_trunk(image_size: int, width: int, seed: int, batch_norm: bool) -> list[layers.Layer]:
    """DCGAN's strided convolutions down to 4 px, flattened."""
    return [*convolution_stack(image_size, width, seed, batch_norm), layers.Flatten()]


def feature_trunk(width: int, seed: int) -> list[layers.Layer]:
    """Two hidden layers on standardised features."""
    stack: list[layers.Layer] = []
    for level in range(2):
        stack += [
            layers.Dense(width, kernel_initializer=keras.initializers.HeNormal(seed + level)),
            layers.LeakyReLU(0.2),
        ]
    return stack
