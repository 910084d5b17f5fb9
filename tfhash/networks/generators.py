"""Generators of all methods with a GAN, and SSGAH's condition module, of images and of features.

Images are in [-1, 1]. The image networks follow DCGAN: strided convolutions, batch normalisation,
ReLU in the generator and LeakyReLU elsewhere, weights from N(0, .02). Batch statistics are taken
over all replicas of a strategy, so that the number of replicas does not change the result. The
condition module differs in one point: it has no batch normalisation, of which the paper says
nothing, so that a condition tells of its own image alone and not of those beside it.
"""

from __future__ import annotations

import keras
from keras import layers

from tfhash.errors import UserError

IMAGE_SIZES = (16, 32, 64)


def dcgan_initializer(seed: int) -> keras.initializers.Initializer:
    """N(0, .02), DCGAN's."""
    return keras.initializers.RandomNormal(0.0, 0.02, seed=seed)


def halvings(image_size: int) -> int:
    """How many halvings lead from image_size to 4 px: 2, 3, 4 for 16, 32, 64 px."""
    if image_size not in IMAGE_SIZES:
        raise UserError(f"gan_size: {image_size}; allowed: {IMAGE_SIZES}")
    return image_size.bit_length() - 3


def convolution_stack(image_size: int, width: int, seed: int, batch_norm: bool) -> list:
    """DCGAN's encoder: `halvings` strided convolutions of width, 2 width, ... filters to 4 px.

    The first has no batch normalisation, as in DCGAN.
    """
    stack: list[layers.Layer] = []
    for level in range(halvings(image_size)):
        stack.append(
            layers.Conv2D(
                width * 2**level, 4, 2, "same", kernel_initializer=dcgan_initializer(seed + level)
            )
        )
        if batch_norm and level:
            stack.append(layers.BatchNormalization(momentum=0.9, synchronized=True))
        stack.append(layers.LeakyReLU(0.2))
    return stack


class ConditionModule(keras.Model):
    """x -> mean and log variance of the condition c ~ N(mu(nu), Sigma(nu)) (SSGAH, section 3.1).

    trunk: the layers from x to nu. Answers two float32 [n, size].
    """

    def __init__(self, trunk: list[layers.Layer], size: int, seed: int):
        super().__init__(name="condition")
        self.trunk = keras.Sequential(trunk, name="trunk")
        self.heads = layers.Dense(
            2 * size,
            kernel_initializer=dcgan_initializer(seed),
            dtype="float32",
            name="mean_log_variance",
        )

    def call(self, x, training=False):
        mean, log_variance = keras.ops.split(self.heads(self.trunk(x, training=training)), 2, -1)
        # Bounded, so that exp never overflows; e^±8 is far outside of what the KL term allows.
        return mean, keras.ops.clip(log_variance, -8.0, 8.0)


def image_condition(image_size: int, width: int, size: int, seed: int) -> ConditionModule:
    """The condition module on images [n, S, S, 3] in [-1, 1]."""
    trunk = [
        *convolution_stack(image_size, width, seed, batch_norm=False),
        layers.Flatten(),
        layers.Dense(4 * width, kernel_initializer=dcgan_initializer(seed + 10), name="nu"),
        layers.LeakyReLU(0.2),
    ]
    return ConditionModule(trunk, size, seed + 11)


def image_generator(image_size: int, width: int, seed: int, name: str) -> keras.Model:
    """[c, z], float32 [n, d], -> images float32 [n, S, S, 3], before their tanh."""
    levels = halvings(image_size)
    stack: list[layers.Layer] = [
        layers.Dense(
            16 * width * 2 ** (levels - 1),
            use_bias=False,
            kernel_initializer=dcgan_initializer(seed),
        ),
        layers.Reshape((4, 4, width * 2 ** (levels - 1))),
    ]
    for level in reversed(range(levels)):
        stack += [
            layers.BatchNormalization(momentum=0.9, synchronized=True),
            layers.ReLU(),
            layers.Conv2DTranspose(
                width * 2 ** (level - 1) if level else 3,
                4,
                2,
                "same",
                kernel_initializer=dcgan_initializer(seed + 1 + level),
            ),
        ]
    stack.append(layers.Activation("linear", dtype="float32"))
    return keras.Sequential(stack, name=name)


def feature_condition(width: int, size: int, seed: int) -> ConditionModule:
    """The condition module on standardised features [n, F]."""
    trunk = [
        layers.Dense(width, kernel_initializer=keras.initializers.HeNormal(seed), name="nu"),
        layers.LeakyReLU(0.2),
    ]
    return ConditionModule(trunk, size, seed + 1)


def feature_generator(features: int, width: int, seed: int, name: str) -> keras.Model:
    """[c, z], float32 [n, d], -> standardised features float32 [n, F]."""
    return keras.Sequential(
        [
            layers.Dense(width, kernel_initializer=keras.initializers.HeNormal(seed)),
            layers.LeakyReLU(0.2),
            layers.Dense(width, kernel_initializer=keras.initializers.HeNormal(seed + 1)),
            layers.LeakyReLU(0.2),
            layers.Dense(
                features,
                kernel_initializer=keras.initializers.GlorotNormal(seed + 2),
                dtype="float32",
            ),
        ],
        name=name,
    )
