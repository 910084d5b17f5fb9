"""Pixels and features: what generators decode, what is refused, and the scaling of features."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.data.pipeline import FlipAndShift
from tfhash.errors import UserError
from tfhash.hashers import gan_features, gan_spaces, spaces
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.hashers.gan_features import GANFeatures, GANTrunk, make_gan_space
from tfhash.hashers.gan_spaces import GANPixels
from tfhash.networks import features
from tfhash.networks.discriminators import SourceClassDiscriminator
from tfhash.networks.features import Standardise


def make_pixels(image_size=16, gan_size=16, seed=0, settings=None):
    return GANPixels(settings or DeepSettings(), image_size, gan_size, width=4, seed=seed)


@pytest.fixture(scope="module")
def pixels():
    return make_pixels()


FEATURES = 6


def make_features(monkeypatch, components=None):
    """Features of images of 16 px: FEATURES sums of pixels under fixed weights."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    sums = keras.layers.Dense(FEATURES)(keras.layers.Flatten()(images))
    backbone = keras.Model(images, sums)
    monkeypatch.setattr(spaces, "build_backbone", lambda settings, frozen: backbone)
    settings = DeepSettings(weights="given.npz", feature_components=components, cache_dir=None)
    return GANFeatures(settings, image_size=16, width=4, seed=0)


def of_value(*values, size=16):
    """One image of each value, float32 [n, size, size, 3]."""
    return tf.ones((len(values), size, size, 3)) * tf.reshape(tf.constant(values), (-1, 1, 1, 1))


def test_synthetic_images_stay_in_range_and_come_back_as_0_to_255(pixels):
    """tanh of anything is in [-1, 1]; (-1, 0, 1) are the grey levels 0, 127.5, 255."""
    synthetic = pixels.synthetic(of_value(-1e6, 0.0, 1e6))
    np.testing.assert_allclose(synthetic, of_value(-1.0, 0.0, 1.0))
    np.testing.assert_allclose(pixels.to_hash(synthetic), of_value(0.0, 127.5, 255.0))


def test_h_gets_synthetic_images_as_large_as_real_ones():
    """A grey image stays grey, and so does the mean of any image, within a grey level."""
    space = make_pixels(image_size=48)
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
    space = make_pixels(image_size=48)
    synthetic = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(space.describe(synthetic), synthetic.reshape(2, -1))
    real = np.full((2, 48, 48, 3), 255, np.uint8)
    np.testing.assert_allclose(space.describe(real), np.ones((2, 16 * 16 * 3)), atol=1e-6)


def test_a_residual_generator_that_decodes_0_answers_x(pixels):
    """tanh(0 + artanh(.98 x)) = .98 x; and decoding upward makes it brighter."""
    x = of_value(*np.linspace(-1, 1, 9, dtype=np.float32))
    np.testing.assert_allclose(pixels.synthetic(tf.zeros_like(x), x), 0.98 * x, atol=1e-6)
    assert (pixels.synthetic(tf.fill(x.shape, 0.5), x).numpy() > 0.98 * x.numpy()).all()


@pytest.mark.parametrize("image_size", [8, 16, 32])
def test_to_gan_maps_grey_levels_and_resizes(image_size):
    """255 is 1 and 0 is -1."""
    for level, expected in ((255, 1.0), (0, -1.0)):
        x = tf.constant(np.full((2, image_size, image_size, 3), level, np.uint8))
        seen = make_pixels(image_size).to_gan(x)
        assert seen.dtype == tf.float32
        np.testing.assert_allclose(seen, of_value(expected, expected), atol=1e-6)


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
    monkeypatch.setattr(gan_spaces, "build_backbone", lambda settings, frozen: backbone)
    space = make_pixels(settings=DeepSettings(weights="given.npz"))
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


def test_features_need_weights_and_possible_components(monkeypatch):
    with pytest.raises(UserError, match="`weights`: none"):
        make_gan_space("features", DeepSettings(), 16, gan_size=16, width=4, seed=0)
    with pytest.raises(UserError, match="`feature_components`: 7; allowed: 1 to 6"):
        make_features(monkeypatch, components=7)
    assert make_features(monkeypatch, components=2).gan_shape == (2,)


