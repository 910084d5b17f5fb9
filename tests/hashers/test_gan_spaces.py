"""Pixels and features: what generators decode, and the standardisation of features."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.hashers import spaces
from tfhash.hashers.deep import DeepSettings
from tfhash.hashers.spaces import FeatureSpace, PixelSpace, Standardise


@pytest.fixture(scope="module")
def pixels():
    return PixelSpace(DeepSettings(), image_size=16, gan_size=16, width=4, seed=0)


def test_synthetic_images_stay_in_range_and_come_back_as_0_to_255(pixels):
    """tanh of anything is in [-1, 1]; (-1, 0, 1) are the grey levels 0, 127.5, 255."""
    synthetic = pixels.synthetic(tf.constant([-1e6, 0.0, 1e6]))
    np.testing.assert_allclose(synthetic, [-1, 0, 1])
    np.testing.assert_allclose(pixels.to_hash(synthetic), [0, 127.5, 255])


def test_h_gets_synthetic_images_as_large_as_real_ones():
    """A grey image stays grey, and so does the mean of any image, within a grey level."""
    space = PixelSpace(DeepSettings(), image_size=48, gan_size=16, width=4, seed=0)
    grey = space.to_hash(tf.zeros((2, 16, 16, 3)))
    assert grey.shape == (2, 48, 48, 3)
    np.testing.assert_allclose(grey, np.full(grey.shape, 127.5), rtol=1e-6)
    noise = tf.constant(np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(noise)
        enlarged = space.to_hash(noise)
        mean = tf.reduce_mean(enlarged)
    assert abs(mean - (tf.reduce_mean(noise) + 1) * 127.5) < 1
    assert (tape.gradient(mean, noise).numpy() > 0).all()


def test_without_weights_a_judge_sees_synthetic_images_as_g_made_them():
    """Real ones are made as small; neither is made small twice."""
    space = PixelSpace(DeepSettings(), image_size=48, gan_size=16, width=4, seed=0)
    synthetic = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(space.describe(synthetic), synthetic.reshape(2, -1))
    real = np.full((2, 48, 48, 3), 255, np.uint8)
    np.testing.assert_allclose(space.describe(real), np.ones((2, 16 * 16 * 3)), atol=1e-6)


def test_a_residual_generator_that_decodes_0_answers_x(pixels):
    """tanh(0 + artanh(.98 x)) = .98 x; and decoding upward makes it brighter."""
    x = tf.linspace(-1.0, 1.0, 9)
    np.testing.assert_allclose(pixels.synthetic(tf.zeros(9), x), 0.98 * x, atol=1e-6)
    assert (pixels.synthetic(tf.fill(9, 0.5), x).numpy() > 0.98 * x.numpy()).all()


def test_to_gan_maps_grey_levels_and_resizes(pixels):
    x = tf.constant(np.full((2, 32, 32, 3), 255, np.uint8))
    np.testing.assert_allclose(pixels.to_gan(x), np.ones((2, 16, 16, 3)), atol=1e-6)


def test_pictures_are_the_images_again(pixels):
    x = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    (same,) = pixels.pictures(x)
    np.testing.assert_array_equal(same, x)


def test_descriptions_are_float32_under_mixed_precision(monkeypatch):
    """SciPy, which measures distances between them, knows no bfloat16."""
    mixed = "mixed_bfloat16"
    of_backbone = [keras.layers.Conv2D(2, 16, dtype=mixed), keras.layers.Flatten(dtype=mixed)]
    backbone = keras.Sequential([keras.Input((16, 16, 3)), *of_backbone])
    assert backbone(tf.zeros((1, 16, 16, 3))).dtype == tf.bfloat16
    monkeypatch.setattr(spaces, "build_backbone", lambda settings, frozen: backbone)
    settings = DeepSettings(weights="given.npz")
    space = PixelSpace(settings, image_size=16, gan_size=16, width=4, seed=0)
    for items in (np.zeros((3, 16, 16, 3), np.uint8), np.zeros((3, 16, 16, 3), np.float32)):
        described = space.describe(items)
        assert described.dtype == np.float32 and described.shape == (3, 2)


def test_standardise_by_hand():
    """[1, 3] and [3, 3]: mean [2, 3], deviation [1, 0]; a constant feature stays unscaled."""
    layer = Standardise(2)
    layer.adapt(np.array([[1, 3], [3, 3]], np.float32))
    np.testing.assert_allclose(layer(np.array([[4.0, 5.0]], np.float32)), [[2, 2]])


def test_components_are_uncorrelated_with_mean_variance_1():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 7).astype(np.float32)
    layer = Standardise(6, components=3)
    layer.adapt(features)
    covariance = np.cov(layer(features).numpy().T)
    off_diagonal = covariance - np.diag(np.diag(covariance))
    assert np.abs(off_diagonal).max() < 1e-4
    assert np.diag(covariance).mean() == pytest.approx(1.0, rel=1e-3)
    assert (np.diff(np.diag(covariance)) < 0).all()


def test_features_need_weights_and_possible_components(tmp_path):
    with pytest.raises(UserError, match="--weights"):
        FeatureSpace(DeepSettings(), 16, 16, 4, 0)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_a_discriminator_of_source_and_class_for_each_size(side):
    space = PixelSpace(DeepSettings(), image_size=16, gan_size=side, width=4, seed=0)
    source, classes = space.source_class_discriminator(5, True, 0.0)(space.example(2))
    assert (source.shape, classes.shape) == ((2,), (2, 5))


def test_its_weights_follow_from_the_seed():
    def kernels(seed):
        space = PixelSpace(DeepSettings(), image_size=16, gan_size=16, width=4, seed=seed)
        network = space.source_class_discriminator(5, False, 0.0)
        network(space.example(1))
        return network.get_weights()

    first, same, other = kernels(0), kernels(0), kernels(1)
    for a, b, c in zip(first, same, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any() or not a.any()  # a bias is 0


def test_it_passes_batch_normalisation_and_dropout_on(pixels):
    def build(batch_norm, dropout):
        network = pixels.source_class_discriminator(5, batch_norm, dropout)
        network(pixels.example(1))
        return network

    for batch_norm in (False, True):
        assert bool(build(batch_norm, 0.3).non_trainable_variables) == batch_norm
        assert build(batch_norm, 0.3).dropout == 0.3
