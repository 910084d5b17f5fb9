"""HashClient against a service in this process; codes by hand from the rule of the fake."""

from __future__ import annotations

import os
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

from tfhash.errors import UserError
from tfhash.serving import HashClient, _channel, _parts, errors

LOADING, AVAILABLE, UNLOADING, END = 20, 30, 40, 50  # of ModelVersionStatus.State
CONNECTION_REFUSED = "127.0.0.1:1"  # nothing listens on port 1


@pytest.fixture
def client(server):
    with HashClient(server.target, timeout=10, max_batch=4, in_flight=3) as client:
        yield client


def images(values) -> np.ndarray:
    """[n, 2, 3, 3] with these first bytes; the fake's codes are (value, 0xF0)."""
    array = np.full([len(values), 2, 3, 3], 0xFF, np.uint8)
    array[:, 0, 0, 0] = values
    return array


def fail(*codes):
    """A hook that answers these in turn, then goes through."""

    def before(number, context):
        if number < len(codes):
            context.abort(codes[number], "the  server's\nwords")

    return before


@pytest.mark.parametrize("as_content", [True, False])
def test_images_by_hand(server, client, as_content):
    server.service.as_content = as_content
    codes = client.encode_images(images([0x0A, 0xB0]), bits=True, embedding=True)
    assert codes.code.dtype == codes.bits.dtype == np.uint8
    assert codes.embedding.dtype == np.float32
    # 0x0A is 0000 1010, 0xB0 is 1011 0000; the four bits of 0xF0 that count are 1111.
    bits = [[0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]]
    assert codes.code.tolist() == [[0x0A, 0xF0], [0xB0, 0xF0]]
    assert codes.bits.tolist() == bits
    assert codes.embedding.tolist() == (np.array(bits) * 0.5 + 0.25).tolist()
    assert codes.valid.tolist() == [True, True] and codes.version == 3 and len(codes) == 2


@pytest.mark.parametrize("as_content", [True, False])
def test_files_that_cannot_be_read_are_masked(server, client, as_content):
    server.service.as_content = as_content
    codes = client.encode_bytes([b"ab", b"", b"\x00\x10\x00"], on_error="mask", embedding=True)
    assert codes.valid.tolist() == [True, False, True] and codes.valid.dtype == bool
    assert codes.code.tolist() == [[0x61, 0x60], [0, 0], [0, 0x10]]
    assert not codes.embedding[1].any()
    assert server.service.requests[0].model_spec.signature_name == "encode_bytes_partial"


def test_only_what_is_wanted_is_asked_for(server, client):
    codes = client.encode_bytes([b"ab"])
    client.encode_images(images([1]), embedding=True)
    client.encode_bytes([b"ab"], on_error="mask", bits=True)
    assert codes.valid.tolist() == [True] and codes.bits is None and codes.embedding is None
    assert [list(request.output_filter) for request in server.service.requests] == [
        ["code", "fingerprint"],
        ["code", "embedding", "fingerprint"],
        ["code", "bits", "fingerprint", "valid"],
    ]


def test_the_request_names_model_version_or_label(start_server):
    server = start_server()
    for choice in ({}, {"version": 7}, {"label": "stable"}):
        with HashClient(server.target, "other", **choice) as client:
            client.encode_images(images([1]))
    newest, version, label = (request.model_spec for request in server.service.requests)
    assert newest.name == "other" and newest.signature_name == "encode_images"
    assert not newest.HasField("version") and not newest.version_label
    assert version.version.value == 7 and label.version_label == "stable"


def test_a_long_batch_is_split_and_joined_in_order(server, client):
    server.service.before = lambda number, context: time.sleep(0.03 * (number % 3 == 0))
    codes = client.encode_images(images(range(23)), bits=True)
    assert codes.code[:, 0].tolist() == list(range(23))
    assert codes.bits.shape == (23, 12) and codes.valid.shape == (23,)
    sizes = [
        request.inputs["images"].tensor_shape.dim[0].size for request in server.service.requests
    ]
    assert sorted(sizes) == [3, 4, 4, 4, 4, 4]


def test_a_request_holds_no_more_bytes_than_the_limit(server, client, monkeypatch):
    monkeypatch.setattr(_parts, "_MAX_GROUP_BYTES", 36)  # two images of 18 bytes
    client.encode_images(images(range(3)))
    client.encode_bytes([b"a" * 20, b"b" * 16, b"c" * 40, b"d" * 2])
    by_images, by_bytes = [], []
    for request in server.service.requests:
        ((name, tensor),) = request.inputs.items()
        size = tensor.tensor_shape.dim[0].size
        (by_images if name == "images" else by_bytes).append(size)
    assert sorted(by_images) == [1, 2]
    assert sorted(by_bytes) == [1, 1, 2]  # 20 + 16; 40, which no group could hold; 2


