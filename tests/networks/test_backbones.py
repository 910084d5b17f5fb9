"""Backbones: layers against brute force, pretrained weights, gradients, freezing and export."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_image

from tfhash.networks import backbones, weights
from tfhash.networks.image_layers import (
    ApplicationPreprocessing,
    GroupedConv2D,
    LocalResponseNormalization,
)

SQUEEZENET = Path(__file__).parents[3] / "shared/weights/squeezenet_v1.0_imagenet.npz"


@pytest.fixture(scope="module")
def alexnet():
    return backbones.build("alexnet")


@pytest.fixture(scope="module")
def small_cnn():
    return backbones.build("small_cnn")


def random_images(count=2, height=16, width=16):
    return np.random.default_rng(0).uniform(0, 255, (count, height, width, 3)).astype("float32")


def image_gradient(model, images):
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        features = model(images)
    return tape.gradient(features, images).numpy()


def arrays_of(model):
    """{"layer/variable": array} of a model of the test's own."""
    return {
        f"{layer.name}/{variable.name}": variable.numpy()
        for layer in model.layers
        for variable in layer.weights
    }


def test_names():
    assert {"alexnet", "squeezenet", "small_cnn", "vgg19", "resnet50"} <= set(backbones.names())


@pytest.mark.parametrize("size", [16, 32])
def test_small_cnn_takes_any_size(small_cnn, size):
    images = random_images(2, size, size + 3)
    assert small_cnn(images).shape == (2, 256)
    assert np.all(np.any(image_gradient(small_cnn, images) != 0, axis=(1, 2, 3)))


def test_alexnet_has_the_shapes_of_the_caffe_model(alexnet):
    kernels = {
        layer.name: tuple(layer.kernel.shape)
        for layer in alexnet.get_layer("alexnet").layers
        if layer.weights
    }
    # Those of bvlc_alexnet; the groups of conv2, 4 and 5 halve their input channels.
    assert kernels == {
        "conv1": (11, 11, 3, 96),
        "conv2": (5, 5, 48, 256),
        "conv3": (3, 3, 256, 384),
        "conv4": (3, 3, 192, 384),
        "conv5": (3, 3, 192, 256),
        "fc6": (9216, 4096),
        "fc7": (4096, 4096),
    }


def test_alexnet_gives_fc7_and_gradients(alexnet):
    images = random_images(1, 40, 30)
    assert alexnet(images).shape == (1, 4096)
    assert np.any(image_gradient(alexnet, images) != 0)


def test_a_grouped_convolution_sees_its_own_channels_and_needs_no_xla():
    # 1 x 1 kernels of ones: each output is the sum over the channels of its group, plus the bias.
    layer = GroupedConv2D(4, 1, groups=2, kernel_initializer="ones", bias_initializer="ones")
    images = np.array([1.0, 2.0, 30.0, 40.0], np.float32).reshape(1, 1, 1, 4)
    assert layer(images).numpy().ravel().tolist() == [4, 4, 71, 71]
    assert tuple(layer.kernel.shape) == (1, 1, 2, 4)
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec([None, 3, 3, 4])).graph
    functions = graph.as_graph_def().library.function
    assert not any(function.attr["_XlaMustCompile"].b for function in functions)


