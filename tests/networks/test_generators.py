"""The condition module and the generators: shapes, ranges, gradients, the same weights by seed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.networks import generators

SIZES = (16, 32, 64)
WIDTH, CONDITION, NOISE = 4, 5, 3


def normal(*shape):
    return tf.random.stateless_normal(shape, (0, 0))


@pytest.mark.parametrize(("image_size", "expected"), [(16, 2), (32, 3), (64, 4)])
def test_halvings_lead_to_4_px(image_size, expected):
    assert generators.halvings(image_size) == expected
    assert image_size / 2**expected == 4


@pytest.mark.parametrize("image_size", [0, 8, 28, 48, 128])
@pytest.mark.parametrize(
    "build",
    [
        lambda size: generators.image_generator(size, WIDTH, 0, "generator_p"),
        lambda size: generators.image_condition(size, WIDTH, CONDITION, 0),
    ],
)
def test_another_size_is_a_mistake_of_the_user(image_size, build):
    with pytest.raises(UserError, match=rf"gan_size: {image_size}; .*\(16, 32, 64\)"):
        build(image_size)


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("training", [False, True])
def test_image_generator_decodes_to_its_size(image_size, training):
    generator = generators.image_generator(image_size, WIDTH, 0, "generator_p")
    generator.build((None, CONDITION + NOISE))
    images = generator(normal(3, CONDITION + NOISE), training=training).numpy()
    assert (images.shape, images.dtype) == ((3, image_size, image_size, 3), np.float32)
    assert images.std() > 0
    assert generator.name == "generator_p"


def test_feature_generator_gives_features_without_bounds():
    features = generators.feature_generator(7, WIDTH, 0, "generator_n")(100 * normal(50, 8))
    assert (features.shape, features.dtype) == ((50, 7), tf.float32)
    assert np.abs(features).max() > 1 and np.min(features) < -1


@pytest.mark.parametrize("image_size", SIZES)
def test_image_condition_answers_mean_and_log_variance(image_size):
    condition = generators.image_condition(image_size, WIDTH, CONDITION, 0)
    mean, log_variance = condition(normal(2, image_size, image_size, 3))
    for output in (mean, log_variance):
        assert (output.shape, output.dtype) == ((2, CONDITION), tf.float32)
    assert mean.numpy().tolist() != log_variance.numpy().tolist()


def test_feature_condition_answers_mean_and_log_variance():
    mean, log_variance = generators.feature_condition(WIDTH, CONDITION, 0)(normal(2, 9))
    assert mean.shape == log_variance.shape == (2, CONDITION)


def test_log_variance_is_bounded_and_the_mean_is_not():
    """Features of a million give outputs of thousands either way; e^±8 is still a variance."""
    condition = generators.feature_condition(WIDTH, CONDITION, 0)
    mean, log_variance = condition(1e6 * normal(20, 9))
    assert (np.min(log_variance), np.max(log_variance)) == (-8, 8)
    assert np.abs(mean).max() > 8


@pytest.mark.parametrize(
    "build",
    [
        lambda seed: generators.image_generator(16, WIDTH, seed, "generator_p"),
        lambda seed: generators.feature_generator(7, WIDTH, seed, "generator_p"),
    ],
    ids=["images", "features"],
)
def test_gradients_flow_to_c_and_z(build):
    """Through the whole network in training, where batches are normalised."""
    generator, c_and_z = build(0), normal(4, CONDITION + NOISE)
    with tf.GradientTape() as tape:
        tape.watch(c_and_z)
        output = generator(c_and_z, training=True)
        # Not the plain sum: batch normalisation makes that nearly constant.
        score = tf.reduce_sum(output[:2]) + tf.reduce_sum(tf.square(output))
    gradient = tape.gradient(score, c_and_z).numpy()
    assert (np.abs(gradient).max(axis=0) > 0).all()


@pytest.mark.parametrize(
    "build",
    [
        lambda seed: generators.image_generator(16, WIDTH, seed, "generator_p"),
        lambda seed: generators.feature_generator(7, WIDTH, seed, "generator_p"),
    ],
    ids=["images", "features"],
)
def test_the_seed_decides_the_weights(build):
    c_and_z = normal(2, CONDITION + NOISE)
    first, again, other = (build(seed)(c_and_z).numpy() for seed in (0, 0, 50))
    np.testing.assert_allclose(first, again, rtol=1e-5)
    assert not np.allclose(first, other, rtol=1e-2)


def test_image_weights_are_dcgans():
    """N(0, .02): the deviation of a kernel of 16 · 16 · 128 values is within 3 % of it."""
    generator = generators.image_generator(32, 32, 0, "generator_p")
    generator.build((None, 64))
    kernel = next(v for v in generator.trainable_variables if len(v.shape) == 4).numpy()
    assert kernel.size > 30_000
    assert abs(kernel.mean()) < 1e-3
    assert kernel.std() == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_convolution_stack_normalises_all_but_its_first_level(batch_norm):
    """DCGAN: three levels at 32 px, filters doubling, no normalisation of the first."""
    stack = generators.convolution_stack(32, WIDTH, 0, batch_norm)
    kinds = [type(layer).__name__ for layer in stack]
    norm = ["BatchNormalization"] if batch_norm else []
    level = ["Conv2D", *norm, "LeakyReLU"]
    assert kinds == ["Conv2D", "LeakyReLU", *level, *level]
    filters = [layer.filters for layer in stack if hasattr(layer, "filters")]
    assert filters == [WIDTH, 2 * WIDTH, 4 * WIDTH]