def test_no_images_are_not_sent_but_have_the_right_width(server, client):
    codes = client.encode_images(images([]), bits=True)
    assert codes.code.shape == (0, 2) and codes.code.dtype == np.uint8
    assert codes.bits.shape == (0, 12) and codes.valid.shape == (0,) and codes.embedding is None
    assert client.encode_bytes([], on_error="mask").code.shape == (0, 2)
    assert server.service.requests == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros([1, 2, 2, 3], np.float32), "received float32 [1, 2, 2, 3]"),
        (np.zeros([2, 2, 3], np.uint8), "received uint8 [2, 2, 3]"),
        (np.zeros([1, 2, 2, 4], np.uint8), "received uint8 [1, 2, 2, 4]"),
        (np.zeros([1, 0, 2, 3], np.uint8), "received uint8 [1, 0, 2, 3]"),
    ],
)
def test_images_are_checked_before_they_are_sent(server, client, value, message):
    with pytest.raises(UserError, match="^images: expected uint8 ") as caught:
        client.encode_images(value)
    assert message in str(caught.value)
    assert server.service.requests == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([b"ab", "ab"], r"image_bytes\[1\]: expected bytes, received str"),
        (b"ab", r"image_bytes\[0\]: expected bytes, received int"),
        (np.array([b"ab\0"]), "image_bytes: expected a list of bytes, received an array"),
    ],
)
def test_files_are_checked_before_they_are_sent(server, client, value, message):
    with pytest.raises(UserError, match=f"^{message}"):
        client.encode_bytes(value)
    assert server.service.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "http://localhost:8501"}, "^target: .* received 'http://localhost:8501'"),
        ({"model": ""}, "^model: "),
        ({"version": 1, "label": "stable"}, "^version, label: "),
        ({"timeout": 0}, "^timeout: expected above 0, received 0"),
        ({"max_batch": 0}, "^max_batch: "),
        ({"in_flight": -1}, "^in_flight: .* received -1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(UserError, match=message):
        HashClient(**({"target": "localhost:1"} | arguments))


def test_on_error_is_checked(client):
    with pytest.raises(UserError, match="on_error.*received 'skip'"):
        client.encode_bytes([b"ab"], on_error="skip")


# Errors and deadlines


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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda outputs: outputs.pop("code"), "holds no output 'code'"),
        (lambda outputs: setattr(outputs["code"], "dtype", 3), "expected uint8 .* received int32"),
        (lambda outputs: outputs["code"].tensor_shape.dim.pop(), r"rank 2 with 1 rows.* \[1\]"),
        (
            lambda outputs: setattr(outputs["code"].tensor_shape.dim[1], "size", 2**40),
            "takes over 67108864 bytes",
        ),
        (lambda outputs: setattr(outputs["code"].tensor_shape.dim[1], "size", 9), "reshape"),
        (lambda outputs: setattr(outputs["code"].tensor_shape.dim[1], "size", -1), r"\[1, -1\]"),
        (lambda outputs: set_values(outputs["code"], int_val=[300, 1]), "output 'code': .*300"),
        (lambda outputs: set_values(outputs["code"], int_val=[-1, 1]), "output 'code': .*-1"),
        (lambda outputs: setattr(outputs["code"], "dtype", 4711), "received dtype 4711"),
        (
            lambda outputs: outputs["bits"].CopyFrom(tf.make_tensor_proto(np.zeros([1, 5], "u1"))),
            "do not belong together: code 2, bits 5",
        ),
        (lambda outputs: outputs.pop("fingerprint"), "holds no output 'fingerprint'"),
        (lambda outputs: setattr(outputs["fingerprint"], "dtype", 1), "expected string .* float32"),
        (lambda outputs: set_values(outputs["fingerprint"]), "0 strings for 1 rows"),
        (lambda outputs: set_values(outputs["fingerprint"], string_val=[b""]), "expected digits"),
        (lambda outputs: set_values(outputs["fingerprint"], string_val=[b"\x1b"]), "digits"),
        (lambda outputs: set_values(outputs["fingerprint"], string_val=[b"a"] * 2), "2 strings"),
        (lambda outputs: set_values(outputs["fingerprint"], string_val=[b"a" * 128]), "digits"),
        (lambda outputs: set_values(outputs["fingerprint"], tensor_content=b"\x02a"), "damaged"),
        (
            lambda outputs: set_values(outputs["fingerprint"], tensor_content=b"\xff" * 99),
            "damaged",
        ),
    ],
)
def test_a_strange_answer_is_an_error(server, client, spoil, message):
    server.service.after = lambda response: spoil(response.outputs)
    with pytest.raises(errors.HashServiceError, match=message) as caught:
        client.encode_images(images([1]), bits=True)
    assert caught.value.code is None