def test_vgg19_is_pooled_and_normalised_as_keras_does():
    model = backbones.build("vgg19", input_size=32)
    image = random_images(1, 32, 32)
    # keras.applications.vgg19 wants BGR minus the mean pixel of ImageNet.
    normalised = image[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    expected = model.get_layer("vgg19")(normalised)
    assert expected.shape == (1, 512)
    np.testing.assert_allclose(model(image), expected, rtol=1e-4, atol=1e-6)
    assert np.any(image_gradient(model, image) != 0)


def test_application_preprocessing_is_that_of_its_module():
    # mobilenet_v2 wants [-1, 1].
    np.testing.assert_allclose(
        ApplicationPreprocessing("mobilenet_v2")(tf.constant([[[[0.0, 127.5, 255.0]]]])),
        [[[[-1, 0, 1]]]],
    )


def test_image_of_the_input_size_is_not_touched():
    model = backbones.build("squeezenet", input_size=32)
    image = random_images(1, 32, 32)
    normalised = image[..., ::-1] - np.float32([104, 117, 123])
    np.testing.assert_array_equal(model(image), model.get_layer("squeezenet")(normalised))


@pytest.mark.parametrize("size", range(3, 10))
def test_pooling_rounds_up_as_caffe_does(size):
    maps = np.random.default_rng(size).normal(size=(1, size, size, 2)).astype("float32")
    inputs = keras.Input((size, size, 2))
    pool = keras.Model(inputs, backbones._caffe_max_pooling(inputs, "pool"))
    # Caffe's rule: ceil((n - 3) / 2) + 1 windows; the last may reach over the border.
    starts = 2 * np.arange(int(np.ceil((size - 3) / 2)) + 1)
    expected = [[maps[0, i : i + 3, j : j + 3].max(axis=(0, 1)) for j in starts] for i in starts]
    np.testing.assert_array_equal(pool(maps)[0], expected)


def test_local_response_normalization_is_caffes():
    maps = np.random.default_rng(0).normal(scale=100, size=(1, 2, 2, 7)).astype("float32")
    expected = np.empty_like(maps)
    for channel in range(7):
        window = maps[..., max(channel - 2, 0) : channel + 3]  # 5 channels around this one
        expected[..., channel] = (
            maps[..., channel] / (1 + 1e-4 / 5 * np.sum(window**2, axis=-1)) ** 0.75
        )
    np.testing.assert_allclose(LocalResponseNormalization()(maps), expected, rtol=1e-5)


@pytest.mark.skipif(not SQUEEZENET.exists(), reason=f"{SQUEEZENET} is not there")
def test_pretrained_squeezenet_recognises_a_photograph():
    model = backbones.build("squeezenet", weights=SQUEEZENET)
    trunk = model.get_layer("squeezenet")
    photograph = load_sample_image("china.jpg")[None].astype("float32")  # a temple's roofs
    normalised = tf.image.resize(photograph, (227, 227)).numpy()[..., ::-1] - [104, 117, 123]
    fire9 = keras.Model(trunk.input, trunk.get_layer("fire9").output)(normalised).numpy()
    np.testing.assert_allclose(model(photograph), fire9.mean(axis=(1, 2)), rtol=1e-3)
    # The classifier, which backbones leave out: conv10 (padding 1), ReLU, mean over space.
    conv10 = np.load(SQUEEZENET)
    padded = np.pad(fire9, ((0, 0), (1, 1), (1, 1), (0, 0)))
    class_maps = np.maximum(padded @ conv10["conv10/kernel"][0, 0] + conv10["conv10/bias"], 0)
    assert class_maps.mean(axis=(1, 2)).argmax() == 442  # ImageNet's "bell cote"


def test_npz_weights_are_loaded_by_name(tmp_path, small_cnn):
    arrays = arrays_of(small_cnn.get_layer("small_cnn"))
    arrays = {name: array + 1 for name, array in arrays.items()}
    np.savez(tmp_path / "weights.npz", **arrays, **{"classifier/kernel": np.zeros(3)})
    loaded = backbones.build("small_cnn", weights=tmp_path / "weights.npz")
    for name, array in arrays_of(loaded.get_layer("small_cnn")).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_h5_weights_are_loaded(tmp_path, small_cnn):
    path = tmp_path / "small.weights.h5"
    small_cnn.get_layer("small_cnn").save_weights(path)
    images = random_images()
    loaded = backbones.build("small_cnn", weights=str(path))
    np.testing.assert_array_equal(loaded(images), small_cnn(images))


def one_layer_model(name="fire2_squeeze1x1"):
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(3, name=name)(inputs))


def test_slashes_of_a_file_are_underscores_of_layer_names():
    model = one_layer_model()
    kernel, bias = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    arrays = {"fire2/squeeze1x1/kernel": kernel, "fire2/squeeze1x1/bias": bias}
    weights.assign(model, arrays, source="a file")
    np.testing.assert_array_equal(model.layers[-1].kernel, kernel)
    np.testing.assert_array_equal(model.layers[-1].bias, bias)


def test_pickled_weights_are_read_on_demand_only(tmp_path):
    path = tmp_path / "bvlc_alexnet.npy"
    kernel, bias = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    np.save(path, np.array({"fc6": [kernel, bias], "fc8": [bias, bias]}, dtype=object))
    model = one_layer_model("fc6")
    with pytest.raises(ValueError, match="`allow_pickle_weights`"):
        weights.load(model, path)
    weights.load(model, path, allow_pickle=True)
    np.testing.assert_array_equal(model.layers[-1].kernel, kernel)
    np.testing.assert_array_equal(model.layers[-1].bias, bias)


