"""The three streams of DSH-GANs on one shared CNN (Qiu et al., SIGIR 2017, Fig. 1)."""

from __future__ import annotations

import keras
from keras import layers

from tfhash.networks.generators import dcgan_initializer
from tfhash.networks.hash_layer import HashNetwork


class Streams(keras.Model):
    """Hash, adversary and classification stream: images to codes, source and classes.

    hash_network: the shared CNN with the hash stream, built. The other two are linear layers on
    what its hash layer sees, in float32.
    """

    def __init__(self, hash_network: HashNetwork, class_count: int, seed: int):
        super().__init__(name="streams", dtype="float32")
        self.hash_network = hash_network
        self.source = _logits(1, seed, "source")
        self.classes = _logits(class_count, seed + 1, "classes")
        for head in (self.source, self.classes):
            head.build((None, hash_network.width))
        self.built = True

    def call(self, inputs, training=False, dropout_seed=None):
        """[n, ...] -> codes [n, k] in (0, 1), logits of being real [n], of classes [n, C]."""
        return self._of(self.hash_network.features(inputs, training, dropout_seed))

    def above_backbone(self, features, training=False, dropout_seed=None):
        """The same of features [n, F] that the backbone of the CNN answered."""
        return self._of(self.hash_network.hidden(features, training, dropout_seed))

    def _of(self, features):
        logits = self.hash_network.scores_of(features, beside=(self.source, self.classes))
        code_length = self.hash_network.code_length
        codes = keras.ops.sigmoid(logits[:, :code_length])
        return codes, logits[:, code_length], logits[:, code_length + 1 :]


def _logits(units: int, seed: int, name: str) -> layers.Layer:
    initializer = dcgan_initializer(seed)
    return layers.Dense(units, kernel_initializer=initializer, dtype="float32", name=name)
