"""Thousands of malformed inputs, and of requests over hot reloads.

The whole of it, as it was run by hand; without these variables a small part:

    TFHASH_MALFORMED=10000 TFHASH_REQUESTS=50000 \\
        python -m pytest tests/conformance/test_endurance.py
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from tfhash.data import images as image_ops

MALFORMED = int(os.environ.get("TFHASH_MALFORMED", 540))
REQUESTS = int(os.environ.get("TFHASH_REQUESTS", 800))
THREADS = 16
# What one server may take above its memory after the first request, in MiB, where an input tensor
# may ask for 64: its pixels, four times as much as float32, and the JSON of a request.
MEMORY_BOUND = 768
PREDICT = "/tensorflow.serving.PredictionService/Predict"
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def process(server, exports, embedded_process) -> Iterator[tuple]:
    """A server of the first encoder, and the number of its process, None of a real TF Serving."""
    if server.name != "embedded":
        yield server, None
        return
    with embedded_process(exports[1].folder) as running:
        yield running


class Malformed:
    """Makes bad inputs; each method sends one and answers what came and what should have come."""

    def __init__(self, server, seed: int):
        self.server = server
        self.rng = np.random.default_rng(seed)
        pixels = self.rng.integers(0, 256, (24, 40, 3), np.uint8)
        self.files = [tf.io.encode_jpeg(pixels).numpy(), tf.io.encode_png(pixels).numpy()]
        self.good = self.rng.integers(0, 256, (1, 16, 16, 3), np.uint8)
        self.raw = server.channel.unary_unary(PREDICT)  # bytes in, bytes out

    def predict(self, *arguments, **inputs) -> Code:
        try:
            self.server.predict(*arguments, **inputs)
        except grpc.RpcError as error:
            return error.code()
        return Code.OK

    def bytes_of_a_file(self, content: bytes):
        readable = decodes(content)
        if self.rng.random() < 0.5:
            return self.predict("encode_bytes", image_bytes=[content]), {
                Code.OK if readable else Code.INVALID_ARGUMENT
            }
        answer = self.server.encode("encode_bytes_partial", image_bytes=[content])
        return bool(answer["valid"][0]), {readable}

    def a_file(self) -> bytes:
        return self.files[self.rng.integers(2)]

    def truncation(self):
        content = self.a_file()
        return self.bytes_of_a_file(content[: self.rng.integers(len(content))])

    def bit_flips(self):
        return self.bytes_of_a_file(flip(self.rng, self.a_file()))

    def random_bytes(self):
        start = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"][self.rng.integers(3)]
        return self.bytes_of_a_file(start + self.rng.bytes(self.rng.integers(300)))

    def huge_header(self):
        width, height = (int(side) for side in self.rng.integers(32_769, 65_500, 2))
        jpeg, png = self.files
        if self.rng.random() < 0.5:
            content = png[:16] + struct.pack(">II", width, height) + png[24:]
        else:
            frame = jpeg.index(b"\xff\xc0")  # marker 2 bytes, length 2, precision 1, then the sides
            content = jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]
        assert not decodes(content)
        return self.bytes_of_a_file(content)

    def wrong_shape_or_type(self):
        shapes = [(), (3,), (4, 4, 3), (1, 4, 4), (1, 4, 4, 1), (2, 0, 4, 3), (1, 1, 4, 4, 3)]
        types = [np.float32, np.int32, np.int64, np.float64, np.bool_, np.uint16]
        if self.rng.random() < 0.5:
            value = np.zeros(shapes[self.rng.integers(len(shapes))], np.uint8)
        else:
            value = np.zeros((1, 4, 4, 3), types[self.rng.integers(len(types))])
        if self.rng.random() < 0.2:
            return self.predict("encode_bytes", image_bytes=value), {Code.INVALID_ARGUMENT}
        return self.predict("encode_images", images=value), {Code.INVALID_ARGUMENT}

    def hostile_tensor(self):
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_UINT8, int_val=[7])
        sizes = [1, 4, 4, 3]
        match self.rng.integers(11):
            case 0:
                sizes = [int(size) for size in self.rng.integers(2**20, 2**40, 4)]
            case 1:
                sizes[self.rng.integers(4)] = -int(self.rng.integers(1, 2**40))
            case 2:
                tensor.tensor_shape.unknown_rank, sizes = True, []
            case 3:
                tensor.dtype = int(self.rng.choice([0, types_pb2.DT_RESOURCE, 27, 99]))
            case 4:
                tensor.tensor_content = self.rng.bytes(int(self.rng.integers(1, 47)))
            case 5:
                tensor.int_val.extend([1] * int(self.rng.integers(48, 90)))
            case 6:
                tensor.int_val[0] = int(self.rng.choice([-1, 256, 2**30]))
            case 7:
                sizes = [2**32, 2**32, 2**32, 3]
            case 8:
                sizes = [1] * int(self.rng.choice([9, 32, 33, 64, 65, 254, 255, 1000]))
            case 9:
                sizes = [0, *(int(size) for size in self.rng.integers(2**20, 2**62, 3))]
            case 10:
                tensor.dtype = types_pb2.DT_STRING_REF + int(self.rng.integers(-6, 16))
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)
        return self.predict("encode_images", images=tensor), {Code.INVALID_ARGUMENT}

    def hostile_strings(self):
        """Ranks, sizes and lengths that do not go together, of a string tensor."""
        rng = self.rng
        content = [rng.bytes(int(rng.integers(40))) for _ in range(rng.integers(4))]
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=content)
        match rng.integers(5):
            case 0:
                sizes = [1] * int(rng.choice([0, 2, 3, 9, 32, 33, 34, 64, 65, 255]))
            case 1:
                sizes = [int(rng.integers(2**20, 2**62)), *[0] * int(rng.integers(3))]
            case 2:
                sizes = [-int(rng.integers(1, 2**62))]
            case 3:  # fewer values than places: the last stands for the rest
                sizes = [len(content) + int(rng.integers(1, 5))]
            case 4:
                tensor.string_val.extend([b"a"] * 5)
                sizes = [int(rng.integers(1, 5))]
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)
        return self.predict("encode_bytes", image_bytes=tensor), {Code.INVALID_ARGUMENT}

    def flipped_message(self):
        request = self.server.request("encode_images", images=self.good)
        message = flip(self.rng, request.SerializeToString())
        try:
            predict_pb2.PredictRequest.FromString(message)
            expected = {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION}
        except Exception:
            expected = {Code.INTERNAL}
        try:
            self.raw(message, timeout=20)
        except grpc.RpcError as error:
            return error.code(), expected
        return Code.OK, expected

    def rest(self):
        body = b'{"instances": [[[[1, 2, 3], [4, 5, 6]]]]}'
        bodies = [
            body[: self.rng.integers(len(body))],
            self.rng.bytes(int(self.rng.integers(1, 200))),
            body.replace(b"3", b"300"),
            body.replace(b"3", b'"x"'),
            body.replace(b"3", b"[3]"),
            b'{"inputs": ' + b"[" * 3000 + b"]" * 3000 + b"}",
            b'{"signature_name": "encode_bytes", "instances": [{"b64": "!"}]}',
            b'{"signature_name": "encode_bytes", "inputs": %s"a"%s}' % (b"[" * 33, b"]" * 33),
            b'{"instances": ["' + b"x" * 10_000 + b'"' + b',""' * 1000 + b"]}",
        ]
        if self.rng.random() < 0.01:
            body = b'{"instances": [' + b"[]," * 3_000_000 + b"[]]}"
            return self.server.rest("POST", "/v1/models/tfhash:predict", body)[0], {429}
        content = bodies[self.rng.integers(len(bodies))]
        return self.server.rest("POST", "/v1/models/tfhash:predict", content)[0], {400}


def decodes(content: bytes) -> bool:
    with contextlib.suppress(tf.errors.InvalidArgumentError):
        image_ops.decode(tf.constant(content))
        return True
    return False


def flip(rng: np.random.Generator, content: bytes) -> bytes:
    """The bytes with one to eight bits changed."""
    changed = np.frombuffer(content, np.uint8).copy()
    for place in rng.integers(0, 8 * len(changed), rng.integers(1, 9)):
        changed[place // 8] ^= 1 << (place % 8)
    return changed.tobytes()


KINDS = (
    "truncation bit_flips random_bytes huge_header wrong_shape_or_type hostile_tensor "
    "hostile_strings "
    "flipped_message rest"
).split()


def test_malformed_inputs(process, exports, images, capsys, peak_memory):
    server, pid = process
    malformed = Malformed(server, seed=1)
    code = exports[1].code(images)

    def check_a_good_request() -> None:
        answer = server.encode("encode_images", outputs=["code"], images=images)
        np.testing.assert_array_equal(answer["code"], code)

    check_a_good_request()
    before = peak_memory(pid) if pid else 0.0
    seen = Counter()
    for number in range(MALFORMED):
        kind = KINDS[number % len(KINDS)]
        state = malformed.rng.bit_generator.state
        came, expected = getattr(malformed, kind)()
        assert came in expected, f"{kind} {number}: {came}, not of {expected}; {state}"
        seen[kind, str(came)] += 1
        check_a_good_request()
    grown = peak_memory(pid) - before if pid else 0.0
    with capsys.disabled():
        print(f"\n{MALFORMED} malformed inputs; memory {before:.0f} MiB, at most {grown:.0f} more")
        for (kind, came), count in sorted(seen.items()):
            print(f"  {kind:<20}{came:<32}{count:>6}")
    assert grown < MEMORY_BOUND


def test_the_largest_tensor_that_is_allowed(process, peak_memory):
    """63 of 64 MiB, of one value: answered, within the bound."""
    server, pid = process
    if pid is None:
        pytest.skip("TF Serving has no such limit")
    before = peak_memory(pid)
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_UINT8, int_val=[7])
    for size in (1, 5250, 4194, 3):  # 66,055,500 bytes
        tensor.tensor_shape.dim.add(size=size)
    assert server.encode("encode_images", images=tensor)["code"].shape == (1, 2)
    assert 0 < peak_memory(pid) - before < MEMORY_BOUND


def test_requests_over_hot_reloads(embedded, server, exports, images, capsys):
    """Each of all requests is answered with a code of the version that the answer names."""
    if server.name != "embedded":
        pytest.skip("this one publishes and withdraws for as long as the requests last")
    codes = {version: of_version.code(images[:1]) for version, of_version in exports.items()}
    with embedded(threads=THREADS, poll_seconds=0.05) as other:
        with other.serving("tfhash", {1: exports[1].folder}):
            sent, wrong = [0], []
            seen: Counter[int] = Counter()
            lock = threading.Lock()
            request = other.request(outputs=["code"], images=images[:1])

            def goes_on() -> bool:
                """As a busy machine reloads slowly: until both versions have answered."""
                return sent[0] < REQUESTS or (len(seen) < 2 and sent[0] < 100 * REQUESTS)

            def work() -> None:
                while True:
                    with lock:
                        if not goes_on():
                            return
                        sent[0] += 1
                    try:
                        response = other.prediction.Predict(request, timeout=60)
                        version = response.model_spec.version.value
                        code = tf.make_ndarray(response.outputs["code"])
                        assert np.array_equal(code, codes[version])
                    except Exception as error:
                        wrong.append(error)
                        continue
                    with lock:
                        seen[version] += 1

            threads = [threading.Thread(target=work) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            reloads = reload_while(other, exports[2].folder, goes_on)
            for thread in threads:
                thread.join()
    with capsys.disabled():
        print(f"\n{sent[0]} requests, {THREADS} threads, {reloads} reloads: {dict(seen)}")
    assert wrong == []
    assert sum(seen.values()) == sent[0] >= REQUESTS
    assert reloads and set(seen) == {1, 2}


def reload_while(server, content: Path, goes_on: Callable[[], bool]) -> int:
    """Publishes version 2 and takes it away, again and again; how often it changed."""
    changes = 0
    while goes_on():
        server.publish("tfhash", 2, content)
        server.wait(lambda: server.states("tfhash").get(1) == "END")
        server.withdraw("tfhash", 2)
        server.wait(lambda: server.states("tfhash").get(1) == "AVAILABLE")
        changes += 2
    return changes
