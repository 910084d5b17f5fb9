"""The hash network of BGDH (Yan, Zhang, Li, IJCAI 2017): features beside an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfhash.networks.hash_layer import HashNetwork


@keras.saving.register_keras_serializable(package="tfhash")
class EmbeddingHashNetwork(HashNetwork):
    """A HashNetwork whose hash layer sees, beside what it sees else, a layer of an embedding e(x).

    H(x) = sigmoid(W [h(f(x)); g(e(x))] + b): f(x) is the backbone's features and h its hidden
    layers, as in HashNetwork; e(x), [N, embedding_size], is linear in a ReLU layer of f(x), and g
    is a ReLU layer. An embedding is float32 under every policy.

    Args:
        embedding_size: the length of e(x).
        embedding_units: the width of the ReLU layer under e(x).
        branch_units: the width of g.
        Others are those of HashNetwork.
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
        *,
        embedding_size: int = 100,
        embedding_units: int = 256,
        branch_units: int = 128,
    ):
        super().__init__(code_length, backbone, hidden_units, dropout, name, hidden_dtype, mirrored)
        dense = keras.layers.Dense
        self.embedding_hidden = dense(
            embedding_units, activation="relu", dtype=hidden_dtype, name="embedding_hidden"
        )
        self.embedding = dense(embedding_size, dtype="float32", name="embedding")
        self.branch = dense(branch_units, activation="relu", dtype=hidden_dtype, name="branch")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dtype": self.branch.dtype_policy.name,
            "embedding_size": self.embedding.units,
            "embedding_units": self.embedding_hidden.units,
            "branch_units": self.branch.units,
        }

    def build(self, input_shape):
        seen = input_shape[-1] if self.backbone is None else self.backbone.output_shape[-1]
        width = seen
        for layer in self.hidden_layers:
            layer.build((None, width))
            width = layer.units
        self.embedding_hidden.build((None, seen))
        self.embedding.build((None, self.embedding_hidden.units))
        self.branch.build((None, self.embedding.units))
        self.hash_layer.build((None, width + self.branch.units))
        self.built = True

    def features(self, inputs, training: bool = False, dropout_seed: tf.Tensor | None = None):
        """What the hash layer sees, [h(f(x)); g(e(x))], float32 [N, width]."""
        return self.features_and_embeddings(inputs, training, dropout_seed)[0]

    def features_and_embeddings(
        self,
        inputs,
        training: bool = False,
        dropout_seed: tf.Tensor | None = None,
        embeddings_reach_backbone: bool = True,
    ):
        """`features`, and e(x), float32 [N, embedding_size]: arguments as for the whole network.

        embeddings_reach_backbone: whether the embeddings that are answered have a gradient for the
        backbone, if there is one; those in the features always have.
        """
        seen = inputs if self.backbone is None else self.backbone(inputs, training=False)
        features, embeddings = self._of_seen(seen, training, dropout_seed)
        if self.backbone is not None and not embeddings_reach_backbone:
            embeddings = self._embed(keras.ops.stop_gradient(seen))
        return features, embeddings

    def hidden(self, features, training: bool = False, dropout_seed: tf.Tensor | None = None):
        """The same of features [N, F] that a backbone answered."""
        return self._of_seen(features, training, dropout_seed)[0]

    def _of_seen(self, seen, training: bool, dropout_seed: tf.Tensor | None):
        hidden = seen
        for layer in self.hidden_layers:
            hidden = layer(hidden)
        embeddings = self._embed(seen)
        parts = [keras.ops.cast(part, "float32") for part in (hidden, self.branch(embeddings))]
        features = keras.ops.concatenate(parts, axis=-1)
        if training:
            features = self.dropped(features, dropout_seed)
        return features, embeddings

    def _embed(self, seen):
        return self.embedding(self.embedding_hidden(seen))
