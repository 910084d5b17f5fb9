"""Discriminators: of triplets for SSGAH, of source and class for DSH-GANs.

Those of triplets say whether (q, p, n) is a real one in the right order. They take the images (or
features) of a step in two moves, `embed` for each item once and `compare` for triplets of what it
answered, so that an item that stands in several triplets costs one pass.
"""

from __future__ import annotations

import keras
from keras import layers

from tfhash.networks.dropout import drop
from tfhash.networks.generators import convolution_stack, dcgan_initializer


def _logit(seed: int) -> layers.Layer:
    """The float32 logit of D; float32 also under mixed precision."""
    return layers.Dense(
        1, kernel_initializer=dcgan_initializer(seed), dtype="float32", name="logit"
    )


class JointDiscriminator(keras.Model):
    """D on the three items stacked along the last axis, as the paper draws it (Fig. 1).

    dropout: the share of units before the logit that are dropped where a dropout_seed, int32 [2],
    is given; the same seed drops the same ones.
    """

    def __init__(self, trunk: list[layers.Layer], dropout: float, seed: int):
        super().__init__(name="discriminator")
        self.trunk = keras.Sequential(trunk, name="trunk")
        self.dropout = dropout
        self.logit = _logit(seed)

    def embed(self, x, training=False, dropout_seed=None):
        return x

    def compare(self, query, positive, negative, training=False, dropout_seed=None):
        """Three [t, ...] -> logits float32 [t]."""
        stacked = keras.ops.concatenate([query, positive, negative], axis=-1)
        hidden = self.trunk(stacked, training=training)
        return self.logit(drop(hidden, self.dropout, dropout_seed))[:, 0]

    def call(self, x, training=False):
        """Three [t, ...] as one tuple -> logits float32 [t]."""
        query, positive, negative = (self.embed(item, training) for item in x)
        return self.compare(query, positive, negative, training=training)


class SiameseDiscriminator(JointDiscriminator):
    """D with one trunk for the three items, then q·p and q·n beside p and n themselves.

    The order of a triplet shows in the products alone, which generalises from few labels; the
    items themselves tell real from synthetic.
    """

    def __init__(
        self,
        trunk: list[layers.Layer],
        embedding_size: int,
        width: int,
        dropout: float,
        seed: int,
    ):
        super().__init__(trunk, dropout, seed)
        self.embedding = layers.Dense(
            embedding_size, kernel_initializer=keras.initializers.GlorotNormal(seed + 1)
        )
        self.hidden = layers.Dense(width, kernel_initializer=keras.initializers.HeNormal(seed + 2))
        self.activation = layers.LeakyReLU(0.2)

    def embed(self, x, training=False, dropout_seed=None):
        """[n, ...] -> [n, embedding_size]."""
        return self.embedding(drop(self.trunk(x, training=training), self.dropout, dropout_seed))

    def compare(self, query, positive, negative, training=False, dropout_seed=None):
        """Three [t, embedding_size] -> logits float32 [t]."""
        pairs = keras.ops.concatenate(
            [query * positive, query * negative, positive, negative], axis=-1
        )
        hidden = drop(self.activation(self.hidden(pairs)), self.dropout, dropout_seed)
        return self.logit(hidden)[:, 0]


class SourceClassDiscriminator(keras.Model):
    """D of DSH-GANs: is an item real, and of which class; from one trunk (section 3.2).

    dropout: as for the others.
    """

    def __init__(self, trunk: list[layers.Layer], class_count: int, dropout: float, seed: int):
        super().__init__(name="discriminator")
        self.trunk = keras.Sequential(trunk, name="trunk")
        self.dropout = dropout
        self.source = _logit(seed)
        self.classes = layers.Dense(
            class_count,
            kernel_initializer=dcgan_initializer(seed + 1),
            dtype="float32",
            name="classes",
        )

    def call(self, x, training=False, dropout_seed=None):
        """[n, ...] -> logits of being real, float32 [n], and of the classes, [n, C]."""
        hidden = drop(self.trunk(x, training=training), self.dropout, dropout_seed)
        return self.source(hidden)[:, 0], self.classes(hidden)


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
