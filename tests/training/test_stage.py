"""Stage: one optimizer by default, several where it says so, and gradients by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.training.stage import Stage

X = np.array([[1.0, 2.0], [3.0, -1.0]], np.float32)
Y = np.array([[1.0], [2.0]], np.float32)


def line(weights, bias=0.0, name="line"):
    """y = x w + b."""
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name=name)
    network.set_weights([np.array(weights, np.float32)[:, None], np.array([bias], np.float32)])
    return network


class Squares(Stage):
    """H is a line, and its loss the mean squared error; all else is as Stage has it."""

    def forward(self, batch):
        error = self.hash_network(batch["x"]) - batch["y"]
        return {"loss": tf.reduce_mean(error**2), "largest": tf.reduce_max(tf.abs(error))}


def make(rate=0.1, seed=0):
    stage = Squares({"hash_network": line([0.5, 1.0])}, ("loss", "largest"), seed)
    variables = stage.variables_by_optimizer()
    stage.compile({name: (keras.optimizers.SGD(rate), of) for name, of in variables.items()})
    return stage


def batches(count=1):
    """The same batch again and again."""
    data = tf.data.Dataset.from_tensors({"x": X, "y": Y})
    return data.repeat(count)


# x w is 2.5 and .5, so the errors are 1.5 and -1.5, and the loss 2.25. Its gradient is the mean of
# 2 error x: 2 (1.5 [1, 2] - 1.5 [3, -1]) / 2 = [-3, 4.5], and that of the bias 2 (1.5 - 1.5) / 2.
GRADIENT = [[-3.0], [4.5]]


def test_by_default_the_optimizer_hash_trains_the_hash_network():
    stage = make()
    (name,) = variables = stage.variables_by_optimizer()
    assert name == "hash"
    expected = stage.hash_network.trainable_variables
    assert [id(v) for v in variables["hash"]] == [id(v) for v in expected]
    assert stage.objectives({"loss": 3.0, "largest": 5.0}) == {"hash": 3.0}


def test_the_gradient_of_the_loss_by_hand():
    gradients, terms = make().gradients({"x": tf.constant(X), "y": tf.constant(Y)})
    assert list(gradients) == ["hash"]
    kernel, bias = gradients["hash"]
    np.testing.assert_allclose(kernel, GRADIENT, rtol=1e-6)
    np.testing.assert_allclose(bias, [0], atol=1e-6)
    np.testing.assert_allclose([terms["loss"], terms["largest"]], [2.25, 1.5], rtol=1e-6)


@pytest.mark.parametrize(("norm", "factor"), [(1.0, 1 / 29.25**0.5), (6.0, 1.0)])
def test_a_gradient_is_shortened_to_its_norm(norm, factor):
    """The gradient is [-3, 4.5, 0], of length 5.4."""
    stage = make()
    variables = stage.variables_by_optimizer()["hash"]
    optimizers = {"hash": (keras.optimizers.SGD(0.1), variables)}
    stage.compile(optimizers, clip_norms={"hash": norm})
    stage.train_step({"x": tf.constant(X), "y": tf.constant(Y)})
    expected = [[0.5 + 0.3 * factor], [1 - 0.45 * factor]]
    np.testing.assert_allclose(stage.hash_network.get_weights()[0], expected, rtol=1e-5)


@pytest.mark.parametrize("eager", [True, False])
def test_a_step_of_fit_is_a_step_down_the_gradient(eager):
    """[.5, 1] - .1 [-3, 4.5] = [.8, .55]; the log has the terms before the step."""
    tf.config.run_functions_eagerly(eager)
    try:
        stage = make()
        assert stage.steps_done() == 0
        logged = stage.fit(batches(), steps_per_epoch=1, verbose=0, shuffle=False).history
    finally:
        tf.config.run_functions_eagerly(False)
    assert stage.steps_done() == 1 and int(stage.step) == 1
    kernel, bias = stage.hash_network.get_weights()
    np.testing.assert_allclose(kernel, [[0.8], [0.55]], rtol=1e-6)
    np.testing.assert_allclose(bias, [0], atol=1e-6)
    assert logged == {"loss": [pytest.approx(2.25)], "largest": [pytest.approx(1.5)]}
    assert stage.learning_rates() == {"learning_rate/hash": pytest.approx(0.1)}


def test_terms_are_averaged_over_the_steps_of_an_epoch():
    """The first loss is 2.25. Then x w + b is 1.9 and 1.85, the errors are .9 and -.15, and the
    loss (.81 + .0225) / 2 = .41625: (2.25 + .41625) / 2 on average."""
    logged = make().fit(batches(2), steps_per_epoch=2, verbose=0, shuffle=False).history
    assert logged["loss"] == [pytest.approx((2.25 + 0.41625) / 2, rel=1e-5)]
    assert logged["largest"] == [pytest.approx((1.5 + 0.9) / 2, rel=1e-5)]


class Players(Stage):
    """a of x and b of that: their product; each minimises what it says of the other's answer."""

    def forward(self, batch):
        answer = self.b.weight * self.a.weight * batch["x"]
        return {"gain": tf.reduce_sum(answer)}

    def variables_by_optimizer(self):
        return {"a": self.a.trainable_variables, "b": self.b.trainable_variables}

    def objectives(self, terms):
        return {"a": -terms["gain"], "b": 3 * terms["gain"]}


