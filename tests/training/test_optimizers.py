"""The optimizer of H: its learning rate at a step, and decay as Caffe has it, by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.training.optimizers import SGD, SlowTrunk, hash_optimizer


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


def slow(kind: str, decay: float, factor: float, first_step: int = 0, warmup_steps: int = 0):
    """An optimizer of rate .1 over a trunk's weight and a head's, both 1."""
    trunk, head = (keras.Variable(np.ones(1, np.float32)) for _ in range(2))
    optimizer = hash_optimizer(
        kind, 0.1, "constant", steps=9, decay_steps=9, weight_decay=decay,
        warmup_steps=warmup_steps, trunk=SlowTrunk([trunk], factor, first_step),
    )  # fmt: skip
    optimizer.build([trunk, head])
    return optimizer, trunk, head


def step(optimizer, *variables, gradient=1.0):
    optimizer.apply([tf.fill([1], gradient) for _ in variables], list(variables))
    return [float(variable.numpy()[0]) for variable in variables]


def test_a_slow_trunk_has_its_factor_of_the_rate():
    """Adam's first step is the rate, whatever the gradient; SGD's is rate times gradient."""
    assert step(*slow("adamw", 0.0, 0.25)) == pytest.approx([1 - 0.025, 1 - 0.1], abs=1e-6)
    assert step(*slow("sgd", 0.0, 0.25), gradient=2.0) == pytest.approx([1 - 0.05, 1 - 0.2])


def test_the_decay_of_a_slow_trunk_goes_with_its_own_rate():
    """AdamW: w - rate * decay * w, and then a step of 0, for the gradient is 0."""
    found = step(*slow("adamw", 0.5, 0.25), gradient=0.0)
    assert found == pytest.approx([1 - 0.025 * 0.5, 1 - 0.1 * 0.5], abs=1e-6)
    found = step(*slow("sgd", 0.5, 0.25), gradient=0.0)
    assert found == pytest.approx([1 - 0.025 * 0.5, 1 - 0.1 * 0.5])


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_trunk_waits_for_its_first_step(kind):
    """It neither learns nor decays before it; what is above it does both."""
    optimizer, trunk, head = slow(kind, 0.5, 0.25, first_step=2)
    seen = [step(optimizer, trunk, head) for _ in range(4)]
    assert (
        [of_trunk for of_trunk, _ in seen[:2]]
        == [1.0, 1.0]
        > [of_trunk for of_trunk, _ in seen[2:]]
    )
    heads = [of_head for _, of_head in seen]
    assert heads == sorted(heads, reverse=True) and heads[0] < 1


def test_the_steps_of_a_trunk_that_waited_are_those_of_one_that_begins_then():
    """Adam corrects its means for the steps that they are of: here 60, and the trunk's own."""
    gradients = np.random.default_rng(0).normal(size=80).astype(np.float32)
    first = 60
    optimizer, trunk, head = slow("adamw", 0.5, 0.25, first_step=first)
    plain = keras.Variable(np.ones(1, np.float32))
    alone = keras.optimizers.AdamW(0.1 * 0.25, weight_decay=0.5)
    alone.build([plain])
    for number, gradient in enumerate(gradients):
        both = [tf.fill([1], gradient), tf.ones(1)]  # as a stage gives them
        optimizer.apply(optimizer.of_those_that_move(both, [trunk, head]), [trunk, head])
        of_trunk = float(trunk.numpy()[0])
        if number >= first:
            (of_plain,) = step(alone, plain, gradient=gradient)
            assert of_trunk == pytest.approx(of_plain, rel=1e-4)


def test_in_the_order_of_variables_nothing_lies():
    trunk, head = (keras.Variable(np.ones(1, np.float32)) for _ in range(2))
    slow_trunk = SlowTrunk([trunk], 0.25)
    optimizer = hash_optimizer("adamw", 0.1, "constant", steps=9, decay_steps=9, weight_decay=0.0,
                               trunk=slow_trunk)  # fmt: skip
    optimizer.build([head, trunk])
    assert step(optimizer, head, trunk) == pytest.approx([0.9, 0.975], abs=1e-6)


def test_a_trunk_that_is_not_slow_has_the_plain_optimizer():
    """So that its checkpoints and its arithmetic are those of before."""
    one = keras.Variable(np.ones(1, np.float32))
    for trunk in (None, SlowTrunk([one]), SlowTrunk([], 0.1, 5)):
        for kind, plain in (("adamw", keras.optimizers.AdamW), ("sgd", SGD)):
            optimizer = hash_optimizer(kind, 0.1, "cosine", steps=9, decay_steps=9,
                                       weight_decay=0.0, trunk=trunk)  # fmt: skip
            assert type(optimizer) is plain


@pytest.mark.parametrize(
    ("at", "rate"), [(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4), (50, 0.2), (100, 0.0)]
)
def test_the_rate_rises_in_the_first_steps(at, rate):
    """Three of 100: 1/4, 2/4, 3/4 of it, and then all. The cosine begins at step 0."""
    optimizer = hash_optimizer("sgd", 0.4, "cosine", steps=100, decay_steps=1, weight_decay=0.0,
                               warmup_steps=3)  # fmt: skip
    optimizer.build([keras.Variable(np.zeros(1, np.float32))])
    optimizer.iterations.assign(at)
    found = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    assert found == pytest.approx(rate, abs=1e-3)
