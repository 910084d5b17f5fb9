"""Limits and failures outside the model: time, size, queue, connection."""

from __future__ import annotations

import socket

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_service_pb2_grpc

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SECONDS = 20


def stub(channel: grpc.Channel) -> prediction_service_pb2_grpc.PredictionServiceStub:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def slow(server, side: int):
    """A request of few bytes that takes the model long: 32 images to resize."""
    return server.request(images=tf.make_tensor_proto(7, tf.uint8, [32, side, side, 3]))


def test_a_deadline_passes(server, refused, exports, images):
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"):
        server.prediction.Predict(slow(server, 512), timeout=0.01)
    code = server.encode(images=images)["code"]
    np.testing.assert_array_equal(code, exports[2].code(images))


def test_a_full_queue(server, refused, exports, images):
    """Two run and four wait, of 64 that come at once; the others are told so."""
    calls = [
        server.prediction.Predict.future(slow(server, 256), timeout=SECONDS) for _ in range(64)
    ]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, UNAVAILABLE}
    message = "The batch scheduling queue to which this task was submitted is full"
    with refused(UNAVAILABLE, message):
        calls[codes.index(UNAVAILABLE)].result()
    code = server.encode(images=images)["code"]
    np.testing.assert_array_equal(code, exports[2].code(images))


def test_an_answer_over_the_limit_of_the_client(server, refused, images):
    options = [("grpc.max_receive_message_length", 10)]
    with grpc.insecure_channel(server.target, options) as channel:
        with refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "…Received message larger than max (… vs. 10)"
        ):
            stub(channel).Predict(server.request(images=images), timeout=SECONDS)


def test_a_request_over_the_limit_of_the_server(server, refused, embedded, images):
    if server.name == "tf_serving":
        pytest.skip("TF Serving takes messages up to the 2 GiB of a protobuf")
    with embedded(max_message_bytes=1000) as small:
        request = small.request(images=images)
        assert request.ByteSize() > 1000
        with refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "…Received message larger than max (… vs. 1000)"
        ):
            small.prediction.Predict(request, timeout=SECONDS)


def test_a_server_that_is_down(server, refused, images):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # taken, but nobody listens
        target = f"127.0.0.1:{reserved.getsockname()[1]}"
        with grpc.insecure_channel(target) as channel:
            with refused(UNAVAILABLE, "failed to connect to all addresses"):
                stub(channel).Predict(server.request(images=images), timeout=SECONDS)


def test_tls_where_the_server_has_none(server, refused, images):
    with grpc.secure_channel(server.target, grpc.ssl_channel_credentials()) as channel:
        with refused(UNAVAILABLE, "failed to connect to all addresses"):
            stub(channel).Predict(server.request(images=images), timeout=SECONDS)
