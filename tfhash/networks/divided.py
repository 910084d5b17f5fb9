"""The hash network of NINH: each bit has a slice of the features of its own (Lai et al., 2015)."""

from __future__ import annotations

from typing import Any

import keras

from tfhash.errors import UserError
from tfhash.networks.hash_layer import HashNetwork


@keras.saving.register_keras_serializable(package="tfhash")
class DividedDense(keras.layers.Layer):
    """Divide-and-encode: [N, k s] -> [N, k], unit j of the j-th slice of s inputs alone.

    y_j = f(sum_i slices[j, i] x[j s + i] + bias[j]), with f the activation: a dense layer whose
    kernel is block-diagonal, which has k s weights and not k² s.

    Args:
        units: k, the number of slices.
        activation: of each unit, by its name in Keras.

    ValueError at building where k does not divide the number of inputs.
    """

    def __init__(self, units: int, activation: str | None = None, **options: Any):
        super().__init__(**options)
        self.units = units
        self.activation = keras.activations.get(activation)

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "units": self.units, "activation": activation}

    def build(self, input_shape):
        size, rest = divmod(input_shape[-1], self.units)
        if rest:
            raise ValueError(
                f"inputs of width {input_shape[-1]} cannot be cut into {self.units} equal slices"
            )
        # Each slice starts as a dense layer of one unit does. Of the whole kernel, Keras would take
        # the number of slices for that of inputs.
        limit = (6 / (size + 1)) ** 0.5
        uniform = keras.initializers.RandomUniform(-limit, limit)
        self.slices = self.add_weight(shape=(self.units, size), initializer=uniform, name="slices")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.built = True

    @property
    def kernel(self):
        """The block-diagonal matrix [k s, k] that the slices make."""
        blocks = self.slices[:, :, None] * keras.ops.eye(self.units)[:, None, :]
        return keras.ops.reshape(blocks, (-1, self.units))

    def call(self, inputs):
        return self.activation(keras.ops.matmul(inputs, self.kernel) + self.bias)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)


@keras.saving.register_keras_serializable(package="tfhash")
class DividedHashNetwork(HashNetwork):
    """A HashNetwork whose hash layer is block-diagonal: bit j sees the j-th slice alone.

    Arguments as for `HashNetwork`. What the hash layer sees, the last of `hidden_units` or else the
    features themselves, must be a multiple of code_length; UserError at building where it is none.
    """

    def make_hash_layer(self) -> DividedDense:
        return DividedDense(
            self.code_length, activation="sigmoid", dtype="float32", name="hash_layer"
        )

    def build(self, input_shape):
        width = input_shape[-1] if self.backbone is None else self.backbone.output_shape[-1]
        if self.hidden_layers:
            width = self.hidden_layers[-1].units
        if width % self.code_length:
            raise UserError(
                f"`code_length`: {self.code_length} bits of {width} features; allowed: a length "
                "that divides them, for each bit has a slice of its own"
            )
        super().build(input_shape)
