"""The optimizer of H: its learning rate at a step, and decay as Caffe has it, by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.training.optimizers import SGD, hash_optimizer


def rate_at(schedule: str, step: int) -> float:
    optimizer = hash_optimizer("sgd", 0.4, schedule, steps=100, decay_steps=10, weight_decay=0.0)
    optimizer.build([keras.Variable(np.zeros(1, np.float32))])
    optimizer.iterations.assign(step)
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


@pytest.mark.parametrize(
    ("schedule", "step", "rate"),
    [
        ("constant", 0, 0.4),
        ("constant", 99, 0.4),
        ("cosine", 0, 0.4),
        ("cosine", 50, 0.2),  # (1 + cos(pi / 2)) / 2
        ("cosine", 100, 0.0),
        ("step", 9, 0.4),  # the tenth update is the last at the full rate
        ("step", 10, 0.04),
    ],
)
def test_the_rate_of_each_schedule(schedule, step, rate):
    assert rate_at(schedule, step) == pytest.approx(rate, abs=1e-7)


def test_adamw_takes_the_weight_decay():
    optimizer = hash_optimizer("adamw", 0.4, "constant", steps=9, decay_steps=9, weight_decay=0.3)
    assert isinstance(optimizer, keras.optimizers.AdamW) and optimizer.weight_decay == 0.3


def test_decay_is_part_of_the_momentum():
    """w = 1, no gradient, rate .1, decay .5: v = -.05, w = .95; then v = -.045 - .0475."""
    weight = keras.Variable(np.ones(1, np.float32))
    optimizer = SGD(0.1, 0.5)
    optimizer.build([weight])
    for expected in (0.95, 0.8575):
        optimizer.apply([tf.zeros(1)], [weight])
        np.testing.assert_allclose(weight.numpy(), [expected], rtol=1e-6)
