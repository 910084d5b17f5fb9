"""What each failure answers: gRPC code and message. … in a message stands for anything."""

from __future__ import annotations

import struct
import zlib

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    regression_pb2,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
SECONDS = 20
IMAGE = np.zeros([1, 16, 16, 3], np.uint8)
MAX_BYTES = 32 * 2**20


def test_the_request_names_no_model(server, refused):
    request = server.request(images=IMAGE)
    request.model_spec.Clear()
    request.model_spec.SetInParent()
    with refused(INVALID, "ModelSpec has no name specified."):
        server.prediction.Predict(request, timeout=SECONDS)
    request.ClearField("model_spec")
    with refused(INVALID, "Missing ModelSpec"):
        server.prediction.Predict(request, timeout=SECONDS)


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        ({"model": "nobody"}, NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        ({"version": 99}, NOT_FOUND, "Servable not found for request: Specific(tfhash, 99)"),
        (
            {"model": "nobody", "version": 1},
            NOT_FOUND,
            "Servable not found for request: Specific(nobody, 1)",
        ),
        ({"label": "none"}, INVALID, "Unrecognized servable version label: none"),
        ({"signature": "none"}, PRECONDITION, 'Serving signature key "none" not found.'),
        ({"outputs": ["zz"]}, INVALID, (
            "output tensor alias not found in signature: zz Outputs expected to be in the set "
            "{bits,code,embedding,fingerprint}."
        )),
        ({"outputs": ["code", "code"]}, INVALID, "duplicate output tensor alias: code"),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_not_there(server, refused, asked, code, message):
    with refused(code, message):
        server.predict(**asked, images=IMAGE)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, (
            "input size does not match signature: 0!=1 len({}) != len({images}). "
            "Sent extra: {}. Missing but required: {images}."
        )),
        ({"images": IMAGE, "mask": IMAGE}, (
            "input size does not match signature: 2!=1 len({images,mask}) != len({images}). "
            "Sent extra: {mask}. Missing but required: {}."
        )),
        ({"image": IMAGE}, (
            "Signature input alias: images(feed name: …) not found in request and no default "
            "value provided. Inputs expected to be in the set {images}."
        )),
    ],
)  # fmt: skip
def test_inputs_by_other_names(server, refused, inputs, message):
    with refused(INVALID, message):
        server.predict("encode_images", **inputs)


def tensor(shape: list[int], **fields) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=tf.uint8.as_datatype_enum, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        tensor([1, 16, 16, 3], tensor_content=b"five."),
        tensor([1, -16, 16, 3], int_val=[7]),
        tensor_pb2.TensorProto(
            dtype=tf.uint8.as_datatype_enum, tensor_shape={"unknown_rank": True}
        ),
    ],
    ids=["content of another length", "negative dimension", "unknown rank"],
)
def test_a_tensor_proto_that_is_none(server, refused, proto):
    with refused(INVALID, "tensor parsing error: images"):
        server.predict(images=proto)


def test_a_few_bytes_that_ask_for_gigabytes(server, refused):
    if server.name == "tf_serving":
        pytest.skip("TF Serving has no limit on this: it would allocate 7 GB")
    proto = tensor([50_000, 224, 224, 3], int_val=[7])
    assert proto.ByteSize() < 60
    with refused(INVALID, "tensor parsing error: images"):
        server.predict(images=proto)


def test_another_dtype(server, refused):
    messages = (
        "Type mismatch: actual float vs. expect uint8",
        "Expects arg[0] to be uint8 but float is provided",  # Session::Run, TF Serving's way
    )
    with refused(INVALID, *messages):
        server.predict(images=IMAGE.astype(np.float32))


@pytest.mark.parametrize(
    "shape",
    [[16, 16, 3], [1, 1, 16, 16, 3], [1, 16, 16], [1, 16, 16, 1], [1, 16, 16, 4], [1, 0, 16, 3]],
)
def test_images_of_another_rank_or_channels(server, refused, shape):
    with refused(INVALID, "…assertion failed: [images: expected uint8 [N, H >= 1, W >= 1, 3]"):
        server.predict(images=np.zeros(shape, np.uint8))