def test_wrong_shape_names_file_layer_and_both_shapes():
    model = one_layer_model("fc6")
    before = model.layers[-1].kernel.numpy()
    arrays = {"fc6/kernel": before + 1, "fc6/bias": np.zeros(4)}
    with pytest.raises(ValueError, match=r"some\.npz: fc6/bias .*\(4,\), expected \(3,\)"):
        weights.assign(model, arrays, source="some.npz")
    np.testing.assert_array_equal(model.layers[-1].kernel, before)


def test_missing_layer_is_named():
    with pytest.raises(ValueError, match=r"`weights`: some\.npz has no fc6/bias"):
        weights.assign(one_layer_model("fc6"), {"fc6/kernel": np.zeros((2, 3))}, source="some.npz")


def test_h5_of_another_network_is_one_line(tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]).save_weights(path)
    with pytest.raises(ValueError) as caught:
        weights.load(one_layer_model("fc6"), path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ("`weights`", str(path), "fc6", "(2, 3)", "(5, 3)"))


@pytest.mark.parametrize("file_name", ["broken.npz", "broken.npy", "broken.h5", "broken.txt"])
def test_unreadable_file_is_one_line(tmp_path, file_name):
    path = tmp_path / file_name
    for write in (lambda: None, lambda: path.write_bytes(b"no weights")):
        write()
        with pytest.raises(ValueError, match="`weights`: ") as caught:
            weights.load(one_layer_model(), path, allow_pickle=True)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_pickles_inside_an_npz_are_refused(tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, **{"fc6/kernel": np.array({}, dtype=object)})
    with pytest.raises(ValueError, match="plain arrays"):
        weights.load(one_layer_model("fc6"), path, allow_pickle=True)


def test_layers_are_frozen_through_a_module():
    trunk = backbones.build("squeezenet", frozen_through="fire4").get_layer("squeezenet")
    learning = {layer.name.split("_")[0] for layer in trunk.layers if layer.trainable_variables}
    assert learning == {"fire5", "fire6", "fire7", "fire8", "fire9"}


def test_whole_backbone_can_be_frozen():
    model = backbones.build("small_cnn", frozen_through="all")
    assert not model.trainable_variables
    assert np.any(image_gradient(model, random_images()) != 0)


def test_features_can_be_averages_of_inner_layers():
    model = backbones.build("squeezenet", input_size=40, feature_layers=("fire2", "fire5"))
    # fire2 and fire5 have 4 * (16 + 16) and 4 * (32 + 32) channels.
    assert model(random_images()).shape == (2, 128 + 256)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "lenet"}, "`backbone`: unknown 'lenet'; allowed: alexnet, "),
        ({"name": "small_cnn", "input_size": 0}, "`backbone_size`: 0 is not allowed"),
        ({"name": "squeezenet", "input_size": 5}, "`backbone_size`: 5 pixels are too few"),
        ({"name": "vgg19", "input_size": 8}, "`backbone_size`=8 .*at least 32x32"),
        ({"name": "squeezenet", "weights": "imagenet"}, "`weights`: 'imagenet'"),
        ({"name": "small_cnn", "frozen_through": "conv9"}, "'conv9'; allowed: all, conv1, pool1"),
        ({"name": "small_cnn", "feature_layers": ["mean"]}, "`feature_layers`: .*'mean'.*conv3"),
    ],
)
def test_impossible_arguments_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        backbones.build(**arguments)
    assert "\n" not in str(caught.value)


def test_images_keep_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = backbones.build("squeezenet", input_size=40)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    layer_types = {layer.name: layer.compute_dtype for layer in model.layers[1:]}
    assert sorted(layer_types.values()) == ["bfloat16", "float32", "float32"]
    gradient = image_gradient(model, random_images())
    assert gradient.dtype == np.float32
    assert np.any(gradient != 0)


@pytest.mark.parametrize(("name", "size"), [("small_cnn", None), ("alexnet", 67)])
def test_models_survive_keras_and_saved_model_files(tmp_path, name, size):
    model = backbones.build(name, input_size=size)
    images = random_images(2, 20, 24)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), model(images), rtol=1e-5)
    model.export(tmp_path / "export", verbose=False)
    saved_model = tf.saved_model.load(tmp_path / "export")
    np.testing.assert_allclose(saved_model.serve(images), model(images), rtol=1e-4, atol=1e-5)
