"""wire: the size of what bytes become is bounded before they are parsed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from tfhash.serving.server import wire
from tfhash.serving.server.status import RequestError

MANY = 100_000


def request_of(value) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "model"
    request.inputs["x"].CopyFrom(value)
    return request


def proto(**fields) -> predict_pb2.PredictRequest:
    return request_of(tf.make_tensor_proto(1, tf.uint8)).__class__(
        inputs={"x": tf.make_tensor_proto(0).__class__(**fields)}
    )


def dimensions() -> predict_pb2.PredictRequest:
    request = proto()
    for _ in range(MANY):
        request.inputs["x"].tensor_shape.dim.add()
    return request


def entries() -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    for number in range(MANY):
        request.inputs[str(number)].SetInParent()
    return request


@pytest.mark.parametrize(
    "request_",
    [
        dimensions(),
        entries(),
        proto(string_val=[b""] * MANY),
        predict_pb2.PredictRequest(output_filter=[""] * MANY),
    ],
    ids=["dimensions", "entries", "strings", "outputs"],
)
def test_each_field_is_counted(request_):
    """They take from 16 bytes, of a string, to some 200, of a map entry."""
    message = request_.SerializeToString()
    size = wire.parsed_size(message, 2**40)
    assert size >= len(message) + 256 * MANY
    assert wire.parsed_size(message, 10**6) > 10**6  # and stops there


@pytest.mark.parametrize(
    ("fields", "each"),
    [
        ({"int_val": [1] * MANY}, 8),
        ({"int64_val": [1] * MANY}, 16),
        ({"half_val": [1] * MANY}, 8),
        ({"uint32_val": [1] * MANY}, 8),
        ({"uint64_val": [1] * MANY}, 16),
        ({"bool_val": [True] * MANY}, 0),
        ({"float_val": [1] * MANY}, 0),
        ({"tensor_content": bytes(MANY)}, 0),
    ],
)
def test_packed_values(fields, each):
    """A byte becomes 4 or 8; as much again where the list grows."""
    message = proto(**fields).SerializeToString()
    size = wire.parsed_size(message, 2**40)
    assert each * MANY <= size - len(message) < each * MANY + 10_000


@pytest.mark.parametrize("field", ["resource_handle_val", "variant_val"])
def test_handles_are_refused(field):
    request = proto(tensor_content=bytes(MANY))
    getattr(request.inputs["x"], field).add()
    with pytest.raises(RequestError, match="a tensor of handles"):
        wire.parsed_size(request.SerializeToString(), 2**40)


@pytest.mark.parametrize("wire_type", [3, 4, 6, 7])
def test_groups_are_refused(wire_type):
    """Or else nobody counts what is behind them. The tag of field 100: 100 * 8 + 3 is 0x323."""
    message = bytes([0xA0 | wire_type, 6]) + dimensions().SerializeToString()
    with pytest.raises(RequestError, match=f"a field of wire type {wire_type}") as raised:
        wire.parsed_size(message, 2**40)
    assert raised.value.code.name == "INVALID_ARGUMENT"


def test_few_bytes_are_not_looked_into():
    assert wire.parsed_size(b"\x12" * 1000, 2**40) == 1000


def test_any_bytes():
    """What is no message ends, and raises nothing but a refusal."""
    rng = np.random.default_rng(0)
    message = dimensions().SerializeToString()
    for _ in range(50):
        start = int(rng.integers(len(message) - 70_000))
        damaged = bytearray(message[start : start + 70_000])
        for place in rng.integers(0, len(damaged), 20):
            damaged[place] = rng.integers(256)
        try:
            assert wire.parsed_size(bytes(damaged), 10**7) >= 70_000
        except RequestError as error:
            assert "handles" in error.message or "wire type" in error.message