def test_files_of_another_rank(server, refused):
    with refused(INVALID, "…assertion failed: [image_bytes: expected string [N]"):
        server.predict("encode_bytes", image_bytes=[[b"a", b"b"]])


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Files that are no images, or not to be decoded."""
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    jpeg = tf.io.encode_jpeg(noise).numpy()
    png = tf.io.encode_png(noise).numpy()
    header = struct.pack(">II5B", 13_000, 13_000, 8, 2, 0, 0, 0)  # width, height, 8 bits, RGB
    frame = jpeg.index(b"\xff\xc0")  # then length 2, precision 1, height 2, width 2
    return {
        "empty": b"",
        "oversize": jpeg + bytes(MAX_BYTES),
        "GIF": b"GIF89a" + noise.tobytes(),
        "text": b"This is not an image, whatever its name may say.",
        "PNG bomb": png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:],
        "JPEG bomb": jpeg[: frame + 5] + struct.pack(">HH", 65_000, 65_000) + jpeg[frame + 9 :],
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated PNG": png[: len(png) // 2],
    }


UNREADABLE = {
    "empty": "…[image_bytes: length out of range",
    "oversize": "…[image_bytes: length out of range",
    "GIF": "…[image_bytes: not a JPEG or PNG image]",
    "text": "…[image_bytes: not a JPEG or PNG image]",
    "PNG bomb": "…[image_bytes: image dimensions out of range",
    "JPEG bomb": "…[image_bytes: image dimensions out of range",
    "truncated JPEG": "…jpeg::Uncompress failed",
    "truncated PNG": "…Invalid PNG data",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read(server, refused, files, name):
    with refused(INVALID, UNREADABLE[name]):
        server.predict("encode_bytes", image_bytes=[files[name]])


def test_one_bad_file_fails_its_batch_but_not_the_next(server, refused, exports, files, images):
    png = tf.io.encode_png(images[0]).numpy()
    with refused(INVALID, UNREADABLE["text"]):
        server.predict("encode_bytes", image_bytes=[png, files["text"], png])
    code = server.encode("encode_bytes", image_bytes=[png])["code"]
    np.testing.assert_array_equal(code, exports[2].code(images[:1]))


def test_bad_rows_of_the_partial_signature(server, exports, files, images):
    png = [tf.io.encode_png(image).numpy() for image in images]
    rows = [png[0], *(files[name] for name in UNREADABLE), *png[1:]]
    answer = server.encode("encode_bytes_partial", image_bytes=rows)
    good = [0, *range(len(rows) - 3, len(rows))]
    assert np.flatnonzero(answer["valid"]).tolist() == good
    np.testing.assert_array_equal(answer["code"][good], exports[2].code(images))
    for name in ("code", "bits", "embedding"):
        assert not answer[name][~answer["valid"]].any()


def test_more_than_the_largest_batch(server, refused):
    with refused(INVALID, "Task size 33 is larger than maximum input batch size 32"):
        server.predict(images=np.zeros([33, 16, 16, 3], np.uint8))


def test_a_long_message_is_cut(server):
    with pytest.raises(grpc.RpcError) as raised:
        server.predict("s" * 3000, images=IMAGE)
    assert raised.value.code() == PRECONDITION
    assert 1024 <= len(raised.value.details()) <= 1024 + len("...TRUNCATED")


@pytest.mark.parametrize(
    ("model", "version", "message"),
    [
        ("nobody", None, "Could not find any versions of model nobody"),
        ("tfhash", 9, "Could not find version 9 of model tfhash"),
    ],
)
def test_the_status_of_what_is_not_there(server, refused, model, version, message):
    with refused(NOT_FOUND, message):
        server.statuses(model, version)


def test_the_status_of_no_model(server, refused):
    with refused(INVALID, "Missing ModelSpec"):
        server.models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(), timeout=SECONDS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["x"], "Metadata field x is not supported"),
        (["signature_def", "x"], "Metadata field x is not supported"),
    ],
)
def test_metadata_without_a_field_or_of_another(server, refused, fields, message):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    with refused(INVALID, "Missing ModelSpec"):
        server.prediction.GetModelMetadata(request, timeout=SECONDS)
    request.model_spec.name = "tfhash"
    with refused(INVALID, message):
        server.prediction.GetModelMetadata(request, timeout=SECONDS)


def test_metadata_of_an_unknown_model(server, refused):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "nobody"
    with refused(NOT_FOUND, "Servable not found for request: Latest(nobody)"):
        server.prediction.GetModelMetadata(request, timeout=SECONDS)


@pytest.mark.parametrize(
    ("method", "request_class"),
    [
        ("Classify", classification_pb2.ClassificationRequest),
        ("Regress", regression_pb2.RegressionRequest),
        ("MultiInference", inference_pb2.MultiInferenceRequest),
    ],
)
def test_a_hash_is_no_class_and_no_regression(server, refused, method, request_class):
    request = request_class()
    spec = request.tasks.add() if method == "MultiInference" else request
    spec.model_spec.name = "tfhash"
    if server.name == "embedded":
        code, message = grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!"
    elif method == "MultiInference":
        code, message = grpc.StatusCode.UNIMPLEMENTED, "Unsupported signature method_name"
    else:  # TF Serving has the method, but no signature is made for it
        code, message = INVALID, "Expected …signature method_name to be tensorflow/serving/"
    with refused(code, message):
        getattr(server.prediction, method)(request, timeout=SECONDS)


def test_a_server_that_refused_everything_above_still_answers(server, exports, images):
    code = server.encode(images=images)["code"]
    np.testing.assert_array_equal(code, exports[2].code(images))
