"""The three streams of DSH-GANs on one shared network."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.networks.hash_layer import HashNetwork
from tfhash.networks.streams import Streams

ITEMS, FEATURES, WIDTH, BITS, CLASSES = 5, 7, 6, 4, 3


def build(dropout=0.0, hidden_units=(WIDTH,), seed=0):
    keras.utils.set_random_seed(1)
    network = HashNetwork(BITS, None, hidden_units, dropout)
    network.build((None, FEATURES))
    return Streams(network, CLASSES, seed)


def make_items():
    return tf.random.stateless_normal((ITEMS, FEATURES), (0, 0))


def test_codes_are_those_of_the_hash_network_and_the_others_are_linear():
    streams, items = build(), make_items()
    codes, source, classes = streams(items)
    np.testing.assert_array_equal(codes, streams.hash_network(items))
    features = streams.hash_network.features(items).numpy()
    assert features.shape == (ITEMS, WIDTH)
    np.testing.assert_allclose(source, (features @ streams.source.kernel)[:, 0], atol=1e-6)
    np.testing.assert_allclose(classes, features @ streams.classes.kernel, atol=1e-6)
    assert source.shape == (ITEMS,) and classes.shape == (ITEMS, CLASSES)


def test_the_streams_see_the_same_dropped_features():
    streams, items = build(dropout=0.5), make_items()
    codes, source, classes = streams(items, training=True, dropout_seed=[1, 2])
    features = streams.hash_network.features(items, True, [1, 2])
    assert np.count_nonzero(features) < np.count_nonzero(streams.hash_network.features(items))
    np.testing.assert_allclose(codes, streams.hash_network.hash_layer(features), atol=1e-6)
    np.testing.assert_allclose(source, (features @ streams.source.kernel.value)[:, 0], atol=1e-6)
    np.testing.assert_allclose(classes, features @ streams.classes.kernel.value, atol=1e-6)
    np.testing.assert_array_equal(streams(items)[0], streams.hash_network(items))
    with pytest.raises(ValueError, match="dropout_seed"):
        streams(items, training=True)


@pytest.mark.parametrize("stream", [0, 1, 2], ids=["hash", "adversary", "classification"])
def test_each_stream_reaches_the_shared_network_and_its_own_layer_alone(stream):
    streams, items = build(), make_items()
    own = [streams.hash_network.hash_layer, streams.source, streams.classes]
    shared = [v.value for v in streams.hash_network.hidden_layers[0].trainable_variables]
    of_streams = [[v.value for v in layer.trainable_variables] for layer in own]
    with tf.GradientTape() as tape:
        score = tf.reduce_sum(streams(items, training=True)[stream] ** 2)
    *of_streams, of_shared = tape.gradient(score, [*of_streams, shared])
    for gradient in (*of_shared, *of_streams[stream]):
        assert gradient is not None and np.abs(gradient).max() > 0
    for other in {0, 1, 2} - {stream}:
        assert not any(np.abs(gradient).max() for gradient in of_streams[other])


def test_without_a_hidden_layer_the_streams_see_the_backbones_features():
    streams = build(hidden_units=())
    assert streams.source.kernel.shape == (FEATURES, 1)
    assert streams.classes.kernel.shape == (FEATURES, CLASSES)


def test_the_heads_follow_from_their_seed():
    """And are not each other's: normal, of deviation .02, as DSH-GANs draws all weights."""
    first, same, other = build(seed=0), build(seed=0), build(seed=5)
    np.testing.assert_array_equal(first.classes.kernel, same.classes.kernel)
    assert (first.classes.kernel.numpy() != other.classes.kernel.numpy()).any()
    assert 0 < np.abs(first.classes.kernel).max() < 0.1
    assert (first.source.kernel.numpy() != first.classes.kernel.numpy()[:, :1]).any()


def test_answers_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        answers = build()(make_items())
    finally:
        keras.config.set_dtype_policy("float32")
    assert [answer.dtype for answer in answers] == [tf.float32] * 3