def set_values(tensor, **values):
    """These values in a TensorProto, in place of its own."""
    for name in ("tensor_content", "string_val"):
        tensor.ClearField(name)
    for name, value in values.items():
        if isinstance(value, list):
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda info: setattr(info, "value", b"\xff\xff"),  # no message at all
        lambda info: setattr(info, "type_url", "other"),
    ],
)
def test_strange_metadata_is_an_error(server, client, spoil, monkeypatch):
    answer = server.service.GetModelMetadata

    def spoilt(request, context):
        response = answer(request, context)
        spoil(response.metadata["signature_def"])
        return response

    server.stop()
    monkeypatch.setattr(server.service, "GetModelMetadata", spoilt)
    server.start()
    with pytest.raises(errors.HashServiceError, match="GetModelMetadata at .*signature_def"):
        client.metadata()


def test_a_terminal_does_not_obey_what_a_server_says(server, client):
    server.service.before = lambda number, context: context.abort(
        grpc.StatusCode.INTERNAL, "\x1b[2Jgone\u202e\x07"
    )
    with pytest.raises(errors.HashServiceError) as caught:
        client.encode_images(images([1]))
    assert str(caught.value).endswith("INTERNAL: \\x1b[2Jgone\\u202e\\x07")
    assert str(caught.value).isprintable()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_answer_over_the_limit_on_messages_is_an_error(server, client):
    def grow(response):
        response.outputs["code"].tensor_content = bytes(_channel.MAX_MESSAGE_BYTES)

    server.service.after = grow
    with pytest.raises(errors.ResourceExhausted, match="larger than max"):
        client.encode_images(images([1]))


def test_codes_of_two_versions_are_not_mixed(server, client):
    def reload(response):  # before the second part of the second batch, images 4 to 7
        if tf.make_ndarray(response.outputs["code"])[0, 0] == 4:
            response.model_spec.version.value = 4

    server.service.after = reload
    with pytest.raises(errors.VersionChanged, match=r"by the versions \[3, 4\]"):
        list(client.stream([images(range(2)), images(range(8))]))


# Fingerprints


@pytest.mark.parametrize("as_content", [False, True])
def test_the_fingerprint_of_what_answered(server, client, as_content):
    """In tensor_content, where TF Serving was started so, come all lengths first: 2, 2, 2."""

    def after(response):
        tensor = response.outputs["fingerprint"]
        if as_content:
            count = len(tensor.string_val)
            set_values(tensor, tensor_content=b"\x02" * count + b"f3" * count)

    server.service.after = after
    assert client.encode_images(images(range(3))).fingerprint == "f3"
    assert client.encode_images(images(range(9))).fingerprint == "f3"  # of three parts
    assert client.encode_bytes([b"ab"], on_error="mask").fingerprint == "f3"
    assert client.metadata().fingerprint == "f3"
    (probe,) = server.service.probes  # of one pixel, to the version that the metadata are of
    assert probe.model_spec.version.value == 3
    assert [size.size for size in probe.inputs["images"].tensor_shape.dim] == [1, 1, 1, 3]


def test_rows_of_two_models_in_one_answer(server, client):
    def after(response):
        response.outputs["fingerprint"].string_val[1] = b"f4"

    server.service.after = after
    with pytest.raises(errors.VersionChanged, match="2 fingerprints in one answer"):
        client.encode_images(images([1, 2]))


def test_a_server_swapped_within_a_call(server, client):
    """Both models are of the version 3, as every first export is of the version 1."""

    def swap(number, context):
        server.service.fingerprint = "f4" if number else "f3"

    server.service.before = swap
    with pytest.raises(errors.VersionChanged, match=r"by several models of version \[3\]"):
        client.encode_images(images(range(8)))


def test_codes_of_two_widths_in_one_call(server, client):
    """Of a model that tells no fingerprint, in place of one that tells none either."""
    server.service.fingerprint = ""

    def widen(response):
        if tf.make_ndarray(response.outputs["code"])[0, 0] == 4:
            wide = tf.make_tensor_proto(np.zeros([4, 7], np.uint8))
            response.outputs["code"].CopyFrom(wide)

    server.service.after = widen
    with pytest.raises(errors.VersionChanged, match=r"by several models of version \[3\]"):
        client.encode_images(images(range(8)))


