"""Metadata, status, health, and which models and labels a server has: HandleReloadConfigRequest."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SECONDS = 20


@pytest.fixture
def signatures(server):
    """The answer to GetModelMetadata for version 1, and the signatures in it."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tfhash"
    request.model_spec.version.value = 1
    response = server.prediction.GetModelMetadata(request, timeout=SECONDS)
    assert (response.model_spec.name, response.model_spec.version.value) == ("tfhash", 1)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    return found.signature_def


@pytest.mark.parametrize(
    ("name", "inputs", "more"),
    [
        ("serving_default", {"images": tf.uint8}, {}),
        ("encode_images", {"images": tf.uint8}, {}),
        ("encode_bytes", {"image_bytes": tf.string}, {}),
        ("encode_bytes_partial", {"image_bytes": tf.string}, {"valid": tf.bool}),
    ],
)
def test_metadata(signatures, name, inputs, more):
    signature = signatures[name]
    outputs = {"code": tf.uint8, "bits": tf.uint8, "embedding": tf.float32, **more}
    outputs["fingerprint"] = tf.string
    assert {key: tf.as_dtype(value.dtype) for key, value in signature.inputs.items()} == inputs
    assert {key: tf.as_dtype(value.dtype) for key, value in signature.outputs.items()} == outputs
    assert signature.method_name == "tensorflow/serving/predict"
    # From it a client learns the code length before its first request.
    assert [size.size for size in signature.outputs["bits"].tensor_shape.dim] == [-1, 13]


def test_status_lists_the_versions_from_the_newest(server):
    statuses = server.statuses("tfhash")
    assert [status.version for status in statuses] == [2, 1]
    assert server.states("tfhash") == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert {(status.status.error_code, status.status.error_message) for status in statuses} == {
        (0, "")
    }


def test_status_of_one_version(server):
    (status,) = server.statuses("tfhash", 1)
    assert status.version == 1


def test_health(server):
    answer = server.health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_several_models_come_and_go(server, refused, exports, images):
    """Each has versions of its own; what a new list does not name is gone."""
    with server.serving("other", {7: exports[1].folder}):
        response = server.predict(model="other", images=images)
        assert (response.model_spec.name, response.model_spec.version.value) == ("other", 7)
        code = tf.make_ndarray(response.outputs["code"])
        np.testing.assert_array_equal(code, exports[1].code(images))
        np.testing.assert_array_equal(server.encode(images=images)["code"], exports[2].code(images))

    def gone() -> bool:
        try:
            server.predict(model="other", images=images)
        except grpc.RpcError:
            return True
        return False

    server.wait(gone)
    with refused(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(other)"):
        server.predict(model="other", images=images)


def test_a_label_moves(server, exports, images):
    labels = server.configs["tfhash"].version_labels
    try:
        labels["stable"] = 2
        server.reload()
        code = server.encode(label="stable", images=images)["code"]
        np.testing.assert_array_equal(code, exports[2].code(images))
    finally:
        labels["stable"] = 1
        server.reload()
    code = server.encode(label="stable", images=images)["code"]
    np.testing.assert_array_equal(code, exports[1].code(images))


def test_a_label_of_a_version_that_is_not_there_changes_nothing(server, refused, exports, images):
    labels = server.configs["tfhash"].version_labels
    message = (
        "Request to assign label to version 9 of model tfhash, which is not currently available "
        "for inference"
    )
    try:
        labels["stable"] = 9
        with refused(grpc.StatusCode.FAILED_PRECONDITION, message):
            server.reload()
        code = server.encode(label="stable", images=images)["code"]
        np.testing.assert_array_equal(code, exports[1].code(images))
    finally:
        labels["stable"] = 1
        server.reload()


def config(name: str, base_path: str, platform: str = "tensorflow"):
    return model_server_config_pb2.ModelConfig(
        name=name, base_path=base_path, model_platform=platform
    )


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        (
            [config("a", "a/b")],
            "Expected model a to have an absolute path or URI; got base_path()=a/b",
        ),
        (
            [config("a", "/a"), config("a", "/b")],
            "Illegal to list model a multiple times in config list",
        ),
    ],
)
def test_a_list_of_models_that_is_refused_changes_nothing(server, refused, configs, message):
    with refused(INVALID, message):
        server.reload(*configs)
    assert server.states("tfhash") == {1: "AVAILABLE", 2: "AVAILABLE"}


def test_only_a_list_of_models_is_taken(server, refused):
    message = "ServerModelConfig type not supported by HandleReloadConfigRequest."
    with refused(INVALID, message):
        server.models.HandleReloadConfigRequest(
            model_management_pb2.ReloadConfigRequest(), timeout=SECONDS
        )
