"""The tf.distribute strategies that a flag can name, and the precision that networks compute in."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf

from tfhash.training import workers

STRATEGIES = ("one_device", "mirrored", "multi_worker")


_met: list[tf.distribute.Strategy] = []  # the one of the workers, once they have met


def start_strategy(name: str, wait: float) -> None:
    """What a strategy needs before the first operation of a process: workers have to meet.

    wait: seconds for the others to come. Errors as `workers.meet`.
    """
    if name == "multi_worker" and not _met:
        _met.append(workers.meet(wait))


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The tf.distribute strategy of a name.

    multi_worker is that of one device in a process that has not met others: it reads what they
    have trained.
    """
    if name == "mirrored":
        return _mirrored()
    if name == "multi_worker" and _met:
        return _met[0]
    return tf.distribute.get_strategy()


@functools.cache
def _mirrored() -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy()


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Layers that are made inside compute by a Keras dtype policy; afterwards it is as before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
