"""The hash network: values worked out by hand, gradients, and dropout that repeats."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.networks import backbones
from tfhash.networks.hash_layer import HashNetwork

SEED = tf.constant([3, 5], tf.int32)


@pytest.fixture
def mixed_bfloat16():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def test_hash_layer_is_the_sigmoid_of_an_affine_map():
    network = HashNetwork(2)
    network.build((None, 3))
    network.hash_layer.set_weights([np.array([[1.0, 0], [0, 2], [-1, 1]]), np.array([0.5, -1])])
    # [1, 2, 3] W + b = [1 - 3 + 0.5, 4 + 3 - 1] = [-1.5, 6].
    expected = 1 / (1 + np.exp([[1.5, -6.0]]))
    np.testing.assert_allclose(network(tf.constant([[1.0, 2, 3]])), expected, rtol=1e-6)


def test_hidden_layer_is_dense_and_rectified():
    network = HashNetwork(1, hidden_units=(2,))
    network.build((None, 1))
    network.hidden_layers[0].set_weights([np.array([[1.0, -1.0]]), np.zeros(2)])
    network.hash_layer.set_weights([np.array([[1.0], [10.0]]), np.zeros(1)])
    # 2 becomes [2, -2], rectified [2, 0], then 2 * 1 + 0 * 10 = 2.
    np.testing.assert_allclose(network(tf.constant([[2.0]])), [[1 / (1 + np.exp(-2))]], rtol=1e-6)


def test_gradients_reach_the_images_and_every_weight():
    network = HashNetwork(8, backbones.build("small_cnn"), hidden_units=(16,))
    images = tf.random.stateless_uniform((2, 16, 16, 3), SEED, maxval=255)
    with tf.GradientTape() as tape:
        tape.watch(images)
        activations = network(images, training=True)
    assert activations.shape == (2, 8)
    gradients = tape.gradient(activations, [images, *network.trainable_variables])
    assert len(gradients) == 1 + 8 + 2 + 2  # images, small_cnn, hidden layer, hash layer
    assert all(np.any(gradient != 0) for gradient in gradients)


def test_building_creates_all_weights():
    network = HashNetwork(8, backbones.build("small_cnn"), hidden_units=(16,))
    network.build((None, 16, 16, 3))
    assert network.hidden_layers[0].kernel.shape == (256, 16)
    assert network.hash_layer.kernel.shape == (16, 8)


def test_dropout_repeats_with_the_same_seed_only():
    network = HashNetwork(64, dropout=0.5)
    features = tf.ones((4, 32))
    first = network(features, training=True, dropout_seed=SEED)
    again = network(features, training=True, dropout_seed=SEED)
    other = network(features, training=True, dropout_seed=SEED + [1, 0])
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_dropout_scales_what_it_keeps():
    network = HashNetwork(1, dropout=0.75)
    network.build((None, 1))
    network.hash_layer.set_weights([np.ones((1, 1)), np.zeros(1)])
    dropped = network(tf.ones((1000, 1)), training=True, dropout_seed=SEED).numpy()
    logits = np.log(dropped / (1 - dropped))
    # A unit of 1 becomes 0, or 1 / (1 - 0.75) = 4; of 1,000, 250 +- 14 (one deviation) are kept.
    np.testing.assert_allclose(np.unique(logits.round(3)), [0, 4])
    assert 180 < np.sum(logits > 2) < 320


def test_dropout_is_for_training_alone():
    network = HashNetwork(4, dropout=0.5)
    features = tf.ones((2, 8))
    np.testing.assert_array_equal(network(features), network(features, training=False))
    with pytest.raises(ValueError, match="dropout_seed"):
        network(features, training=True)


def test_backbone_runs_in_inference_mode():
    images = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    backbone = keras.Model(images, keras.layers.BatchNormalization()(x))
    network = HashNetwork(4, backbone)
    pair = tf.stack([tf.zeros((2, 2, 3)), tf.ones((2, 2, 3))])
    # Batch statistics would make the second image's activations depend on the first.
    np.testing.assert_allclose(
        network(pair, training=True)[1:], network(pair[1:], training=True), rtol=1e-6
    )


def test_head_is_float32_under_mixed_precision(mixed_bfloat16):
    network = HashNetwork(8, backbones.build("small_cnn"), hidden_units=(16,), dropout=0.5)
    images = tf.random.stateless_uniform((2, 16, 16, 3), SEED, maxval=255)
    with tf.GradientTape() as tape:
        tape.watch(images)
        activations = network(images, training=True, dropout_seed=SEED)
    assert network.hidden_layers[0].compute_dtype == "bfloat16"
    assert activations.dtype == tf.float32
    gradient = tape.gradient(activations, images)
    assert gradient.dtype == tf.float32
    assert np.any(gradient != 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"code_length": 0}, "--code_length: 0 "),
        ({"code_length": 8, "dropout": 1.0}, "dropout: 1.0 "),
    ],
)
def test_impossible_values_name_the_flag(arguments, message):
    with pytest.raises(ValueError, match=message):
        HashNetwork(**arguments)
