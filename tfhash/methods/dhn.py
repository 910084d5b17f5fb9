"""DHN, the deep hashing network for efficient similarity retrieval (Zhu et al., AAAI 2016).

Of the forms in circulation this is the paper's, as we remember it: the likelihood of all pairs of
images, none weighted, of z = tanh(u), and log cosh(|z| - 1) of every bit. Two things are from a
public port of it (swuxyj's DHN.py): `inner_scale`, a half of z'z where the paper has z'z, and means
over pairs and over bits where the paper has sums, with `weight_quantisation` .1; from the paper's
lambda this is lambda k / n with n images. Pairs are those within a batch.

The form that the authors' laboratory released (thulab's DeepHash) is another one: it weights the
pairs, which `balanced_pairs` does here too, normalises or clips inner products, and has the
square of |z| - 1. Its layers also learn at several rates, here they share one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tfhash import losses
from tfhash.data.learning import LearningData
from tfhash.data.pairs import InBatchPairs
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.hashers.deep_settings import HashConfig
from tfhash.networks.hash_layer import HashNetwork
from tfhash.settings import setting
from tfhash.training.groups import grouped, items_of, ungrouped
from tfhash.training.stage import Stage

TERMS = ("loss", "pairs", "quantisation", "similar_share")


@dataclass(frozen=True)
class DHNConfig(HashConfig):
    """Hyperparameters."""

    inner_scale: float = setting(
        0.5, "factor of the inner product of two images' z", above=0, search=(0.1, 0.5, 1.0)
    )
    balanced_pairs: bool = setting(
        False,
        "a pair that shares a label weighs as many times more as there are pairs for each of "
        "these; the paper weighs each pair alike",
        search=(False, True),
    )
    weight_quantisation: float = setting(
        0.1,
        "weight of what draws z to -1 or 1, the paper's lambda",
        least=0,
        search=(0.01, 0.1, 1.0),
    )


@tf.custom_gradient
def inner_products(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """z_i'z_j of all items of each group: [B, m, k] -> [B, m, m].

    Its gradient is one product and not two. With that of the quantisation z would get three, and
    TensorFlow adds three in no fixed order, so that a run would not repeat bit for bit.
    """

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return tf.matmul(upstream + tf.linalg.matrix_transpose(upstream), z)

    return tf.matmul(z, z, transpose_b=True), gradient


def of_pairs(matrices: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
    """What matrices [B, m, m] have at pairs int32 [B, p, 2] of positions: [B, p]."""
    count = matrices.shape[-1]
    flat = tf.reshape(matrices, [-1, count * count])
    return tf.gather(flat, pairs[..., 0] * count + pairs[..., 1], batch_dims=1)


def balance(similar: tf.Tensor) -> tf.Tensor:
    """Weights of pairs: p / p_s for one of the p_s similar ones of a group, else 1 (thulab).

    similar: 1.0 or 0.0, [B, p] -> [B, p]. A group without similar pairs has 1 alone.
    """
    count = tf.cast(tf.shape(similar)[1], tf.float32)
    of_similar = count / tf.maximum(tf.reduce_sum(similar, axis=1, keepdims=True), 1.0)
    return 1 - similar + similar * of_similar


def quantisation_loss(z: tf.Tensor) -> tf.Tensor:
    """log cosh(|z| - 1), a smooth | |z| - 1 |, of each: [...] -> [...] (DHN's Q).

    log cosh x = x + log(1 + exp(-2x)) - log 2, which no x makes overflow.
    """
    x = tf.abs(z) - 1
    return x + tf.nn.softplus(-2 * x) - math.log(2)


class PairStage(Stage):
    """The one stage: pairs + `weight_quantisation` x quantisation, of z = tanh of H's scores."""

    def __init__(self, hash_network: HashNetwork, config: DHNConfig, seed: int):
        super().__init__({"hash_network": hash_network}, TERMS, seed)
        self.config = config

    def forward(self, batch):
        x, pairs = items_of(batch, "images"), batch["pairs"]
        seed = self.step_seed(0)
        scores = self.hash_network.scores(ungrouped(x), training=True, dropout_seed=seed)
        z = grouped(tf.tanh(scores), x)
        similar = of_pairs(losses.similar_pairs(batch["labels"], batch["labels"]), pairs)
        theta = self.config.inner_scale * of_pairs(inner_products(z), pairs)
        of_pair = losses.pair_likelihood(theta, similar)
        if self.config.balanced_pairs:
            of_pair *= balance(similar)
        terms = {
            "pairs": tf.reduce_mean(of_pair),
            "quantisation": tf.reduce_mean(quantisation_loss(z)),
            "similar_share": tf.reduce_mean(similar),
        }
        loss = terms["pairs"] + self.config.weight_quantisation * terms["quantisation"]
        return {"loss": loss, **terms}


class DHN(HashNetworkHasher):
    """H trained with which of two labelled images share a label, over all pairs of a batch."""

    Config = DHNConfig
    config: DHNConfig
    paper_backbones = ("alexnet",)
    takes_triplets = False

    def make_sampler(self, data: LearningData) -> InBatchPairs:
        return InBatchPairs(data.labels[data.labelled], self.settings.group_size)

    def make_stage(self, data: LearningData) -> Stage:
        return PairStage(self.hash_network, self.config, self.seed)
