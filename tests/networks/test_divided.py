"""Divide-and-encode: against a dense block-diagonal matrix, and slices that know of no other."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfhash.layers
from tfhash.networks import backbones
from tfhash.networks.divided import DividedDense, DividedHashNetwork
from tfhash.networks.hash_layer import HashNetwork

SEED = tf.constant([3, 5], tf.int32)
FEATURES = tf.random.stateless_normal((6, 3), SEED)
BITS, SLICE = 4, 5


def make(hidden=(7, BITS * SLICE), **options) -> DividedHashNetwork:
    """On features [n, 3], with weights so large that scores differ."""
    network = DividedHashNetwork(BITS, None, hidden, **options)
    network.build((None, 3))
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0, 0.5, w.shape) for w in network.get_weights()])
    return network


def block_diagonal(slices: np.ndarray) -> np.ndarray:
    """[k, s] -> [k s, k], entry by entry."""
    count, size = slices.shape
    matrix = np.zeros((count * size, count))
    for unit in range(count):
        for place in range(size):
            matrix[unit * size + place, unit] = slices[unit, place]
    return matrix


def test_a_layer_by_hand():
    """Slices [1, 2] and [3, 4] of [1, 10, 100, 1000]: 1 + 20 + .5 and 300 + 4000 - 1."""
    layer = DividedDense(2)
    layer.build((None, 4))
    layer.set_weights([np.array([[1.0, 2], [3, 4]]), np.array([0.5, -1])])
    found = layer(tf.constant([[1.0, 10, 100, 1000]]))
    np.testing.assert_allclose(found, [[21.5, 4299]], rtol=1e-6)


def test_the_network_is_a_dense_one_with_a_block_diagonal_hash_layer():
    network = make()
    dense = HashNetwork(BITS, None, (7, BITS * SLICE))
    dense.build((None, 3))
    *hidden, slices, bias = network.get_weights()
    assert slices.shape == (BITS, SLICE)
    dense.set_weights([*hidden, block_diagonal(slices), bias])
    np.testing.assert_allclose(network.scores(FEATURES), dense.scores(FEATURES), rtol=1e-5)
    np.testing.assert_allclose(network(FEATURES), dense(FEATURES), rtol=1e-5)
    np.testing.assert_array_equal(network.hash_layer.kernel, block_diagonal(slices))
    assert network.width == dense.width == BITS * SLICE


def test_call_is_the_sigmoid_of_the_scores():
    network = make(dropout=0.5)
    for options in ({}, {"training": True, "dropout_seed": SEED}):
        scores = network.scores(FEATURES, **options)
        assert (scores.shape, scores.dtype) == ((6, BITS), tf.float32)
        np.testing.assert_allclose(network(FEATURES, **options), tf.sigmoid(scores), rtol=1e-6)


def test_slices_have_weights_of_their_own():
    """A change of slice 2 changes bit 2 alone, and bit 2 has a gradient for slice 2 alone."""
    network = make()
    before = network.scores(FEATURES).numpy()
    layer = network.hash_layer
    with tf.GradientTape() as tape:
        score = tf.reduce_sum(network.scores(FEATURES)[:, 2])
    slices, bias = tape.gradient(score, [layer.slices.value, layer.bias.value])
    assert list(np.flatnonzero(np.abs(slices).max(axis=1))) == [2]
    np.testing.assert_array_equal(bias, [0, 0, 6, 0])
    moved = layer.slices.numpy()
    moved[2] += 1
    layer.slices.assign(moved)
    changed = np.abs(network.scores(FEATURES) - before).max(axis=0)
    assert list(np.flatnonzero(changed)) == [2]


def test_slices_start_apart_and_as_a_dense_layer_of_one_unit_does():
    """Uniform to sqrt(6 / (s + 1)), whose deviation is that over sqrt(3); no two bits are equal."""
    keras.utils.set_random_seed(0)
    network = DividedHashNetwork(40, None, (40 * 50,))
    network.build((None, 3))
    slices = network.hash_layer.slices.numpy()
    limit = np.sqrt(6 / 51)
    assert 0.99 * limit < np.abs(slices).max() <= limit
    # 2,000 draws: the deviation of their deviation is about a hundredth of it.
    assert slices.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
    assert len(np.unique(slices[:, 0])) == 40


def test_every_weight_and_the_images_get_a_gradient():
    network = DividedHashNetwork(BITS, backbones.build("small_cnn"), (BITS * SLICE,))
    network.build((None, None, None, 3))
    images = tf.random.stateless_uniform((2, 16, 16, 3), SEED, maxval=255)
    with tf.GradientTape() as tape:
        tape.watch(images)
        scores = network.scores(images, training=True)
    gradients = tape.gradient(scores, [images, *network.trainable_variables])
    assert len(gradients) == 1 + 8 + 2 + 2  # images, small_cnn, hidden layer, hash layer
    assert all(np.any(gradient != 0) for gradient in gradients)


def test_a_head_beside_it_answers_what_it_answers_alone():
    network, head = make(), keras.layers.Dense(3)
    head.build((None, network.width))
    together = network.scores(FEATURES, beside=[head])
    alone = [network.scores(FEATURES), head(network.features(FEATURES))]
    np.testing.assert_allclose(together, tf.concat(alone, 1), rtol=1e-5, atol=1e-6)


def test_the_features_themselves_can_be_cut():
    """Without a hidden layer: 8 features, 4 bits, slices of 2."""
    network = DividedHashNetwork(BITS)
    network.build((None, 8))
    assert network.hash_layer.slices.shape == (BITS, 2) and network.width == 8


@pytest.mark.parametrize(("hidden", "width"), [((), 9), ((8, 10), 4)])
def test_what_cannot_be_cut_is_refused(hidden, width):
    """Nine features, or ten units of the last hidden layer, and four bits."""
    last = hidden[-1] if hidden else width
    network = DividedHashNetwork(BITS, None, hidden)
    with pytest.raises(tfhash.UserError, match=f"`code_length`: 4 bits of {last} features; allow"):
        network.build((None, width))
    with pytest.raises(ValueError, match="width 9 cannot be cut into 4"):
        DividedDense(4).build((None, 9))


def test_a_keras_file_keeps_it(tmp_path):
    network = make(dropout=0.25, name="mine")
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    assert type(again) is DividedHashNetwork
    assert again.get_config() == network.get_config()
    assert [layer.units for layer in again.hidden_layers] == [7, BITS * SLICE]
    np.testing.assert_array_equal(again(FEATURES), network(FEATURES))
    assert network(FEATURES).numpy().std() > 1e-3
    assert tfhash.layers.DividedHashNetwork is DividedHashNetwork


def test_a_keras_file_keeps_a_network_on_images(tmp_path):
    network = DividedHashNetwork(BITS, backbones.build("small_cnn"), (BITS * SLICE,))
    network.build((None, None, None, 3))
    images = tf.random.stateless_uniform((2, 16, 16, 3), SEED, maxval=255)
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(again(images), network(images))


def test_the_layer_round_trips_its_config():
    layer = DividedDense(3, activation="relu", name="cut")
    again = DividedDense.from_config(layer.get_config())
    assert (again.units, again.name) == (3, "cut")
    assert again.activation is keras.activations.relu


def test_the_hash_layer_is_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        network = make()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert network.hidden_layers[0].compute_dtype == "bfloat16"
    assert network.scores(FEATURES).dtype == network(FEATURES).dtype == tf.float32
    assert network.hash_layer.slices.dtype == "float32"
