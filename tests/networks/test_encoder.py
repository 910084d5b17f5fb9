"""The encoder on features: what it computes, and that a .keras file keeps all of it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.features import descriptors
from tfhash.networks import backbones
from tfhash.networks.encoder import FeatureEncoder
from tfhash.networks.features import Standardise
from tfhash.networks.hash_functions import HashFunctions, linear_scores
from tfhash.networks.hash_layer import HashNetwork

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.float32)
BACKBONES = {
    "small_cnn": lambda: backbones.build("small_cnn"),
    "pixels": lambda: descriptors.pixels(16),
    "gist": lambda: descriptors.gist_of(16),
}


def spread(layer, seed):
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, 0.5, w.shape) for w in layer.get_weights()])
    return layer


def make(backbone="small_cnn", components=None, scale=True, head="network"):
    features = BACKBONES[backbone]()
    described = features(IMAGES).numpy()
    standardise = Standardise(described.shape[-1], components, scale)
    standardise.adapt(described)
    width = components or described.shape[-1]
    if head == "network":
        functions = HashNetwork(4, None, (6,))
        functions.build((None, width))
    else:
        shapes = {"projection": (width, 4), "offset": (4,)}
        functions = HashFunctions(linear_scores, shapes)
    return FeatureEncoder(features, standardise, spread(functions, 1), name="mine")


def test_it_is_backbone_then_scaling_then_hash_network():
    encoder = make()
    features = encoder.backbone(IMAGES, training=False)
    expected = encoder.hash_network(encoder.standardise(features))
    answer = encoder(IMAGES)
    assert (answer.shape, answer.dtype) == ((5, 4), tf.float32)
    np.testing.assert_allclose(answer, expected, rtol=1e-6)
    assert answer.numpy().std(axis=0).min() > 1e-3  # it depends on the image
    np.testing.assert_allclose(encoder.predict(IMAGES, verbose=0), answer, atol=1e-6)


def test_a_mirrored_one_answers_the_mean_of_an_image_and_its_mirror_image():
    plain = make()
    parts = (plain.backbone, plain.standardise, plain.hash_network)
    mirrored = FeatureEncoder(*parts, mirrored=True)
    of_image, of_mirror = plain(IMAGES).numpy(), plain(IMAGES[:, :, ::-1]).numpy()
    np.testing.assert_allclose(mirrored(IMAGES), (of_image + of_mirror) / 2, rtol=1e-5)
    assert np.abs(of_image - of_mirror).max() > 1e-3
    np.testing.assert_array_equal(mirrored(IMAGES, training=True), of_image)


def test_a_keras_file_keeps_that_it_is_mirrored(tmp_path):
    plain = make()
    encoder = FeatureEncoder(plain.backbone, plain.standardise, plain.hash_network, mirrored=True)
    encoder.save(tmp_path / "encoder.keras")
    again = keras.models.load_model(tmp_path / "encoder.keras")
    assert again.mirrored
    np.testing.assert_array_equal(again(IMAGES), encoder(IMAGES))


def test_features_of_low_precision_are_scaled_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.AveragePooling2D(16)])
        backbone.add(keras.layers.Flatten())
    finally:
        keras.config.set_dtype_policy("float32")
    assert backbone(IMAGES).dtype == tf.bfloat16
    functions = HashFunctions(linear_scores, {"projection": (3, 2), "offset": (2,)})
    encoder = FeatureEncoder(backbone, Standardise(3), spread(functions, 1))
    assert encoder(IMAGES).dtype == tf.float32


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("small_cnn", {}),
        ("small_cnn", {"components": 3, "head": "functions"}),
        ("pixels", {"scale": False, "head": "functions"}),
        ("gist", {"head": "functions"}),
    ],
)
def test_a_keras_file_keeps_all_of_it(tmp_path, backbone, options):
    encoder = make(backbone, **options)
    encoder.save(tmp_path / "encoder.keras")
    again = keras.models.load_model(tmp_path / "encoder.keras")
    assert isinstance(again, FeatureEncoder) and again.name == "mine"
    assert isinstance(again.hash_network, type(encoder.hash_network))
    assert again.standardise.components == options.get("components")
    np.testing.assert_array_equal(again(IMAGES), encoder(IMAGES))
    for one, same in zip(encoder.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_a_weights_file_fits_another_encoder_of_the_same_parts(tmp_path):
    encoder, other = make(), make()
    spread(other.hash_network, 2)
    assert np.abs(other(IMAGES) - encoder(IMAGES)).max() > 1e-3
    encoder.save_weights(tmp_path / "encoder.weights.h5")
    other.load_weights(tmp_path / "encoder.weights.h5")
    np.testing.assert_array_equal(other(IMAGES), encoder(IMAGES))
