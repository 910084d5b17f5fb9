"""tfhash.export.tflite: the codes of the SavedModel, from a file that describes itself."""

from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.data import sources
from tfhash.errors import UserError
from tfhash.export import portable, tflite

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


@pytest.fixture(scope="module")
def images():
    return sources.load("digits").images[:1000]


@pytest.fixture(scope="module")
def arguments(tiny):
    return {"code_length": 13, "image_size": 16, "metadata": tiny.run}


@pytest.fixture(scope="module")
def files(encoder, arguments, images, tmp_path_factory):
    """The path by precision."""
    folder = tmp_path_factory.mktemp("tflite")
    return {
        precision: tflite.save(
            encoder,
            **arguments,
            precision=precision,
            path=folder / precision,
            calibration=images[1::8] if precision == "int8" else None,
        )
        for precision in tflite.PRECISIONS
    }


def test_float32_gives_the_codes_of_the_saved_model(files, images, published):
    codes = tflite.codes(files["float32"], images)
    assert portable.difference(codes, images, published).bits == 0


def test_float16_is_half_as_large_and_gives_almost_the_same_codes(files, images, published):
    sizes = {precision: path.stat().st_size for precision, path in files.items()}
    assert sizes["float16"] < 0.6 * sizes["float32"]
    codes = tflite.codes(files["float16"], images)
    # Rounding to 11 bits moves a logit of about 1 by about 1/1000, and so few past the threshold.
    assert portable.difference(codes, images, published).bits < 0.002 * 13_000


def test_int8_computes_in_8_bit_numbers(files, images, published):
    sizes = {precision: path.stat().st_size for precision, path in files.items()}
    assert sizes["int8"] < 0.6 * sizes["float16"]
    codes = tflite.codes(files["int8"], images[::8])
    # The scores of a network that has learned nothing are near 0, where rounding turns bits over.
    assert 0 < portable.difference(codes, images[::8], published).bits < 0.1 * 13 * 125
    interpreter = tf.lite.Interpreter(str(files["int8"]))
    kernels = [t for t in interpreter.get_tensor_details() if len(t["shape"]) == 4]
    eight = [t for t in kernels if t["dtype"] == np.int8]
    assert len(eight) > len(kernels) / 2


def test_int8_without_images_is_refused(encoder, arguments, tmp_path):
    with pytest.raises(ValueError, match="calibration: int8 needs images"):
        tflite.save(encoder, **arguments, precision="int8", path=tmp_path / "encoder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", tflite.PRECISIONS)
def test_inputs_and_outputs_are_those_of_the_saved_model(files, images, precision):
    interpreter = tf.lite.Interpreter(str(files[precision]))
    assert interpreter.get_signature_list() == {
        "encode_images": {"inputs": ["images"], "outputs": ["bits", "code", "embedding"]}
    }
    encode = interpreter.get_signature_runner("encode_images")
    for count in (1, 5, 2):  # a batch of any size, one after the other
        output = encode(images=images[:count])
        assert output["embedding"].shape == (count, 13)
        np.testing.assert_array_equal(output["bits"], output["embedding"] > 0.5)
        np.testing.assert_array_equal(output["code"], np.packbits(output["bits"], axis=-1))
        assert output["code"].dtype == output["bits"].dtype == np.uint8


def test_the_description_is_in_the_file(files, tiny):
    with zipfile.ZipFile(files["float16"]) as archive:
        content = json.loads(archive.read("tfhash.json"))
    assert tiny.run.items() <= content.items()
    assert {"code_length": 13, "bit_order": "big", "threshold": 0.5}.items() <= content.items()
    assert content["image_size"] == 16 and content["weights"] == "float16"
    signature = content["signatures"]["encode_images"]
    assert signature["inputs"] == {"images": "uint8 [N, 16, 16, 3]"}
    assert signature["outputs"]["code"] == "uint8 [N, 2]"


def test_bfloat16_under_a_strategy_becomes_float32(tiny, arguments, files, images, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
            low = tiny.encoder()
    finally:
        keras.config.set_dtype_policy("float32")
    path = tflite.save(low, **arguments, precision="float32", path=tmp_path / "encoder")
    codes = tflite.codes(path, images)
    np.testing.assert_array_equal(codes, tflite.codes(files["float32"], images))
    # bfloat16 has 8 bits, float32 rounds otherwise: a few bits differ, and are counted.
    saved_model = tiny.save(low, tmp_path / "export", images=None)
    assert 0 < portable.difference(codes, images, saved_model).bits < 0.01 * 13_000


def test_nothing_is_printed_and_nothing_left_beside(encoder, arguments, images, tmp_path, capfd):
    path = tmp_path / "encoder.tflite"
    tflite.save(encoder, **arguments, precision="float32", path=path)
    tflite.codes(path, images[:1])
    assert list(tmp_path.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")


def test_an_operation_that_tensorflow_lite_lacks_is_named(tiny, arguments, tmp_path):
    layer = keras.layers.Lambda(lambda x: tf.image.resize(x, [8, 8], antialias=True))
    path = tmp_path / "encoder"
    with pytest.raises(UserError, match="--format=tflite: .* has no ScaleAndTranslate, which"):
        tflite.save(tiny.encoder(layer), **arguments, precision="float32", path=path)
    assert list(tmp_path.iterdir()) == []


def test_other_precisions_are_refused(encoder, arguments, tmp_path):
    with pytest.raises(UserError, match="--tflite_precision: 'int4' is not allowed; float32 or"):
        tflite.save(encoder, **arguments, precision="int4", path=tmp_path / "encoder")


@pytest.mark.parametrize(
    "others",
    [
        np.zeros([0, 16, 16, 3], np.uint8),
        np.zeros([1, 16, 20, 3], np.uint8),
        np.zeros([1, 16, 16, 3], np.float32),
    ],
)
def test_other_images_are_refused(files, others):
    with pytest.raises(ValueError, match=r"images: expected uint8 \[n >= 1, 16, 16, 3\]"):
        tflite.codes(files["float32"], others)