def source_class_discriminator(space, batch_norm=True):
    """D of DSH-GANs on the trunk of a space."""
    return SourceClassDiscriminator(space.trunk(batch_norm).layers, 5, 0.0, space.seed + 450)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_a_discriminator_of_source_and_class_for_each_size(side):
    space = make_pixels(gan_size=side)
    source, classes = source_class_discriminator(space)(space.example(2))
    assert (source.shape, classes.shape) == ((2,), (2, 5))


def test_its_weights_follow_from_the_seed():
    def kernels(seed):
        space = make_pixels(seed=seed)
        network = source_class_discriminator(space, False)
        network(space.example(1))
        return network.get_weights()

    first, same, other = kernels(0), kernels(0), kernels(1)
    for a, b, c in zip(first, same, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any() or not a.any()  # a bias is 0


def test_a_trunk_has_batch_normalisation_where_it_is_asked_for(pixels):
    for batch_norm in (False, True):
        network = source_class_discriminator(pixels, batch_norm)
        network(pixels.example(1))
        assert bool(network.non_trainable_variables) == batch_norm


@pytest.mark.parametrize("kind", ["pixels", "features"])
def test_the_networks_of_a_space_fit_its_items(kind, monkeypatch):
    """The condition and the trunk take items of D, and the generator decodes such."""
    space = make_pixels(image_size=24) if kind == "pixels" else make_features(monkeypatch)
    mean, log_variance = space.condition(3)(space.example(2))
    assert mean.shape == log_variance.shape == (2, 3)
    decoded = space.generator("generator", 200)(tf.ones((2, 7)))
    assert space.synthetic(decoded).shape == (2, *space.gan_shape)
    assert space.to_hash(space.synthetic(decoded)).shape == (2, *space.item_shape)
    trunk = space.trunk(batch_norm=False)
    hidden = keras.Sequential(trunk.layers)(space.example(2))
    assert hidden.shape[0] == 2 and hidden.shape.rank == 2
    if kind == "features":
        assert hidden.shape[1] == trunk.width == 4


def test_features_are_what_g_d_and_h_see(monkeypatch):
    """Nothing is resized or squashed: what G decodes is what H gets; with x a change of x."""
    space = make_features(monkeypatch)
    assert space.item_shape == space.gan_shape == (FEATURES,)
    x, decoded = (tf.random.stateless_normal((4, FEATURES), (0, seed)) * 9 for seed in (1, 2))
    np.testing.assert_array_equal(space.to_gan(x), x)
    np.testing.assert_array_equal(space.synthetic(decoded), decoded)
    np.testing.assert_allclose(space.synthetic(decoded, x), x + decoded)
    np.testing.assert_array_equal(space.to_hash(decoded), decoded)
    np.testing.assert_array_equal(space.describe(x.numpy()), x)


def test_the_picture_of_features_is_the_nearest_image(monkeypatch):
    space = make_features(monkeypatch)
    with pytest.raises(RuntimeError, match="pictures: expected `inputs` first"):
        space.pictures(np.zeros((1, FEATURES), np.float32))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    inputs = space.inputs(images, np.arange(2, 8))
    real, synthetic = space.pictures(inputs[4:6, 0], inputs[[7], 0] + 1e-3)
    np.testing.assert_array_equal(real, images[4:6])
    np.testing.assert_array_equal(synthetic, images[[7]])


# Of a space on images of 24 px with G and D on 16 px, and of one on six features.
SHAPES = {"pixels": ((24, 24, 3), (16, 16, 3)), "features": ((FEATURES,), (FEATURES,))}
OPERATIONS = {
    "to_gan": ("to_gan", 0, lambda space, items: space.to_gan(items)),
    "to_hash": ("to_hash", 1, lambda space, items: space.to_hash(items)),
    "synthetic": ("synthetic", 1, lambda space, items: space.synthetic(items)),
    "synthetic with x": (
        "synthetic, x", 1, lambda space, items: space.synthetic(space.example(2), items)
    ),
}  # fmt: skip


@pytest.fixture(params=["pixels", "features"])
def space(request, monkeypatch):
    if request.param == "pixels":
        return make_pixels(image_size=24)
    return make_features(monkeypatch)


@pytest.fixture
def item_and_gan_shape(space):
    return SHAPES["pixels" if isinstance(space, GANPixels) else "features"]


def wrong_shapes(shape):
    """Groups, one item without an axis of items, another size, and another number of channels."""
    larger = (*shape[:-1], shape[-1] + 1)
    another_size = (shape[0] + 1, *shape[1:])
    return [(2, 2, *shape), shape, (2, *larger), (2, *another_size), ()]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_flat_items_of_the_right_size_alone_are_taken(space, item_and_gan_shape, operation):
    what, kind, apply = OPERATIONS[operation]
    shape = item_and_gan_shape[kind]
    assert apply(space, tf.zeros((2, *shape))).shape[0] == 2
    for wrong in wrong_shapes(shape):
        with pytest.raises(ValueError) as error:
            apply(space, tf.zeros(wrong))
        expected = f"{what}: expected [n, {', '.join(map(str, shape))}], received {wrong}"
        assert str(error.value) == expected


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_same_holds_in_a_graph_of_any_batch_size(space, item_and_gan_shape, operation):
    what, kind, apply = OPERATIONS[operation]
    shape = item_and_gan_shape[kind]

    def graph_of(*signature):
        function = tf.function(lambda items: apply(space, items))
        return function.get_concrete_function(tf.TensorSpec(signature, tf.float32))

    answer = graph_of(None, *shape)(tf.zeros((2, *shape)))
    assert answer.shape == apply(space, tf.zeros((2, *shape))).shape
    for wrong in ((None, None, *shape), (None, 2, *shape), (None, *shape[:-1], shape[-1] + 1)):
        with pytest.raises(ValueError, match=f"{what}: expected .n, .* received .None, "):
            graph_of(*wrong)


def test_a_size_that_a_graph_does_not_know_yet_passes(pixels):
    """As in `keras.Model.predict` of images of any size: the rank is known, the rest is not."""
    function = tf.function(pixels.to_gan)
    unknown = tf.TensorSpec((None, None, None, 3), tf.float32)
    assert function.get_concrete_function(unknown)(tf.zeros((2, 16, 16, 3))).shape == (2, 16, 16, 3)


def test_images_of_another_size_are_refused(space):
    for wrong in ((3, 20, 20, 3), (3, 1, 16, 16, 3)):
        with pytest.raises(ValueError, match="images: expected .n, "):
            space.inputs(np.zeros(wrong, np.uint8), np.arange(3))


@pytest.mark.parametrize("gan_size", [16, 32])
def test_gradients_flow_through_all_three(gan_size):
    """With G and D on images that are smaller and larger than those of H."""
    space = make_pixels(image_size=24, gan_size=gan_size)
    x = tf.random.stateless_uniform((2, 24, 24, 3), (0, 1), 0, 255)
    decoded = tf.random.stateless_normal((2, gan_size, gan_size, 3), (0, 2))
    with tf.GradientTape() as tape:
        tape.watch([x, decoded])
        answer = space.to_hash(space.synthetic(decoded, space.to_gan(x)))
        assert answer.shape == (2, 24, 24, 3)
        total = tf.reduce_sum(answer**2)
    for gradient in tape.gradient(total, [x, decoded]):
        assert np.isfinite(gradient).all() and (np.abs(gradient) > 0).mean() > 0.9


def test_the_views_of_features_stand_beside_each_other(monkeypatch):
    """Of an image and of its mirror image: [n, 2, F], and both by the statistics of the first."""
    space = make_features(monkeypatch)
    space.settings = dataclasses.replace(space.settings, flip=True)
    images = np.random.default_rng(5).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    inputs = space.inputs(images, np.arange(4))
    mirrored = space.standardise(space.backbone(images[:, :, ::-1].astype(np.float32)))
    assert inputs.shape == (6, 2, *space.item_shape)
    np.testing.assert_allclose(inputs[:, 1], mirrored, rtol=1e-4, atol=1e-4)


def make_trunk(**settings):
    space = make_gan_space("trunk", DeepSettings(**settings), 16, gan_size=16, width=4, seed=0)
    return space, space.hash_network(8, (), 0.0)


def test_on_a_trunk_g_and_d_see_what_the_backbone_answers(tmp_path):
    """Standardised over the images that are learned from."""
    space, network = make_trunk(flip=True)
    assert isinstance(space, GANTrunk) and space.item_shape == (16, 16, 3)
    images = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3)).astype(np.uint8)
    learned = np.arange(3, 12)
    seen = space.look(images, learned, tmp_path / "features")
    assert seen.shape == (12, 1, *space.gan_shape) and seen.dtype == np.float32
    raw = network.backbone(images.astype(np.float32)).numpy()
    deviation = raw[learned].std(axis=0)
    scaled = (raw - raw[learned].mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    np.testing.assert_allclose(seen[:, 0], scaled, atol=1e-3)
    assert len(list((tmp_path / "features").iterdir())) == 1
    np.testing.assert_array_equal(space.to_gan(seen[:, 0]), seen[:, 0])
    with pytest.raises(ValueError, match="to_gan: expected"):
        space.to_gan(images)


def test_what_g_makes_of_a_trunk_comes_back_to_the_scale_of_the_backbone():
    """So H of an image is what is above its backbone of that image's features, there and back."""
    space, network = make_trunk(standardise_features=True)
    images = np.random.default_rng(1).integers(0, 255, (8, 16, 16, 3)).astype(np.uint8)
    space.inputs(images, np.arange(8))
    seen = space.look(images, np.arange(8), None)[:, 0]
    code = network.above_backbone(space.to_hash(space.synthetic(seen)))
    np.testing.assert_allclose(code, network(images.astype(np.float32)), atol=1e-4)
    np.testing.assert_array_equal(space.pictures(seen)[0], images)


def test_views_are_chosen_by_flags_and_features_have_none(monkeypatch):
    space = make_pixels(settings=DeepSettings(unlabelled_view="strong", strength=0.2, cut_out=0.5))
    assert space.augment is space.weak_view and space.has_strong_views
    strong = space.unlabelled_augment
    assert (strong.weak, strong.strength, strong.hole) == (space.weak_view, 0.2, 0.5)
    space = make_pixels(settings=DeepSettings(view="strong"))
    assert space.augment is not space.weak_view is space.unlabelled_augment
    assert not make_pixels().has_strong_views
    space = make_pixels(settings=DeepSettings(flip=True, shift=3, shift_fill="reflect"))
    assert space.weak_view == FlipAndShift(True, 3, "reflect")
    assert make_pixels().weak_view == FlipAndShift(False, 1, "repeat")
    for name in ("view", "unlabelled_view"):
        with pytest.raises(UserError, match=f"`{name}`: strong; not on features"):
            settings = DeepSettings(weights="given.npz", **{name: "strong"})
            spaces.FeatureSpace(settings, image_size=16, seed=0)
    of_learning = (("standardise_features", True), ("trunk_rate", 0.5), ("trunk_from", 9))
    for name, value in (*of_learning, ("mirrored_codes", True)):
        with pytest.raises(UserError, match=f"`{name}`: {value}; not on features"):
            settings = DeepSettings(weights="given.npz", flip=True, **{name: value})
            spaces.FeatureSpace(settings, image_size=16, seed=0)


def test_the_nearest_ones_are_found_part_by_part(monkeypatch):
    """As by all distances at once; of two at one distance the first position counts."""
    monkeypatch.setattr(features, "CHUNK", 7)
    rng = np.random.default_rng(0)
    known, rows = rng.integers(0, 3, (60, 3)), rng.integers(0, 3, (20, 3))
    positions = rng.permutation(60)[:45]
    squared = ((rows[:, None] - known[positions]) ** 2).sum(axis=-1)
    found = gan_features.nearest(np.float32(rows), np.float32(known), positions)
    assert set(found) <= set(positions)
    of_found = ((rows - known[found]) ** 2).sum(axis=-1)
    np.testing.assert_array_equal(of_found, squared.min(axis=1))


def test_many_images_go_to_a_network_in_calls_of_whole_batches(monkeypatch):
    """At most 4 images of 12 bytes a call, of 50 bytes; a batch of 3 leaves 3 a call."""
    calls = []

    class Network:
        def predict(self, images, batch_size, verbose):
            calls.append((len(images), batch_size))
            return images.reshape(len(images), -1)[:, :2] + np.float32(0.5)

    monkeypatch.setattr(spaces, "_AT_ONCE", 50)
    images = np.random.default_rng(0).integers(0, 256, (8, 2, 2, 3), np.uint8)
    found = spaces.predict(Network(), images, 3)
    np.testing.assert_array_equal(found, images.reshape(8, -1)[:, :2] + np.float32(0.5))
    assert calls == [(3, 3), (3, 3), (2, 3)]
    calls.clear()
    spaces.predict(Network(), images, 2)
    assert calls == [(4, 2), (4, 2)]
