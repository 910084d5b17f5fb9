"""HashClient where a server fails, is slow, or goes and comes back."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from tests.serving.client.by_hand import CONNECTION_REFUSED, images
from tfhash.serving import HashClient, _parts, errors


def fail(*codes):
    """A hook that answers these in turn, then goes through."""

    def before(number, context):
        if number < len(codes):
            context.abort(codes[number], "the  server's\nwords")

    return before


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidInput),
        (grpc.StatusCode.NOT_FOUND, errors.NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.ResourceExhausted),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.HashServiceError),
    ],
)
@pytest.mark.parametrize("count", [1, 9])  # a blocking call, and several in flight
def test_an_error_says_what_was_asked_and_is_not_retried(server, client, code, kind, count):
    server.service.before = fail(*[code] * 9)
    with pytest.raises(errors.HashServiceError) as caught:
        client.encode_images(images(range(count)))
    error = caught.value
    assert type(error) is kind and error.code is code
    assert (error.model, error.signature, error.target) == (
        "tfhash",
        "encode_images",
        server.target,
    )
    if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        assert str(error) == (
            f"tfhash, encode_images at {server.target}: {code.name}: the server's words"
        )
    first_bytes = [r.inputs["images"].tensor_content[0] for r in server.service.requests]
    assert len(set(first_bytes)) == len(first_bytes)  # none of them twice
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
@pytest.mark.parametrize("size", [1, 600])  # 600 * 600 * 3 bytes are over gRPC's own 256 KiB
def test_unavailable_and_cancelled_are_retried_however_large_the_request(
    server, client, code, size
):
    server.service.before = fail(*[code] * 2)
    codes = client.encode_images(np.full([1, size, size, 3], 7, np.uint8))
    assert codes.code.tolist() == [[7, 0]]
    assert len(server.service.requests) == 3


def test_unavailable_for_good_is_an_error_after_five_attempts(server, client):
    server.service.before = fail(*[grpc.StatusCode.UNAVAILABLE] * 9)
    with pytest.raises(errors.Unavailable, match="UNAVAILABLE: the server's words"):
        client.encode_bytes([b"ab"])
    assert len(server.service.requests) == 5


def cut_off(times: int):
    """A hook that begins to answer so often, and goes away: gRPC sends nothing again then."""

    def before(number, context):
        if number < times:
            context.send_initial_metadata(())
            context.abort(grpc.StatusCode.UNAVAILABLE, "Stream removed (by hand)")

    return before


def test_what_was_cut_off_in_its_answer_is_sent_again(server, client):
    server.service.before = cut_off(2)
    assert client.encode_images(images([7])).code.tolist() == [[7, 0xF0]]
    assert len(server.service.requests) == 3
    server.service.before = cut_off(2 + len(server.service.requests))
    assert [codes.code.tolist() for codes in client.stream([images([7])])] == [[[7, 0xF0]]]


def test_it_is_not_sent_again_for_ever_nor_for_other_words(client):
    """Of the rule itself: a server that begins and aborts may be sent again by gRPC too."""

    class Error(grpc.RpcError):
        def __init__(self, code, words):
            self.code, self.details = lambda: code, lambda: words

    requests = client._requests
    part = _parts.Part(predict_pb2.PredictRequest(), rows=1, ends_batch=True)
    for code, words in [("UNAVAILABLE", "words"), ("INTERNAL", "Stream removed"), ("UNKNOWN", "")]:
        assert not requests.to_be_sent_again(part, Error(grpc.StatusCode[code], words))
    cut_off = Error(grpc.StatusCode.UNAVAILABLE, "Stream removed (connection closed)")
    assert [requests.to_be_sent_again(part, cut_off) for _ in range(6)] == [True] * 4 + [False] * 2


def test_every_request_has_the_deadline(server, client):
    client.encode_images(images([1]))
    client.encode_images(images(range(9)))
    assert len(server.service.deadlines) == 4
    assert all(5 < seconds < 11 for seconds in server.service.deadlines)


def test_a_slow_server_is_told_from_one_that_is_down(server):
    released = threading.Event()
    server.service.before = lambda number, context: released.wait(5)
    with HashClient(server.target, timeout=0.3) as client:
        with pytest.raises(errors.DeadlineExceeded) as caught:
            client.encode_images(images([1]))
        released.set()
    assert str(caught.value).endswith("DEADLINE_EXCEEDED: no answer within 0.3 s")

    with HashClient(CONNECTION_REFUSED, timeout=0.4) as client:
        start = time.monotonic()
        with pytest.raises(errors.Unavailable) as caught:
            client.encode_images(images([1]))
    assert 0.35 < time.monotonic() - start < 2
    assert "encode_images at 127.0.0.1:1: UNAVAILABLE: not reachable within 0.4 s" in str(
        caught.value
    )
    assert "refused" in str(caught.value)


def test_the_client_outlives_a_restart_between_two_calls(server, client):
    expected = client.encode_images(images(range(12))).code
    server.stop()
    server.start()
    np.testing.assert_array_equal(client.encode_images(images(range(12))).code, expected)


# A server without TensorFlow, so that it starts at once: prints its port, and answers the bytes
# in the file with this name, or hangs where there is none.
BARE_SERVER = """
import grpc, os, pathlib, sys, time
from concurrent import futures
def predict(request, context):
    time.sleep(0 if sys.argv[2:] else 60)
    return pathlib.Path(sys.argv[2]).read_bytes()
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(predict)
server = grpc.server(futures.ThreadPoolExecutor(8), [Handler()], options=[("grpc.so_reuseport", 0)])
print(server.add_insecure_port("127.0.0.1:" + sys.argv[1]), flush=True)
server.start()
print("started", flush=True)
server.wait_for_termination()
"""


def test_requests_in_flight_outlive_a_killed_server(tmp_path):
    """Killed with three requests in it; the next one there answers them, each once."""

    def start(*arguments):
        command = [sys.executable, "-c", BARE_SERVER, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        port = int(process.stdout.readline())
        assert process.stdout.readline() == "started\n"
        return process, port

    answer = predict_pb2.PredictResponse()
    answer.outputs["code"].CopyFrom(tf.make_tensor_proto(np.array([[1, 2]], np.uint8)))
    answer.outputs["fingerprint"].CopyFrom(tf.make_tensor_proto([b"f"]))
    (tmp_path / "answer").write_bytes(answer.SerializeToString())
    first, port = start(0)
    second = None
    try:
        with HashClient(f"127.0.0.1:{port}", timeout=20) as client:
            stream = client.stream(images([i]) for i in range(3))
            answers = []
            thread = threading.Thread(target=lambda: answers.extend(stream))
            thread.start()
            time.sleep(0.3)
            first.kill()
            first.wait()
            time.sleep(0.3)
            second, _ = start(port, tmp_path / "answer")
            thread.join()
        assert [codes.code.tolist() for codes in answers] == [[[1, 2]]] * 3
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.communicate()
