"""Buffers of a stage: rows go where they belong, last come, last kept, and into checkpoints."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.training import buffers
from tfhash.training.checkpoints import Checkpoints
from tfhash.training.stage import Stage


class Keeping(Stage):
    """Keeps twice what comes of each place; its network learns to answer the sum of the buffer."""

    def __init__(self, rows):
        network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")])
        super().__init__({"hash_network": network}, ("loss",))
        self.kept = buffers.add_buffer(self, "kept", rows)

    def forward(self, batch):
        answers = self.hash_network(batch["x"])
        held = buffers.update_rows(self.kept, batch["places"], 2 * batch["x"] + 0 * answers)
        return {"loss": tf.reduce_mean(tf.square(answers)) + tf.reduce_sum(held)}


ROWS = np.arange(10, dtype=np.float32).reshape(5, 2)


def make() -> Keeping:
    stage = Keeping(ROWS)
    optimizer = keras.optimizers.SGD(0.1)
    stage.compile({"hash": (optimizer, stage.hash_network.trainable_variables)})
    return stage


def batch(places, value=1.0):
    x = value * np.arange(1, 2 * len(places) + 1, dtype=np.float32).reshape(-1, 2)
    return {"x": tf.constant(x), "places": tf.constant(places, tf.int64)}


def test_rows_go_to_their_places_and_the_later_one_stays():
    """Place 3 comes twice: twice [1, 2], then twice [5, 6]; places 1, 2, 4 keep what they had."""
    stage = make()
    tf.function(stage.forward)(batch([3, 0, 3]))
    expected = ROWS.copy()
    expected[0], expected[3] = [6, 8], [10, 12]
    np.testing.assert_array_equal(stage.kept.numpy(), expected)


def test_a_step_changes_it_and_no_optimizer_does():
    stage = make()
    stage.train_step(batch([2]))
    expected = ROWS.copy()
    expected[2] = [2, 4]
    np.testing.assert_array_equal(stage.kept.numpy(), expected)
    assert not stage.kept.trainable


def test_what_it_holds_has_no_gradient():
    """The loss has the sum of the buffer in it, of rows that depend on the network by 0 times."""
    stage = make()
    gradients, _ = stage.gradients(batch([1, 4]))
    answers = stage.hash_network(batch([1, 4])["x"])
    kernel, _ = gradients["hash"]
    x = batch([1, 4])["x"]
    by_hand = tf.matmul(x, 2 * answers / tf.size(answers, tf.float32), transpose_a=True)
    np.testing.assert_allclose(kernel, by_hand, rtol=1e-5)


def test_a_checkpoint_has_it(tmp_path):
    stage = make()
    stage.train_step(batch([1, 2], 3.0))
    Checkpoints(tmp_path, "hash", True).save(stage, 1, 0.0)
    other = make()
    assert Checkpoints(tmp_path, "hash", True).restore(other)[0] == 1
    np.testing.assert_array_equal(other.kept.numpy(), stage.kept.numpy())
    assert not np.array_equal(other.kept.numpy(), ROWS)


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_it_is_float32(dtype):
    assert Keeping(ROWS.astype(dtype)).kept.dtype == "float32"
