"""The hash functions of shallow methods as a layer, with what they have learned as its weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

_OURS = "tfhash."

Scores = Callable[..., tf.Tensor]  # features, parameters by name, options -> scores [n, k]


def linear_scores(features: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """features @ projection [F, k] + offset [k]: float32 [n, F] -> [n, k]."""
    return features @ parameters["projection"] + parameters["offset"]


@keras.saving.register_keras_serializable(package="tfhash")
class HashFunctions(keras.layers.Layer):
    """sigmoid(scores(x, parameters)): float32 [n, F] -> [n, k], parameters kept as weights.

    scores: a function at the top of a module of tfhash, which is saved by its name; shapes: those
    of its parameters, by name; options: its further arguments, plain values.
    """

    def __init__(
        self,
        scores: Scores,
        shapes: Mapping[str, Sequence[int]],
        options: Mapping[str, Any] | None = None,
        name: str = "hash_functions",
    ):
        super().__init__(dtype="float32", name=name)
        self.scores = scores
        self.shapes = {of: tuple(shape) for of, shape in shapes.items()}
        self.options = dict(options or {})
        self.parameters = {
            of: self.add_weight(shape, trainable=False, name=of)
            for of, shape in self.shapes.items()
        }
        self.built = True

    def call(self, features, training=False):
        # Above .5 where a score is positive, unless float32 cannot tell it from 0.
        return tf.sigmoid(self.scores(features, self.parameters, **self.options))

    def get_config(self) -> dict[str, Any]:
        if not self.scores.__module__.startswith(_OURS):
            raise ValueError(f"scores: {self.scores}; allowed in a file: functions of tfhash")
        return {
            "scores": f"{self.scores.__module__}:{self.scores.__name__}",
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "options": self.options,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HashFunctions:
        module, _, name = config["scores"].partition(":")
        if not module.startswith(_OURS):  # nothing else is imported because a file says so
            raise ValueError(f"scores: {config['scores']!r}; allowed: functions of tfhash")
        return cls(**{**config, "scores": getattr(importlib.import_module(module), name)})
