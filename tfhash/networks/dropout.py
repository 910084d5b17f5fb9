"""Dropout that is the same at each repetition."""

from __future__ import annotations

import tensorflow as tf


def drop(x, rate: float, seed):
    """Dropout by a seed, int32 [2]: the same one drops the same units; none without it."""
    if seed is None or not rate:
        return x
    # Philox gives the same mask on a CPU and on a GPU.
    return tf.nn.experimental.stateless_dropout(x, rate, seed, rng_alg="philox")
