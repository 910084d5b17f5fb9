"""The tf.distribute strategies that a flag can name, and the precision that networks compute in."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf

STRATEGIES = ("one_device", "mirrored", "multi_worker")


@functools.cache
def make_strategy(name: str) -> tf.distribute.Strategy:
    """The tf.distribute strategy of a name; multi_worker reads TF_CONFIG, as TensorFlow does."""
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Layers that are made inside compute by a Keras dtype policy; afterwards it is as before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
