"""The hash network with a branch of embeddings: values by hand, gradients, and its file."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.networks import backbones
from tfhash.networks.embedding_network import EmbeddingHashNetwork

SEED = tf.constant([3, 5], tf.int32)
SIZES = {"embedding_size": 4, "embedding_units": 6, "branch_units": 3}
FEATURES = tf.random.stateless_normal((6, 5), SEED)


def spread(network, seed=0):
    """Weights so large that activations differ: normal, of deviation 1/2."""
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(0, 0.5, w.shape) for w in network.get_weights()])
    return network


def make(hidden_units=(7,), dropout=0.0):
    network = EmbeddingHashNetwork(2, None, hidden_units, dropout, **SIZES)
    network.build((None, 5))
    return spread(network)


def on_images():
    network = EmbeddingHashNetwork(2, backbones.build("small_cnn"), (7,), **SIZES)
    network.build((None, None, None, 3))
    for layer in (*network.hidden_layers, network.embedding_hidden, network.branch):
        layer.bias.assign(5 * tf.ones_like(layer.bias))  # no ReLU unit is without a gradient
    return network, tf.random.stateless_uniform((2, 16, 16, 3), SEED, maxval=255)


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize("hidden_units", [(), (7,)])
def test_the_hash_layer_sees_both_branches(hidden_units):
    """In NumPy: W [h(f); g(e)] + b, e linear in a ReLU layer of f, g a ReLU layer of e."""
    network = make(hidden_units)
    f = FEATURES.numpy()
    of = {}
    for layer in (network.embedding_hidden, network.embedding, network.branch, network.hash_layer):
        of[layer.name] = [w.numpy() for w in (layer.kernel, layer.bias)]
    e = relu(f @ of["embedding_hidden"][0] + of["embedding_hidden"][1])
    e = e @ of["embedding"][0] + of["embedding"][1]
    h = f
    for layer in network.hidden_layers:
        h = relu(h @ layer.kernel.numpy() + layer.bias.numpy())
    seen = np.concatenate([h, relu(e @ of["branch"][0] + of["branch"][1])], axis=1)
    scores = seen @ of["hash_layer"][0] + of["hash_layer"][1]
    np.testing.assert_allclose(network.scores(FEATURES), scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network(FEATURES), 1 / (1 + np.exp(-scores)), rtol=1e-4, atol=1e-6)
    features, embeddings = network.features_and_embeddings(FEATURES)
    np.testing.assert_allclose(features, seen, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embeddings, e, rtol=1e-4, atol=1e-5)
    assert network.width == seen.shape[1] and (e < 0).any()


def test_dropout_is_of_what_the_hash_layer_sees_and_not_of_embeddings():
    network = make(dropout=0.5)
    whole, embeddings = network.features_and_embeddings(FEATURES)
    dropped, same = network.features_and_embeddings(FEATURES, training=True, dropout_seed=SEED)
    np.testing.assert_array_equal(same, embeddings)
    kept = dropped.numpy() != 0
    np.testing.assert_allclose(dropped.numpy()[kept], 2 * whole.numpy()[kept], rtol=1e-6)
    assert (~kept & (whole.numpy() != 0)).any()
    np.testing.assert_array_equal(network.features(FEATURES, True, SEED), dropped)
    with pytest.raises(ValueError, match="dropout_seed"):
        network.scores(FEATURES, training=True)


@pytest.mark.parametrize("reach", [True, False])
def test_whether_embeddings_have_a_gradient_for_the_backbone(reach):
    """Features always have one, through the embeddings in them too."""
    network, images = on_images()
    weights = network.backbone.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        features, embeddings = network.features_and_embeddings(
            images, embeddings_reach_backbone=reach
        )
        of_branch = features[:, 7:]
    for part, expected in ((embeddings, reach), (features, True), (of_branch, True)):
        gradients = tape.gradient(part, weights)
        assert all((g is not None and np.any(g != 0)) == expected for g in gradients)
    expected = network.features_and_embeddings(images)[1]
    np.testing.assert_array_equal(embeddings, expected)


def test_every_weight_counts_in_a_code():
    network, images = on_images()
    with tf.GradientTape() as tape:
        activations = network(images, training=True)
    gradients = tape.gradient(activations, network.trainable_variables)
    # small_cnn; hidden, embedding_hidden, embedding, branch and hash layer
    assert len(gradients) == 8 + 2 * 5
    assert all(np.any(gradient != 0) for gradient in gradients)


@pytest.mark.parametrize("hidden_units", [(), (7,)])
def test_a_keras_file_keeps_it_and_its_precision(tmp_path, hidden_units):
    """Whatever the policy is where it is loaded; the hash layer and e(x) are float32."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = make(hidden_units, dropout=0.25)
    finally:
        keras.config.set_dtype_policy("float32")
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    assert type(again) is EmbeddingHashNetwork and again.get_config() == network.get_config()
    np.testing.assert_array_equal(again(FEATURES), network(FEATURES))
    assert again.branch.compute_dtype == again.embedding_hidden.compute_dtype == "bfloat16"
    features, embeddings = again.features_and_embeddings(FEATURES)
    assert features.dtype == embeddings.dtype == again.scores(FEATURES).dtype == tf.float32
    assert network(FEATURES).numpy().std() > 1e-3


def test_sizes_are_those_of_the_arguments():
    network = make()
    shapes = {layer.name: tuple(layer.kernel.shape) for layer in network.layers}
    assert shapes == {
        "hidden1": (5, 7), "hash_layer": (10, 2),
        "embedding_hidden": (5, 6), "embedding": (6, 4), "branch": (4, 3),
    }  # fmt: skip
