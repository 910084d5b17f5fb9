"""SSGAH's stage with networks of a few weights, on vectors."""

import keras
import numpy as np
import tensorflow as tf

from tests.methods.tiny_space import VectorSpace
from tfhash.methods.ssgah.config import RANKINGS, SSGAHConfig
from tfhash.methods.ssgah.stage import SSGAHStage
from tfhash.networks.hash_layer import HashNetwork, linear_head

BITS, ITEM, GAN_ITEM, CONDITION, NOISE = 4, 6, 5, 3, 2


class TinySpace(VectorSpace):
    """G and D see all but the last number, and H gets 0 for it."""

    def __init__(self):
        super().__init__(ITEM, GAN_ITEM)

    def _to_gan(self, x):
        return x[..., :GAN_ITEM]

    def _synthetic(self, decoded, x):
        return decoded if x is None else x + decoded

    def _to_hash(self, synthetic):
        return for_h(synthetic)


def for_h(synthetic):
    """What H sees of synthetic items [..., GAN_ITEM]."""
    return tf.concat([synthetic, tf.zeros_like(synthetic[..., :1])], -1)


class Dense(keras.layers.Dense):
    """A dense layer that takes what a HashNetwork is called with."""

    def call(self, inputs, training=False, dropout_seed=None):
        return super().call(inputs)


class Condition(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2 * CONDITION)

    def call(self, x, training=False):
        return keras.ops.split(self.dense(x), 2, axis=-1)


class Discriminator(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def embed(self, x, training=False, dropout_seed=None):
        return x

    def compare(self, query, positive, negative, training=False, dropout_seed=None):
        return self.dense(keras.ops.concatenate([query * positive, query * negative], -1))[:, 0]

    def call(self, x):
        return self.compare(*x)


def make_stage(
    variant="ssgah",
    *,
    rankings=None,
    train_gan=None,
    weight_ssr=1.0,
    class_count=0,
    multi_label=False,
    **options,
):
    """class_count: of the classification stream; 0 for none."""
    keras.utils.set_random_seed(0)
    networks = {
        "hash_network": Dense(BITS, "sigmoid"),
        "condition": Condition(),
        "generator_p": Dense(GAN_ITEM),
        "generator_n": Dense(GAN_ITEM),
        "discriminator": Discriminator(),
    }
    if class_count:
        networks["hash_network"] = HashNetwork(BITS)
        initializer = keras.initializers.GlorotUniform(1)
        networks["classes"] = linear_head("classes", ITEM, class_count, initializer)
    networks["hash_network"].build((None, ITEM))
    for generator in ("generator_p", "generator_n"):
        networks[generator].build((None, CONDITION + NOISE))
    networks["condition"](tf.zeros((1, GAN_ITEM)))
    networks["discriminator"]((tf.zeros((1, GAN_ITEM)),) * 3)
    config = SSGAHConfig(**options)
    if not config.condition:
        del networks["condition"]
    stage = SSGAHStage(
        networks,
        TinySpace(),
        config,
        rankings=RANKINGS[variant] if rankings is None else rankings,
        train_gan=variant in ("ssgah", "w_ar") if train_gan is None else train_gan,
        weight_ssr=weight_ssr,
        code_length=BITS,
        seed=0,
        multi_label=multi_label,
    )
    stage.compile(
        {
            name: (keras.optimizers.SGD(0.1), variables)
            for name, variables in stage.variables_by_optimizer().items()
        }
    )
    return stage


def make_batch(groups=2, labelled=5, unlabelled=3):
    rng = np.random.default_rng(0)
    return {
        "images": tf.constant(rng.normal(size=(groups, labelled, ITEM)), tf.float32),
        "unlabelled": tf.constant(rng.normal(size=(groups, unlabelled, ITEM)), tf.float32),
        "triplets": tf.constant([[[0, 1, 2], [3, 4, 0], [1, 0, 3]]] * groups, tf.int32),
        "noise": tf.constant(
            rng.normal(size=(groups, labelled + unlabelled, CONDITION + NOISE)), tf.float32
        ),
    }
