"""The hash network: values worked out by hand, gradients, and dropout that repeats."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import UserError
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
        ({"code_length": 0}, "`code_length`: 0; allowed: at least 1 bit"),
        ({"code_length": 8, "dropout": 1.0}, "`dropout`: 1.0; allowed: at least 0 and below 1"),
    ],
)
def test_impossible_values_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        HashNetwork(**arguments)


def spread(network, seed=0):
    """Weights so large that scores differ: normal, of deviation 1/2."""
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(0, 0.5, w.shape) for w in network.get_weights()])
    return network


def make_on_features(**options):
    network = HashNetwork(4, None, hidden_units=(5,), **options)
    network.build((None, 3))
    return spread(network)


FEATURES = tf.random.stateless_normal((6, 3), SEED)


def test_call_is_the_sigmoid_of_the_scores():
    network = make_on_features()
    scores = network.scores(FEATURES)
    assert (scores.shape, scores.dtype) == ((6, 4), tf.float32)
    np.testing.assert_allclose(network(FEATURES), tf.sigmoid(scores), rtol=1e-6)
    assert ((scores.numpy() > 0) == (network(FEATURES).numpy() > 0.5)).all()


def test_scores_drop_the_units_that_the_call_drops():
    network = make_on_features(dropout=0.5)
    dropped = network.scores(FEATURES, training=True, dropout_seed=SEED)
    call = network(FEATURES, training=True, dropout_seed=SEED)
    np.testing.assert_allclose(call, tf.sigmoid(dropped), rtol=1e-6)
    assert np.abs(dropped - network.scores(FEATURES)).max() > 1e-3
    with pytest.raises(ValueError, match="dropout_seed"):
        network.scores(FEATURES, training=True)


def test_heads_beside_the_hash_layer_answer_what_they_answer_alone():
    """The k scores, then those of each head in their order, of the same features."""
    network = make_on_features()
    heads = [keras.layers.Dense(units) for units in (1, 2)]
    for seed, head in enumerate(heads, start=1):
        head.build((None, network.width))
        spread(head, seed)
    together = network.scores(FEATURES, beside=heads)
    alone = [network.scores(FEATURES), *(head(network.features(FEATURES)) for head in heads)]
    assert together.shape == (6, 4 + 1 + 2)
    np.testing.assert_allclose(together, tf.concat(alone, 1), rtol=1e-5, atol=1e-6)


def test_scores_of_features_that_a_caller_dropped_from():
    """Features, what is left of them, and scores of that: step by step what `scores` answers."""
    network = make_on_features(dropout=0.5)
    head = keras.layers.Dense(2)
    head.build((None, network.width))
    features = network.features(FEATURES)
    whole = network.scores(FEATURES, training=True, dropout_seed=SEED, beside=[head])
    dropped = network.dropped(features, SEED)
    np.testing.assert_array_equal(network.scores_of(dropped, [head]), whole)
    assert np.abs(network.scores_of(features, [head]) - whole).max() > 1e-3
    with pytest.raises(ValueError, match="dropout_seed"):
        network.dropped(features, None)
    assert make_on_features().dropped(features, None) is features


def test_width_is_what_the_hash_layer_sees():
    assert make_on_features().width == 5
    network = HashNetwork(2, backbones.build("small_cnn"))
    network.build((None, 16, 16, 3))
    assert network.width == 256


def test_scores_are_float32_under_mixed_precision(mixed_bfloat16):
    network = make_on_features()
    assert network.hidden_layers[0].compute_dtype == "bfloat16"
    assert network.scores(FEATURES).dtype == tf.float32


def check_keras_file(network, items, path):
    """The file alone gives a network of the same configuration with the same answers."""
    network.save(path)
    again = keras.models.load_model(path)
    assert isinstance(again, HashNetwork) and again.name == network.name
    for name in ("code_length", "dropout", "width"):
        assert getattr(again, name) == getattr(network, name)
    assert [layer.units for layer in again.hidden_layers] == [7]
    np.testing.assert_array_equal(again(items), network(items))
    np.testing.assert_array_equal(again.scores(items), network.scores(items))
    assert network(items).numpy().std() > 1e-3
    return again


def test_a_keras_file_keeps_a_network_on_images(tmp_path):
    network = HashNetwork(4, backbones.build("small_cnn"), (7,), 0.25, name="mine")
    network.build((None, None, None, 3))
    images = tf.random.stateless_uniform((2, 16, 16, 3), SEED, maxval=255)
    again = check_keras_file(network, images, tmp_path / "network.keras")
    assert again.backbone.count_params() == network.backbone.count_params()


def make_mirrored(mirrored=True, **options):
    network = HashNetwork(4, backbones.build("small_cnn"), (7,), 0.25, mirrored=mirrored, **options)
    network.build((None, None, None, 3))
    return network


def test_a_mirrored_network_answers_the_mean_of_an_image_and_its_mirror_image():
    mirrored, plain = make_mirrored(), make_mirrored(False)
    plain.set_weights(mirrored.get_weights())
    images = tf.random.stateless_uniform((3, 16, 20, 3), SEED, maxval=255)
    of_image, of_mirror = plain(images).numpy(), plain(images[:, :, ::-1]).numpy()
    np.testing.assert_allclose(mirrored(images), (of_image + of_mirror) / 2, rtol=1e-5)
    assert np.abs(of_image - of_mirror).max() > 1e-4
    upside_down = (of_image + plain(images[:, ::-1]).numpy()) / 2
    assert np.abs(mirrored(images) - upside_down).max() > 1e-4
    np.testing.assert_allclose(mirrored(images[:, :, ::-1]), mirrored(images), rtol=1e-5)
    # uint8, as `predict` gets them, and a batch whose size the graph does not know.
    whole = tf.cast(images, tf.uint8)
    graph = tf.function(mirrored, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    expected = (plain(whole).numpy() + plain(whole[:, :, ::-1]).numpy()) / 2
    np.testing.assert_allclose(graph(whole), expected, rtol=1e-5)
    np.testing.assert_allclose(mirrored.predict(whole, verbose=0), expected, rtol=1e-5)


def test_a_mirrored_network_learns_from_images_as_they_come():
    mirrored, plain = make_mirrored(), make_mirrored(False)
    plain.set_weights(mirrored.get_weights())
    images = tf.random.stateless_uniform((3, 16, 16, 3), SEED, maxval=255)
    answers = [n(images, training=True, dropout_seed=SEED).numpy() for n in (mirrored, plain)]
    np.testing.assert_array_equal(*answers)
    np.testing.assert_array_equal(mirrored.scores(images), plain.scores(images))


def test_a_keras_file_keeps_that_a_network_is_mirrored(tmp_path):
    images = tf.random.stateless_uniform((2, 16, 16, 3), SEED, maxval=255)
    assert check_keras_file(make_mirrored(), images, tmp_path / "network.keras").mirrored


def test_features_cannot_be_mirrored():
    with pytest.raises(UserError, match="`mirrored`: True; allowed with a backbone"):
        HashNetwork(4, mirrored=True)


def test_a_keras_file_keeps_the_precision_of_hidden_layers(tmp_path, mixed_bfloat16):
    """Whatever the policy is where it is loaded: else bits of images near a border would differ."""
    network = HashNetwork(4, None, (7,), 0.25)
    network.build((None, 3))
    keras.config.set_dtype_policy("float32")
    again = check_keras_file(spread(network), FEATURES, tmp_path / "network.keras")
    assert again.hidden_layers[0].compute_dtype == "bfloat16"
    assert again.hash_layer.compute_dtype == "float32"


def test_a_keras_file_keeps_a_network_on_features(tmp_path):
    network = HashNetwork(4, None, (7,), 0.25)
    network.build((None, 3))
    again = check_keras_file(spread(network), FEATURES, tmp_path / "network.keras")
    assert again.backbone is None
