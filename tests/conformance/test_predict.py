"""Predict: signatures, versions, labels, outputs, and how the answer names and encodes them."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import tensorflow as tf

CODE_LENGTH, WIDTH = 13, 2


@pytest.fixture(scope="module")
def png(images) -> list[bytes]:
    """Files of the images; PNG loses nothing."""
    return [tf.io.encode_png(image).numpy() for image in images]


@pytest.mark.parametrize("signature", ["", "serving_default", "encode_images"])
def test_images(server, exports, images, signature):
    answer = server.encode(signature, images=images)
    assert set(answer) == {"code", "bits", "embedding", "fingerprint"}
    assert set(answer["fingerprint"]) == {exports[2].fingerprint.encode()}
    np.testing.assert_array_equal(answer["code"], exports[2].code(images))
    np.testing.assert_array_equal(answer["code"], np.packbits(answer["bits"], axis=-1))
    np.testing.assert_allclose(answer["embedding"], exports[2].embedding(images), atol=1e-5)


def test_files(server, exports, images, png):
    answer = server.encode("encode_bytes", image_bytes=png)
    np.testing.assert_array_equal(answer["code"], exports[2].code(images))


def test_files_that_may_be_bad(server, exports, images, png):
    answer = server.encode("encode_bytes_partial", image_bytes=png)
    assert answer["valid"].dtype == bool and answer["valid"].all()
    np.testing.assert_array_equal(answer["code"], exports[2].code(images))


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        ("encode_images", {"images": np.zeros([0, 16, 16, 3], np.uint8)}),
        ("encode_bytes", {"image_bytes": np.array([], object)}),
        ("encode_bytes_partial", {"image_bytes": np.array([], object)}),
    ],
)
def test_an_empty_batch(server, signature, inputs):
    if server.name == "tf_serving":
        pytest.skip("TF Serving that pads merged batches aborts where a request has no row")
    shapes = {name: value.shape for name, value in server.encode(signature, **inputs).items()}
    shapes.pop("valid", None)
    assert shapes == {
        "code": (0, WIDTH),
        "bits": (0, CODE_LENGTH),
        "embedding": (0, CODE_LENGTH),
        "fingerprint": (0,),
    }


def test_one_value_may_stand_for_many(server, exports):
    """Warm-up requests are written so: a TensorProto repeats its last value."""
    grey = tf.make_tensor_proto(127, tf.uint8, [2, 16, 16, 3])
    assert len(grey.int_val) == 1
    expected = exports[2].code(np.full([2, 16, 16, 3], 127, np.uint8))
    np.testing.assert_array_equal(server.encode(images=grey)["code"], expected)


@pytest.mark.parametrize(
    ("asked", "version"),
    [
        ({}, 2),
        ({"version": 1}, 1),
        ({"version": 2}, 2),
        ({"label": "stable"}, 1),
        ({"label": "newest"}, 2),
    ],
)
def test_which_version_answers(server, exports, images, asked, version):
    response = server.predict(**asked, images=images)
    assert response.model_spec.version.value == version
    code = tf.make_ndarray(response.outputs["code"])
    np.testing.assert_array_equal(code, exports[version].code(images))


@pytest.mark.parametrize(
    ("signature", "resolved"),
    [
        ("", "serving_default"),
        ("serving_default", "serving_default"),
        ("encode_images", "encode_images"),
    ],
)
def test_the_answer_names_what_answered(server, images, signature, resolved):
    spec = server.predict(signature, label="stable", images=images).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("tfhash", 1, resolved)
    assert not spec.version_label


@pytest.mark.parametrize(
    "outputs", [["code"], ["embedding", "code"], ["bits", "code", "embedding"]]
)
def test_only_the_outputs_that_are_asked_for(server, exports, images, outputs):
    answer = server.encode(outputs=outputs, images=images)
    assert set(answer) == set(outputs)
    np.testing.assert_array_equal(answer["code"], exports[2].code(images))


@pytest.mark.parametrize("as_content", [False, True])
def test_both_encodings_of_an_answer(server, embedded, exports, images, as_content):
    """*_val fields, or the bytes where --enable_serialization_as_tensor_content is given."""
    with contextlib.ExitStack() as stack:
        if as_content and server.name == "embedded":
            server = stack.enter_context(embedded(as_content=True, warm_up=False))
            stack.enter_context(server.serving("tfhash", {2: exports[2].folder}))
        asked = ("code", "bits", "embedding")
        outputs = server.predict(images=images, outputs=asked).outputs
    found = {
        name: (bool(tensor.tensor_content), bool(tensor.int_val or tensor.float_val))
        for name, tensor in outputs.items()
    }
    if server.name == "tf_serving" and found["code"] != (as_content, not as_content):
        pytest.skip("this server was started for the other encoding")
    assert found == dict.fromkeys(asked, (as_content, not as_content))
    arrays = {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}
    dtypes = {name: (array.dtype, array.shape[0]) for name, array in arrays.items()}
    assert dtypes == {"code": ("uint8", 4), "bits": ("uint8", 4), "embedding": ("float32", 4)}
    np.testing.assert_array_equal(arrays["code"], exports[2].code(images))