class Number(keras.Model):
    def __init__(self, value):
        super().__init__()
        self.weight = self.add_weight((), keras.initializers.Constant(value))
        self.built = True


def make_players(step_size=0.1):
    stage = Players({"a": Number(2.0), "b": Number(5.0)}, ("gain",))
    stage.compile(
        {
            name: (keras.optimizers.SGD(step_size * rate), of)
            for rate, (name, of) in enumerate(stage.variables_by_optimizer().items(), start=1)
        }
    )
    return stage


def test_each_optimizer_descends_its_own_objective_over_one_forward_pass():
    """gain = a b x for x = 7: a gets -b x = -35, b gets 3 a x = 42, both at the old values."""
    gradients, terms = make_players().gradients({"x": tf.constant(7.0)})
    assert float(terms["gain"]) == 70
    assert {name: float(of[0]) for name, of in gradients.items()} == {"a": -35, "b": 42}


def test_each_optimizer_makes_its_own_step():
    """a: 2 + .1 35 = 5.5; b: 5 - .2 42 = -3.4. The first optimizer counts the steps."""
    stage = make_players()
    results = stage.train_step({"x": tf.constant(7.0)})
    np.testing.assert_allclose([stage.a.weight, stage.b.weight], [5.5, -3.4], rtol=1e-6)
    assert float(results["gain"]) == 70
    assert float(stage.optimizer.learning_rate) == pytest.approx(0.1)
    assert stage.learning_rates() == {
        "learning_rate/a": pytest.approx(0.1), "learning_rate/b": pytest.approx(0.2)
    }  # fmt: skip
    assert stage.steps_done() == int(stage.b_optimizer.iterations) == 1


def test_networks_are_attributes_and_saved_with_the_stage(tmp_path):
    stage = make()
    stage.fit(batches(3), steps_per_epoch=3, verbose=0, shuffle=False)
    stage.save_weights(tmp_path / "stage.weights.h5")
    other = make()
    other.load_weights(tmp_path / "stage.weights.h5")
    for one, same in zip(stage.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
    assert other.steps_done() == 3


def test_step_seeds_follow_from_seed_salt_and_step():
    """[seed + 1000 salt + 10000 replica, step], with the one replica that there is, 0."""
    stage = make(seed=7)
    assert stage.step_seed(0).numpy().tolist() == [7, 0]
    assert stage.step_seed(3).numpy().tolist() == [3007, 0]
    stage.fit(batches(2), steps_per_epoch=2, verbose=0, shuffle=False)
    assert stage.step_seed(3).numpy().tolist() == [3007, 2]
    assert stage.step_seed(0).dtype == tf.int32


def test_a_stage_without_a_forward_pass_is_none():
    with pytest.raises(TypeError, match="forward"):
        Stage({"hash_network": line([1, 1])}, ("loss",))
