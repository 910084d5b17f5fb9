"""The hash network H of all deep methods: a backbone and k sigmoid units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.networks.dropout import drop


@keras.saving.register_keras_serializable(package="tfhash")
class HashNetwork(keras.Model):
    """Images to k activations in (0, 1), one a bit: H(x) = sigmoid(W f(x) + b), Eq. 2 of SSGAH.

    f(x) is the backbone's features, passed through `hidden_units` dense ReLU layers if there are
    any. The hash layer computes in float32 under every mixed-precision policy, so that
    B(x) = [H(x) > 0.5] does not hang on a rounding.

    The backbone always runs in inference mode: its batch normalisation uses the stored statistics,
    so a code depends on nothing but its image, and its own dropout, whose state no checkpoint
    keeps, is off.

    Args:
        code_length: k, the number of bits, at least 1.
        backbone: a model from images [N, H, W, 3] in [0, 255] to features [N, F]; None: the inputs
            are features.
        hidden_units: the width of each hidden layer.
        dropout: the share, in [0, 1), of the hash layer's inputs that training drops.
        hidden_dtype: the dtype policy of the hidden layers, by default the global one.
        mirrored: outside of training the answer is the mean of H(x) and of H of x mirrored left to
            right; not where the inputs are features.
    """

    def __init__(
        self,
        code_length: int,
        backbone: keras.Model | None = None,
        hidden_units: Sequence[int] = (),
        dropout: float = 0.0,
        name: str = "hash_network",
        hidden_dtype: str | None = None,
        mirrored: bool = False,
    ):
        if code_length < 1:
            raise UserError(f"`code_length`: {code_length}; allowed: at least 1 bit")
        if not 0 <= dropout < 1:
            raise UserError(f"`dropout`: {dropout}; allowed: at least 0 and below 1")
        if mirrored and backbone is None:
            raise UserError("`mirrored`: True; allowed with a backbone, for features are no images")
        # A float32 model hands images on as they are; the backbone has a policy of its own.
        super().__init__(name=name, dtype="float32")
        self.code_length = code_length
        self.backbone = backbone
        self.dropout = dropout
        self.mirrored = mirrored
        self.hidden_layers = [
            keras.layers.Dense(units, activation="relu", dtype=hidden_dtype, name=f"hidden{number}")
            for number, units in enumerate(hidden_units, start=1)
        ]
        self.hash_layer = self.make_hash_layer()

    def make_hash_layer(self) -> keras.layers.Layer:
        """The k units, not built: a layer with `units`, `kernel` and `bias` as a dense one has."""
        return keras.layers.Dense(
            self.code_length, activation="sigmoid", dtype="float32", name="hash_layer"
        )

    def get_config(self) -> dict[str, Any]:
        backbone = self.backbone
        return {
            "code_length": self.code_length,
            "backbone": backbone and keras.saving.serialize_keras_object(backbone),
            "hidden_units": [layer.units for layer in self.hidden_layers],
            "dropout": self.dropout,
            "name": self.name,
            "hidden_dtype": self.hidden_layers[0].dtype_policy.name if self.hidden_layers else None,
            "mirrored": self.mirrored,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HashNetwork:
        backbone = config["backbone"] and keras.saving.deserialize_keras_object(config["backbone"])
        return cls(**{**config, "backbone": backbone})

    def build(self, input_shape):
        width = input_shape[-1] if self.backbone is None else self.backbone.output_shape[-1]
        for layer in (*self.hidden_layers, self.hash_layer):
            layer.build((None, width))
            width = layer.units
        self.built = True

    def call(self, inputs, training: bool = False, dropout_seed: tf.Tensor | None = None):
        """Images [N, H, W, 3], or features [N, F], to activations, float32 [N, k] in (0, 1).

        `dropout_seed`, int32 [2], fixes the dropped units, so that a resumed run repeats an
        uninterrupted one; ValueError without it when training with dropout.
        """
        if self.mirrored and not training:
            return mean_with_mirrored(lambda x: self.hash_layer(self.features(x)), inputs)
        return self.hash_layer(self.features(inputs, training, dropout_seed))

    def scores(
        self,
        inputs,
        training: bool = False,
        dropout_seed: tf.Tensor | None = None,
        beside: Sequence[keras.layers.Dense] = (),
    ):
        """What the sigmoid is taken of, float32 [N, k]: a bit is 1 where its score is positive.

        beside: built linear layers on the same features, whose answers follow the k scores. All
        come of one product, so that the features get one gradient: TensorFlow adds three in
        whichever order their memory is free, and a run would not repeat bit for bit.
        """
        return self.scores_of(self.features(inputs, training, dropout_seed), beside)

    def scores_of(self, features, beside: Sequence[keras.layers.Dense] = ()):
        """The same of features [N, width] that `features` answered."""
        features = keras.ops.cast(features, "float32")
        heads = (self.hash_layer, *beside)
        kernel = keras.ops.concatenate([head.kernel for head in heads], axis=1)
        bias = keras.ops.concatenate([head.bias for head in heads])
        return keras.ops.matmul(features, kernel) + bias

    @property
    def width(self) -> int:
        """How many numbers the hash layer sees of an image, once it is built."""
        return self.hash_layer.kernel.shape[0]

    def features(self, inputs, training: bool = False, dropout_seed: tf.Tensor | None = None):
        """What the hash layer sees, float [N, width]: arguments as for the whole network."""
        features = inputs if self.backbone is None else self.backbone(inputs, training=False)
        return self.hidden(features, training, dropout_seed)

    def hidden(self, features, training: bool = False, dropout_seed: tf.Tensor | None = None):
        """The same of features [N, F] that a backbone answered."""
        for layer in self.hidden_layers:
            features = layer(features)
        return self.dropped(features, dropout_seed) if training else features

    def above_backbone(
        self, features, training: bool = False, dropout_seed: tf.Tensor | None = None
    ):
        """Features [N, F] of the backbone to activations; arguments as for the whole network."""
        return self.hash_layer(self.hidden(features, training, dropout_seed))

    def dropped(self, features, dropout_seed: tf.Tensor | None):
        """Features [N, width] after the dropout of training; arguments as for the whole network."""
        if not self.dropout:
            return features
        if dropout_seed is None:
            raise ValueError("dropout_seed: None is not allowed when training with dropout")
        return drop(features, self.dropout, dropout_seed)


def mean_with_mirrored(network: Callable[[Any], tf.Tensor], images) -> tf.Tensor:
    """(f(x) + f(x mirrored left to right)) / 2, of images [N, H, W, C] and f from images to [N, k].

    f gets one batch of both, so that the graph of an export holds it once.
    """
    both = keras.ops.concatenate([images, keras.ops.flip(images, axis=2)], axis=0)
    plain, mirrored = keras.ops.split(network(both), 2, axis=0)
    return (plain + mirrored) / 2


def linear_head(
    name: str, width: int, units: int, initializer: keras.initializers.Initializer
) -> keras.layers.Dense:
    """A built linear layer [N, width] -> float32 [N, units], e.g. logits of classes beside H."""
    head = keras.layers.Dense(units, kernel_initializer=initializer, dtype="float32", name=name)
    head.build((None, width))
    return head
