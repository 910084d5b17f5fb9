"""What G_p and G_n of SSGAH make of images (Wang et al., ECCV 2018, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfhash import losses
from tfhash.hashers.gan_spaces import GANSpace


def synthesise(
    space: GANSpace,
    condition: keras.Model | None,
    generators: Sequence[keras.Model],
    x: tf.Tensor,
    noise: tf.Tensor,
    *,
    residual: bool,
    training: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """G_p(x), G_n(x) and the KL term of each item (SSGAH, section 3.1).

    generators: G_p, G_n; x [n, ...]; noise [n, d], normal: first the part by which c is drawn from
    N(mu, Sigma), then z. Without a condition module c is that part itself, and the KL term 0.
    Answers [n, ...] twice, and float32 [n].
    """
    generator_p, generator_n = generators
    x = space.to_gan(x)
    c_and_z, kl = noise, tf.zeros(tf.shape(noise)[:1])
    if condition is not None:
        mean, log_variance = condition(x, training=training)
        epsilon, z = tf.split(noise, [mean.shape[-1], -1], axis=-1)
        c_and_z = tf.concat([mean + tf.exp(0.5 * log_variance) * epsilon, z], axis=-1)
        kl = losses.kl_to_standard_normal(mean, log_variance)
    positive = generator_p(c_and_z, training=training)
    positive = space.synthetic(positive, x if residual else None)
    negative = space.synthetic(generator_n(c_and_z, training=training))
    return positive, negative, kl


def with_shape(items: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Items [n, *shape], checked, and so is their gradient.

    Either check keeps Grappler from merging the scale of a space, 127.5, with that of a backbone,
    1 / 127.5: then synthetic items are rounded as real ones are, and runs repeat older ones.
    """

    @tf.custom_gradient
    def check(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.ensure_shape(x, [None, *shape]), lambda g: tf.ensure_shape(g, [None, *shape])

    return check(items)
