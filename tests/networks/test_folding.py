"""Batch normalisation that is folded: the same answers, fewer layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tfhash.hashers.backbone_settings import BackboneSettings, build_backbone
from tfhash.networks import backbones, folding
from tfhash.networks.embedding_network import EmbeddingHashNetwork
from tfhash.networks.encoder import FeatureEncoder
from tfhash.networks.features import Standardise
from tfhash.networks.hash_layer import HashNetwork

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)


def trained(network):
    """The network with statistics, scales and shifts as if it had learned, inner ones too."""
    rng = np.random.default_rng(1)
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            trained(layer)
        elif isinstance(layer, layers.BatchNormalization):
            for weight in layer.weights:
                positive = weight.path.endswith(("gamma", "variance"))
                low, high = (0.5, 1.5) if positive else (-0.3, 0.3)
                weight.assign(rng.uniform(low, high, weight.shape))
    return network


def normalisations(network):
    found = 0
    for layer in network.layers:
        inner = isinstance(layer, keras.Model)
        found += normalisations(layer) if inner else isinstance(layer, layers.BatchNormalization)
    return found


def test_one_layer_by_hand():
    """w = 2, b = 1, mean 3, variance 4 - epsilon, gamma 5, beta 7: 5 w / 2, 5 (1 - 3) / 2 + 7."""
    x = keras.Input((4,))
    y = layers.Dense(1, name="dense")(x)
    network = keras.Model(x, layers.BatchNormalization(name="norm")(y))
    network.get_layer("dense").set_weights([np.full((4, 1), 2.0), np.ones(1)])
    network.get_layer("norm").set_weights(list(np.array([[5.0], [7.0], [3.0], [4.0 - 1e-3]])))
    folded = folding.folded(network)
    kernel, bias = folded.get_layer("dense").get_weights()
    np.testing.assert_allclose(kernel, np.full((4, 1), 5.0), rtol=1e-6)
    np.testing.assert_allclose(bias, [2.0], rtol=1e-6)
    assert len(folded.weights) == 2 and len(network.weights) == 6


@pytest.mark.parametrize(
    ("name", "left"),
    # Those after a sum or a concatenation stay.
    [
        ("mobilenetv2", 0),
        ("efficientnetb0", 0),
        pytest.param("resnet50", 0, marks=pytest.mark.long),
        pytest.param("xception", 0, marks=pytest.mark.long),
        pytest.param("resnet50v2", 17, marks=pytest.mark.long),
        pytest.param("densenet121", 62, marks=pytest.mark.long),
        pytest.param("nasnetmobile", 4, marks=pytest.mark.long),
    ],
)
def test_networks_of_keras_answer_the_same(name, left):
    keras.utils.set_random_seed(0)
    network = trained(backbones.build(name, input_size=96 if name == "xception" else 64))
    before = network(IMAGES, training=False).numpy()
    weights = network.get_weights()
    folded = folding.folded(network)
    np.testing.assert_allclose(folded(IMAGES, training=False), before, atol=3e-6 * before.max())
    assert normalisations(folded) == left == normalisations(network) - folding.count(network)
    assert folding.count(folded) == 0
    for one, other in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_must_stay_stays():
    """An activation between them; another layer, or a user, takes the convolution's answer."""
    x = keras.Input((8, 8, 3))
    active = layers.BatchNormalization()(layers.Conv2D(3, 1, activation="relu")(x))
    shared = layers.Conv2D(3, 1)(active)
    asked = layers.Conv2D(3, 1)(x)
    outputs = [layers.Add()([layers.BatchNormalization()(shared), shared]), asked]
    network = keras.Model(x, [*outputs, layers.BatchNormalization()(asked)])
    trained(network)
    folded = folding.folded(network)
    assert normalisations(folded) == 3 and folding.count(network) == 0
    few = IMAGES[:, :8, :8]
    found, expected = folded(few, training=False), network(few, training=False)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def backbone():
    x = keras.Input((32, 32, 3))
    y = layers.BatchNormalization()(layers.Conv2D(6, 3, strides=4, use_bias=False)(x / 255))
    return trained(keras.Model(x, layers.GlobalAveragePooling2D()(layers.ReLU()(y))))


def hash_network(network):
    """A HashNetwork on its own backbone, with a hidden layer."""
    network.build((None, 32, 32, 3))
    return network


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("kind", ["plain", "embedding", "features"])
def test_encoders_answer_the_same(kind, mirrored):
    more = {"mirrored": mirrored}
    if kind == "plain":
        encoder = hash_network(HashNetwork(12, backbone(), (8,), dropout=0.5, **more))
    elif kind == "embedding":
        sizes = {"embedding_size": 4, "embedding_units": 6, "branch_units": 3}
        encoder = hash_network(EmbeddingHashNetwork(12, backbone(), (7,), **sizes, **more))
    else:
        above = HashNetwork(12, None, (8,))
        above.build((None, 6))
        standardise = Standardise(6)
        standardise.adapt(np.random.default_rng(2).normal(1, 2, (50, 6)).astype(np.float32))
        encoder = FeatureEncoder(backbone(), standardise, above, **more)
    folded = folding.folded_encoder(encoder)
    assert normalisations(folded.backbone) == 0
    before = encoder(IMAGES).numpy()
    assert before.std() > 1e-3
    np.testing.assert_allclose(folded(IMAGES), before, atol=1e-6)
    of_mirror_image = encoder(IMAGES[:, :, ::-1]).numpy()
    assert np.allclose(of_mirror_image, before, atol=1e-6) == mirrored


def test_an_encoder_with_nothing_to_fold_is_the_same_one():
    network = hash_network(HashNetwork(12, backbones.build("small_cnn")))
    assert folding.folded_encoder(network) is network
    shallow = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert folding.folded_encoder(shallow) is shallow


def test_a_flag_folds_what_is_learned_from():
    settings = {"backbone": "mobilenetv2", "backbone_size": 32}
    keras.utils.set_random_seed(0)
    plain = build_backbone(BackboneSettings(**settings), None)
    keras.utils.set_random_seed(0)
    folded = build_backbone(BackboneSettings(**settings, fold_batch_norm=True), None)
    assert (normalisations(plain), normalisations(folded)) == (52, 0)
    np.testing.assert_allclose(
        folded(IMAGES, training=False), plain(IMAGES, training=False), atol=1e-5
    )
    frozen = build_backbone(BackboneSettings(**settings, fold_batch_norm=True), "all")
    assert not frozen.trainable_variables and folded.trainable_variables
