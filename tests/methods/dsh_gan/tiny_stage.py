"""DSH-GANs' stages with networks of a few weights, on vectors, and their losses of one image."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.methods.tiny_space import VectorSpace
from tfhash.methods.dsh_gan.config import DSHGANConfig
from tfhash.methods.dsh_gan.stage import HashStage, SemiSupervisedGAN
from tfhash.networks.discriminators import SourceClassDiscriminator
from tfhash.networks.hash_layer import HashNetwork
from tfhash.networks.streams import Streams

BITS, ITEM, GAN_ITEM, CLASSES, NOISE = 4, 6, 5, 3, 2
LABELLED, UNLABELLED, GROUPS = 5, 3, 2
# q p n of each group: q and p share a label below, q and n none, in both kinds of labels.
TRIPLETS = [[0, 1, 2], [1, 0, 3], [3, 4, 0]]
ONE_LABEL = np.eye(CLASSES, dtype=np.float32)[[0, 0, 1, 2, 2]]
SEVERAL_LABELS = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 1]], np.float32)
SEVERAL_LABELS_TRIPLETS = [[0, 1, 2], [1, 0, 3], [3, 4, 1]]

either_kind_of_labels = pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
either_form = pytest.mark.parametrize("minimax", [False, True], ids=["non_saturating", "minimax"])


class TinySpace(VectorSpace):
    """G and D see twice, and H one more than what the other one sees.

    G and D do not see the last number, and H gets 1 for it.
    """

    def __init__(self):
        super().__init__(ITEM, GAN_ITEM)

    def _to_gan(self, x):
        return for_d(x)

    def _synthetic(self, decoded, x):
        return tf.tanh(decoded)

    def _to_hash(self, synthetic):
        return for_h(synthetic)


def for_d(items):
    """What D sees of items of H, [..., ITEM]."""
    return 2.0 * items[..., :GAN_ITEM]


def for_h(synthetic):
    """What H sees of synthetic items, [..., GAN_ITEM]."""
    return tf.concat([synthetic, tf.zeros_like(synthetic[..., :1])], -1) + 1.0


def spread(network, seed):
    """Weights so large that every gradient shows: normal, of deviation 1/2."""
    rng = np.random.default_rng(seed)
    for variable in network.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return network


def make_generator(batch_norm=False):
    layers = [keras.Input((CLASSES + NOISE,))]
    layers += [keras.layers.Dense(GAN_ITEM, use_bias=not batch_norm)]
    layers += [keras.layers.BatchNormalization()] if batch_norm else []
    return spread(keras.Sequential(layers), 1)


def make_stage_1(several=False, **options):
    trunk = [keras.layers.Dense(5, "tanh")]
    discriminator = SourceClassDiscriminator(trunk, CLASSES, 0.0, 0)
    discriminator(tf.zeros((1, GAN_ITEM)))
    networks = {"generator": make_generator(), "discriminator": spread(discriminator, 2)}
    return compiled(
        SemiSupervisedGAN(
            networks, TinySpace(), DSHGANConfig(**options), multi_label=several, seed=0
        )
    )


def make_stage_2(several=False, generator=None, **options):
    backbone = keras.Sequential([keras.Input((ITEM,)), keras.layers.Dense(5, "tanh")])
    hash_network = HashNetwork(BITS, backbone)
    hash_network.build((None, ITEM))
    networks = {"streams": spread(Streams(hash_network, CLASSES, 0), 3)}
    config = DSHGANConfig(**options)
    if config.real_fraction < 1:
        networks["generator"] = generator or make_generator()
    return compiled(HashStage(networks, TinySpace(), config, multi_label=several, seed=0))


def compiled(stage):
    stage.compile(
        {
            name: (keras.optimizers.SGD(0.1), variables)
            for name, variables in stage.variables_by_optimizer().items()
        }
    )
    return stage


def make_batch(several=False, unlabelled=UNLABELLED):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return tf.constant(rng.normal(size=(GROUPS, *shape)), tf.float32)

    labels = SEVERAL_LABELS if several else ONE_LABEL
    triplets = SEVERAL_LABELS_TRIPLETS if several else TRIPLETS
    return {
        "images": normal(LABELLED, ITEM),
        "triplets": tf.constant([triplets] * GROUPS, tf.int32),
        "labels": tf.constant([labels, labels[:, ::-1]]),
        "unlabelled": normal(unlabelled, ITEM),
        "noise": normal(LABELLED + unlabelled, NOISE),
    }


def probability(logit):
    return 1 / (1 + np.exp(-np.float64(logit)))


def loss_of_source(logit, real):
    """l_a, Eq. 1, of one image."""
    return -np.log(probability(logit) if real else 1 - probability(logit))


def loss_of_class(logits, labels, several):
    """l_c, Eq. 5 or 6, of one image."""
    logits = np.asarray(logits, np.float64)
    if not several:
        (label,) = np.flatnonzero(labels)
        return -np.log(np.exp(logits[label]) / np.exp(logits).sum())
    chances = probability(logits)
    return -sum(np.log(p if label else 1 - p) for p, label in zip(chances, labels, strict=True))


def hits(logits, labels, several):
    if several:
        return np.mean((np.asarray(logits) > 0) == labels.astype(bool))
    return float(np.argmax(logits) == np.argmax(labels))


def synthesise(stage, labels, noise):
    """G([C, z]) of one image, as D sees it."""
    return np.tanh(stage.generator(np.concatenate([labels, noise])[None])[0].numpy())
