"""What a stage keeps of each labelled image beside its weights, in its checkpoints too."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


def add_buffer(stage: keras.Model, name: str, rows: np.ndarray) -> keras.Variable:
    """A variable of a stage, float32 of the shape of `rows`, that no optimizer trains.

    To be called under the strategy's scope. It holds what `rows` has until it is assigned, or a
    checkpoint is restored.
    """
    rows = np.asarray(rows, np.float32)
    buffer = stage.add_weight(
        shape=rows.shape,
        initializer="zeros",
        trainable=False,
        dtype="float32",
        # What a replica assigns, all have computed: see `update_rows`.
        aggregation="only_first_replica",
        name=name,
    )
    buffer.assign(rows)
    return buffer


def update_rows(buffer: keras.Variable, places: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Puts rows [b, d] at places int64 [b] of a buffer [n, d], in a step; what it then holds.

    Under a strategy the rows of all replicas go into it. Of a place that comes twice the later row
    stays. The answer has no gradient.
    """
    rows = tf.stop_gradient(rows)
    replicas = tf.distribute.get_replica_context()
    if replicas.num_replicas_in_sync > 1:
        places = replicas.all_gather(places, axis=0)
        rows = replicas.all_gather(rows, axis=0)
    # Not scatter_update, which adds up in no fixed order where a place comes twice.
    last = _last_of_each(places, buffer.shape[0])
    held = tf.convert_to_tensor(buffer.value)
    updated = tf.where(last[:, tf.newaxis] < 0, held, tf.gather(rows, tf.maximum(last, 0)))
    buffer.assign(updated)
    return updated


def _last_of_each(places: tf.Tensor, count: int) -> tf.Tensor:
    """The last position of each of 0 .. count - 1 in places, -1 where there is none: int32 [n]."""
    positions = tf.range(tf.size(places))
    return tf.maximum(tf.math.unsorted_segment_max(positions, places, count), -1)