@pytest.mark.parametrize("count", [1, 9])
def test_an_export_without_fingerprint_is_asked_once(server, client, count):
    server.service.fingerprint = ""
    codes = client.encode_images(images(range(count)))
    assert codes.code[:, 0].tolist() == list(range(count)) and codes.fingerprint == ""
    server.service.requests.clear()
    assert client.encode_images(images([1])).fingerprint == ""
    assert [list(request.output_filter) for request in server.service.requests] == [["code"]]
    assert client.metadata().fingerprint == ""
    server.service.fingerprint = "f4"  # as an export of today takes its place
    assert client.metadata().fingerprint == "f4"
    assert client.encode_images(images([1])).fingerprint == "f4"


# Stream


def batches_of(count: int, rows: int = 2) -> list[np.ndarray]:
    return [images(range(i * rows, i * rows + rows)) for i in range(count)]


def test_a_stream_answers_in_order_whatever_ends_first(server, client):
    server.service.before = lambda number, context: time.sleep([0.06, 0.02, 0][number % 3])
    answered = [codes.code[:, 0].tolist() for codes in client.stream(batches_of(10))]
    assert answered == [[2 * i, 2 * i + 1] for i in range(10)]


def test_a_stream_takes_images_and_files_long_and_empty(client):
    batches = [images([1]), images([]), images(range(9)), [b"ab", b""], []]
    answers = list(client.stream(batches, on_error="mask"))
    assert [len(codes) for codes in answers] == [1, 0, 9, 2, 0]
    assert answers[2].code[:, 0].tolist() == list(range(9))
    assert answers[3].valid.tolist() == [True, False]
    assert [codes.code.shape[1] for codes in answers] == [2] * 5


def test_a_stream_is_lazy_and_keeps_its_bound(server, client):
    """Three in flight: when the first answer is out, at most its successor and three are read."""
    read = []

    def batches():
        for i, batch in enumerate(batches_of(12)):
            read.append(i)
            yield batch

    stream = client.stream(batches())
    assert read == []
    server.service.before = lambda number, context: time.sleep(0.03)
    for i, codes in enumerate(stream):
        assert codes.code[0, 0] == 2 * i
        assert len(read) <= i + 1 + 3
    assert server.service.most_at_once == 3  # neither more, nor one after the other


