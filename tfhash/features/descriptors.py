"""Descriptors of images as networks: from RGB pixels to features, inside the graph."""

from __future__ import annotations

import keras
from keras import layers

from tfhash.features import gist

PIXEL_SIDE = 32  # that larger images are reduced to: 3,072 features are as many as are of use


def pixels(image_size: int) -> keras.Model:
    """RGB images [n, S, S, 3] in [0, 255] -> their values in [0, 1], at most 32 px a side."""
    images = keras.Input((image_size, image_size, 3), name="images")
    x = layers.Rescaling(1 / 255, dtype="float32")(images)
    if image_size > PIXEL_SIDE:
        x = layers.AveragePooling2D(image_size // PIXEL_SIDE)(x)
        x = layers.Resizing(PIXEL_SIDE, PIXEL_SIDE)(x)
    return keras.Model(images, layers.Flatten()(x), name="pixels")


def gist_of(image_size: int, size: int | None = None) -> keras.Model:
    """RGB images [n, S, S, 3] in [0, 255] -> their 512 GIST values; size: see `gist.gist`.

    By default the images' own side, to the next multiple of 4, and at least 32.
    """
    images = keras.Input((image_size, image_size, 3), name="images")
    size = size or max(4 * -(-image_size // 4), 32)
    return keras.Model(images, Gist(size)(images), name="gist")


@keras.saving.register_keras_serializable(package="tfhash")
class Gist(layers.Layer):
    """`gist.gist` as a layer."""

    def __init__(self, size: int, name: str = "gist", **kwargs):
        super().__init__(name=name, **{"dtype": "float32", **kwargs})
        gist.check_size(size)
        self.size = size

    def call(self, images):
        return gist.gist(images, self.size)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], gist.DIMENSION)

    def get_config(self):  # by which cached features are told apart
        return {**super().get_config(), "size": self.size}
