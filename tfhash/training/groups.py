"""Groups of items: a batch is [B, j, ...], B groups, so that replicas can share it by its groups.

Networks and spaces take flat items [n, ...]; these functions lead there and back.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf


def items_of(batch: Mapping[str, tf.Tensor], *names: str) -> tf.Tensor:
    """The labelled and the unlabelled items of a batch, float32 [B, m + u, ...]."""
    return tf.cast(tf.concat([batch[name] for name in names], axis=1), tf.float32)


def ungrouped(groups: tf.Tensor) -> tf.Tensor:
    """[B, j, ...] -> [B j, ...]."""
    return tf.reshape(groups, [-1, *groups.shape[2:]])


def grouped(items: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """[B j, ...] -> [B, j, ...], with the j of `like`."""
    return tf.reshape(items, [-1, like.shape[1], *items.shape[1:]])


def share(true: tf.Tensor) -> tf.Tensor:
    """How many of them are true, in [0, 1]."""
    return tf.reduce_mean(tf.cast(true, tf.float32))


def bit_balance(ones: tf.Tensor) -> tf.Tensor:
    """Mean over bits of abs(share of ones - .5), 0 to .5: bool [..., k] -> a scalar."""
    shares = tf.reduce_mean(tf.cast(ones, tf.float32), axis=list(range(len(ones.shape) - 1)))
    return tf.reduce_mean(tf.abs(shares - 0.5))