def test_an_error_comes_in_its_turn(server, client):
    """The second request fails at once, the first is slow: its codes come first nevertheless."""

    def before(number, context):
        if server.service.requests[number].inputs["images"].tensor_content[0] == 2:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the second")
        time.sleep(0.1)

    server.service.before = before
    stream = client.stream(batches_of(5))
    assert next(stream).code[:, 0].tolist() == [0, 1]
    with pytest.raises(errors.InvalidInput, match="the second"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_closing_a_stream_cancels_what_is_in_flight(server, client):
    ended = threading.Semaphore(0)

    def before(number, context):
        if server.service.requests[number].inputs["images"].tensor_content[0]:
            context.add_callback(ended.release)
            while context.is_active():
                time.sleep(0.01)

    server.service.before = before
    stream = client.stream(batches_of(9))
    next(stream)
    assert not ended.acquire(timeout=0.1)
    stream.close()
    assert all(ended.acquire(timeout=5) for _ in range(3))  # what was in flight behind the first


# Metadata and status


def test_metadata(client):
    metadata = client.metadata()
    assert (metadata.model, metadata.version, metadata.code_length) == ("tfhash", 3, 12)
    assert set(metadata.signatures) == {"encode_images", "encode_bytes_partial"}
    signature = metadata.signatures["encode_images"]
    assert signature.inputs["images"].dtype == "uint8"
    assert signature.inputs["images"].shape is None
    assert signature.outputs["bits"].shape == (None, 12)
    assert metadata.signatures["encode_bytes_partial"].inputs["image_bytes"].dtype == "string"


def test_metadata_of_an_unknown_model(server):
    with HashClient(server.target, "other") as client:
        with pytest.raises(errors.NotFound, match="^other, GetModelMetadata at .*NOT_FOUND"):
            client.metadata()


def test_waits_until_the_model_is_available(server, client):
    """Through a server that is down, and one that has not loaded the model."""
    server.service.states = [(3, LOADING, 0, "")]

    def start():
        time.sleep(0.2)
        server.start()
        time.sleep(0.5)
        server.service.states = [(3, UNLOADING, 0, ""), (4, AVAILABLE, 0, "")]

    server.stop()
    thread = threading.Thread(target=start)
    thread.start()
    assert client.wait_until_ready(10) == 4
    thread.join()


def test_a_model_that_cannot_be_loaded_is_not_waited_for(server, client):
    server.service.states = [(2, END, 0, ""), (3, END, 3, "no such op")]
    with pytest.raises(
        errors.LoadFailed, match="version 3 could not be loaded: no such op"
    ) as error:
        client.wait_until_ready(10)
    assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT
    server.service.states = [(2, AVAILABLE, 0, ""), (3, END, 3, "no such op")]
    assert client.wait_until_ready(10) == 2


def test_waiting_has_an_end(server, client):
    server.service.states = [(3, LOADING, 0, ""), (2, END, 9, "broken")]
    with pytest.raises(errors.Unavailable, match="version 3 is LOADING, version 2 is END"):
        client.wait_until_ready(0.4)
    with HashClient(CONNECTION_REFUSED) as nobody:
        with pytest.raises(errors.Unavailable, match="refused"):
            nobody.wait_until_ready(0.4)


# Transport


@pytest.fixture
def behind_a_proxy(monkeypatch):
    """A proxy that does not run, at port 1; tests on loopback would fail if they went there."""
    for name in ("grpc_proxy", "https_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:1/")


def test_no_proxy_leads_into_this_machine(server, behind_a_proxy):
    port = server.target.rpartition(":")[2]
    for target in (server.target, f"localhost:{port}", f"dns:///localhost:{port}"):
        with HashClient(target, timeout=5) as client:
            assert client.encode_images(images([5])).code.tolist() == [[5, 0xF0]]


def test_a_proxy_is_named_in_the_error(behind_a_proxy):
    with HashClient("photos.example:8500", timeout=0.4) as client:
        for call in (lambda: client.encode_bytes([b"ab"]), lambda: client.wait_until_ready(0.1)):
            with pytest.raises(errors.Unavailable) as caught:
                call()
            line = str(caught.value)
            assert "at photos.example:8500: UNAVAILABLE: through the proxy 127.0.0.1:1" in line
            assert "of http_proxy: " in line and "secret" not in line


@pytest.mark.parametrize(
    ("target", "variables", "expected"),
    [
        ("photos.example:1", {}, "127.0.0.1:1 of http_proxy"),
        ("photos.example:1", {"https_proxy": "http://p:2"}, "p:2 of https_proxy"),
        ("photos.example:1", {"https_proxy": "http://p", "grpc_proxy": ""}, ""),
        ("photos.example:1", {"no_proxy": "other, .Example"}, ""),
        ("photos.example:1", {"no_proxy": ".example", "no_grpc_proxy": "x"}, "127.0.0.1:1 of "),
        ("10.1.2.3:1", {"no_proxy": "10.1.0.0/16"}, ""),
        ("10.2.2.3:1", {"no_proxy": "10.1.0.0/16"}, "127.0.0.1:1 of http_proxy"),
        ("[::1]:1", {}, ""),
        ("ipv6:[::1]:1", {}, ""),
        ("dns://8.8.8.8/photos.example:1", {"no_proxy": "photos.example"}, ""),
        ("unix:/tmp/socket", {}, ""),
        ("[", {}, "127.0.0.1:1 of http_proxy"),
    ],
)
def test_which_proxy_a_target_has(behind_a_proxy, monkeypatch, target, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _channel.proxy(target).startswith(expected) and bool(expected) == bool(
        _channel.proxy(target)
    )


def test_the_package_imports_neither_grpc_nor_tensorflow():
    """Of which `tfhash.serving.deploy`, for one, has no need."""
    code = "import sys, tfhash.serving; sys.exit(bool({'grpc', 'tensorflow'} & set(sys.modules)))"
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": path})
    with pytest.raises(ImportError):
        from tfhash.serving import Nothing  # noqa: F401


def test_mutual_tls(tls_server, certificate):
    root, key = (path.read_bytes() for path in certificate)
    credentials = grpc.ssl_channel_credentials(root, key, root)
    with HashClient(tls_server.target, tls=credentials) as client:
        assert client.encode_images(images([5])).code.tolist() == [[5, 0xF0]]


def test_without_tls_a_tls_server_is_not_reachable(tls_server):
    with HashClient(tls_server.target, timeout=0.5) as client:
        with pytest.raises(errors.Unavailable, match="not reachable within 0.5 s"):
            client.encode_images(images([5]))
