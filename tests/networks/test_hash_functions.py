"""The hash functions of shallow methods as a layer: values by hand, and what a file keeps."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.methods.agh import anchor_scores
from tfhash.networks.hash_functions import HashFunctions, linear_scores


def sigmoid(*scores):
    return 1 / (1 + np.exp(-np.array(scores)))


def test_linear_ones_by_hand():
    """x = (1, -2): scores 1 * 3 - 2 * 1 + .5 = 1.5 and 1 * 0 - 2 * 2 + 0 = -4."""
    layer = HashFunctions(linear_scores, {"projection": (2, 2), "offset": (2,)})
    layer.parameters["projection"].assign([[3, 0], [1, 2.0]])
    layer.parameters["offset"].assign([0.5, 0])
    np.testing.assert_allclose(layer(tf.constant([[1.0, -2.0]])), [sigmoid(1.5, -4)], rtol=1e-6)
    assert not layer.trainable_weights


def test_options_reach_the_scores():
    """2^3 - 6 = 2 and 1^3 - 6 = -5."""

    def powers(features, parameters, *, exponent):
        return features**exponent - parameters["threshold"]

    layer = HashFunctions(powers, {"threshold": (1,)}, {"exponent": 3})
    layer.parameters["threshold"].assign([6.0])
    np.testing.assert_allclose(layer(tf.constant([[2.0, 1.0]])), [sigmoid(2, -5)], rtol=1e-6)


def of_anchors(name="mine"):
    """AGH's functions, which have options: three anchors of two features, three bits."""
    shapes = {"anchors": (3, 2), "width": (), "projection": (3, 2), "thresholds": (2, 2)}
    options = {"nearest": 2, "layers": 2, "bits": 3}
    layer = HashFunctions(anchor_scores, shapes, options, name=name)
    rng = np.random.default_rng(0)
    for parameter in layer.parameters.values():
        parameter.assign(rng.uniform(0.5, 1.5, parameter.shape))
    return layer


FEATURES = tf.random.stateless_normal((5, 2), (0, 1))


def test_a_configuration_gives_the_same_layer():
    layer = of_anchors()
    again = HashFunctions.from_config(layer.get_config())
    assert again.name == "mine" and again.scores is anchor_scores
    assert (again.options, again.shapes) == (layer.options, layer.shapes)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(FEATURES), layer(FEATURES))


def test_a_keras_file_keeps_functions_options_and_parameters(tmp_path):
    model = keras.Sequential([keras.Input((2,)), of_anchors()])
    model.save(tmp_path / "functions.keras")
    again = keras.models.load_model(tmp_path / "functions.keras")
    answer = model(FEATURES).numpy()
    assert answer.shape == (5, 3) and answer.std() > 1e-3
    np.testing.assert_array_equal(again(FEATURES), answer)


@pytest.mark.parametrize("scores", ["os:system", "tfhashes.evil:run", "builtins:eval", "tfhash:x"])
def test_a_file_has_nothing_imported_but_modules_of_tfhash(scores):
    config = {**of_anchors().get_config(), "scores": scores}
    with pytest.raises(ValueError, match=f"scores: '{scores}'; allowed: functions of tfhash"):
        HashFunctions.from_config(config)
