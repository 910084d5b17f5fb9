"""tfhash.export.onnx: the codes of the SavedModel through ONNX Runtime."""

from __future__ import annotations

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.data import sources
from tfhash.errors import UserError
from tfhash.export import onnx, portable
from tfhash.networks.image_layers import GroupedConv2D, LocalResponseNormalization

REASON = "needs the extra onnx"
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)
pytest.importorskip("tf2onnx", reason=REASON)


@pytest.fixture(scope="module")
def images():
    return sources.load("digits").images[:1000]


@pytest.fixture(scope="module")
def arguments(tiny):
    return {"code_length": 13, "image_size": 16, "metadata": tiny.run}


@pytest.fixture(scope="module")
def path(encoder, arguments, tmp_path_factory):
    return onnx.save(encoder, **arguments, path=tmp_path_factory.mktemp("onnx") / "file")


def load(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_the_codes_are_those_of_the_saved_model(path, images, published):
    codes = onnx.codes(path, images)
    assert portable.difference(codes, images, published).bits == 0


def test_inputs_and_outputs_are_those_of_the_saved_model(path, images):
    session = load(path)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["N", 16, 16, 3])
    assert {output.name: (output.type, output.shape) for output in session.get_outputs()} == {
        "code": ("tensor(uint8)", ["N", 2]),
        "bits": ("tensor(uint8)", ["N", 13]),
        "embedding": ("tensor(float)", ["N", 13]),
    }
    for count in (1, 5, 0):
        code, bits, embedding = session.run(
            ["code", "bits", "embedding"], {"images": images[:count]}
        )
        assert embedding.shape == (count, 13)
        np.testing.assert_array_equal(bits, embedding > 0.5)
        np.testing.assert_array_equal(code, np.packbits(bits, axis=-1))


def test_the_description_is_in_the_file(path, tiny):
    properties = load(path).get_modelmeta().custom_metadata_map
    content = json.loads(properties["tfhash.json"])
    assert tiny.run.items() <= content.items()
    assert {"code_length": 13, "bit_order": "big", "threshold": 0.5}.items() <= content.items()
    assert content["image_size"] == 16


def test_bfloat16_under_a_strategy_becomes_float32(tiny, arguments, path, images, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
            low = tiny.encoder()
    finally:
        keras.config.set_dtype_policy("float32")
    codes = onnx.codes(onnx.save(low, **arguments, path=tmp_path / "file"), images)
    np.testing.assert_array_equal(codes, onnx.codes(path, images))
    # bfloat16 has 8 bits, float32 rounds otherwise: a few bits differ, and are counted.
    saved_model = tiny.save(low, tmp_path / "export", images=None)
    assert 0 < portable.difference(codes, images, saved_model).bits < 0.01 * 13_000


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Normalization(mean=[0.1] * 8, variance=[2.0] * 8),  # keeps tensors
        keras.layers.GroupNormalization(2),
        GroupedConv2D(8, 3, groups=2),
        LocalResponseNormalization(),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_that_need_care_give_the_codes_of_keras(
    tiny, arguments, images, tmp_path, layer, capfd
):
    encoder = tiny.encoder(layer)
    codes = onnx.codes(onnx.save(encoder, **arguments, path=tmp_path / "file"), images[:50])
    bits = encoder(images[:50].astype(np.float32), training=False).numpy() > 0.5
    np.testing.assert_array_equal(codes, np.packbits(bits, axis=-1))
    assert len(np.unique(codes, axis=0)) > 10
    assert capfd.readouterr() == ("", "")


def test_nothing_is_left_beside(encoder, arguments, tmp_path):
    path = onnx.save(encoder, **arguments, path=tmp_path / "encoder.onnx")
    assert list(tmp_path.iterdir()) == [path]


def test_an_operation_that_onnx_lacks_is_named(tiny, arguments, tmp_path):
    layer = keras.layers.Lambda(lambda x: tf.image.resize(x, [8, 8], antialias=True))
    with pytest.raises(UserError, match="--format=onnx: tf2onnx has no ScaleAndTranslate, which"):
        onnx.save(tiny.encoder(layer), **arguments, path=tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["tf2onnx", "onnx"])
def test_a_package_that_is_not_installed_is_named(
    encoder, arguments, monkeypatch, tmp_path, package
):
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    with pytest.raises(UserError) as error:
        onnx.save(encoder, **arguments, path=tmp_path / "file")
    assert str(error.value) == (
        f"--format=onnx: not installed: {package}; the extra onnx installs it"
    )
