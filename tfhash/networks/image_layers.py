"""Keras layers that pretrained image networks need and Keras does not have.

What works on pixels computes in float32, whatever the mixed-precision policy: bfloat16 holds the
integers up to 256, but not the values between them that a generator gives.
"""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfhash")
class BgrMeanSubtraction(keras.layers.Layer):
    """Turns RGB images [N, H, W, 3] in [0, 255] into Caffe's input: BGR minus [104, 117, 123]."""

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, images):
        return images[..., ::-1] - tf.constant([104.0, 117.0, 123.0])


@keras.saving.register_keras_serializable(package="tfhash")
class ApplicationPreprocessing(keras.layers.Layer):
    """Applies `keras.applications.<module>.preprocess_input` to RGB images in [0, 255]."""

    def __init__(self, module: str, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.module = module

    def call(self, images):
        return getattr(keras.applications, self.module).preprocess_input(images)

    def get_config(self):
        return {**super().get_config(), "module": self.module}


@keras.saving.register_keras_serializable(package="tfhash")
class LocalResponseNormalization(keras.layers.Layer):
    """AlexNet's normalisation across 5 channels: x / (1 + 1e-4 / 5 * sum x^2) ^ 0.75.

    Krizhevsky et al., NIPS 2012, with the parameters of Caffe's bvlc_alexnet. Caffe divides alpha
    by the window's size, TensorFlow does not.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, features):
        return tf.nn.local_response_normalization(
            features, depth_radius=2, bias=1.0, alpha=1e-4 / 5, beta=0.75
        )


@keras.saving.register_keras_serializable(package="tfhash")
class GroupedConv2D(keras.layers.Conv2D):
    """Conv2D that convolves its groups one by one.

    That of Keras puts a convolution with groups under jit_compile, which TF Serving refuses to run.
    """

    def convolution_op(self, inputs, kernel):
        convolve = super().convolution_op
        groups = zip(
            keras.ops.split(inputs, self.groups, -1),
            keras.ops.split(kernel, self.groups, -1),
            strict=True,
        )
        return keras.ops.concatenate([convolve(x, k) for x, k in groups], -1)
