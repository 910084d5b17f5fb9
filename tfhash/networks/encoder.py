"""The encoder of a hasher that works on features: from an image to its code, in one graph."""

from __future__ import annotations

from typing import Any

import keras

from tfhash.networks.features import Standardise
from tfhash.networks.hash_layer import mean_with_mirrored


@keras.saving.register_keras_serializable(package="tfhash")
class FeatureEncoder(keras.Model):
    """RGB images [n, S, S, 3] in [0, 255] -> activations float32 [n, k] in [0, 1].

    backbone: images to features [n, F]; standardise: brings them to one scale; hash_network: scaled
    features to activations, a `HashNetwork` or `HashFunctions`. mirrored: as of a `HashNetwork`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        standardise: Standardise,
        hash_network: keras.layers.Layer,
        name: str = "encoder",
        mirrored: bool = False,
    ):
        super().__init__(name=name, dtype="float32")
        self.backbone = backbone
        self.standardise = standardise
        self.hash_network = hash_network
        self.mirrored = mirrored
        self.built = True

    def call(self, images, training=False):
        if self.mirrored and not training:
            return mean_with_mirrored(lambda x: self._answers(x, training), images)
        return self._answers(images, training)

    def _answers(self, images, training: bool):
        features = keras.ops.cast(self.backbone(images, training=False), "float32")
        return self.hash_network(self.standardise(features), training=training)

    def get_config(self) -> dict[str, Any]:
        parts = ("backbone", "standardise", "hash_network")
        serialized = {
            part: keras.saving.serialize_keras_object(getattr(self, part)) for part in parts
        }
        return {"name": self.name, "mirrored": self.mirrored, **serialized}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureEncoder:
        plain = {name: config.pop(name) for name in ("name", "mirrored") if name in config}
        parts = {
            part: keras.saving.deserialize_keras_object(value) for part, value in config.items()
        }
        return cls(**parts, **plain)
