"""json_tensors: JSON becomes arrays of the signature's types or one clear error, never another."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tfhash.serving.server import json_tensors
from tfhash.serving.server.status import RequestError

LIMIT = 2**20  # bytes


def signature(**dtypes: tf.DType) -> meta_graph_pb2.SignatureDef:
    signature = meta_graph_pb2.SignatureDef()
    for name, dtype in dtypes.items():
        signature.inputs[name].dtype = dtype.as_datatype_enum
    return signature


def read(content: dict, **dtypes: tf.DType) -> dict[str, np.ndarray]:
    return json_tensors.inputs(content, signature(**dtypes), LIMIT)


def refusal(content: dict, **dtypes: tf.DType) -> str:
    with pytest.raises(RequestError) as raised:
        read(content, **dtypes)
    assert raised.value.code.name == "INVALID_ARGUMENT"
    return raised.value.message


def nested(depth: int, value) -> list:
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: "),
        (b"{", "JSON Parse error: "),
        (b'{"inputs": 1} x', "JSON Parse error: "),
        (b"\xff", "JSON Parse error: "),
        (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON Parse error: "),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "JSON Parse error: "),
        (b"[]", "expected a JSON object, received list"),
        (b"NaN", "expected a JSON object, received float"),
        (b"null", "expected a JSON object, received NoneType"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"inputs": 1, "instances": [1]}', "Missing 'inputs' or 'instances' key"),
        (b'{"inputs": 1, "signature_name": 7}', "'signature_name' key must be a string value."),
        (b'{"inputs": 1, "signature_name": null}', "'signature_name' key must be a string value."),
    ],
)
def test_bodies_that_are_no_request(body, message):
    with pytest.raises(RequestError) as raised:
        json_tensors.parse(body, 16 * LIMIT)
    assert raised.value.code.name == "INVALID_ARGUMENT"
    assert raised.value.message.startswith(message)


def test_a_body():
    content = {"signature_name": "text", "inputs": ["é"]}
    assert json_tensors.parse(json.dumps(content, ensure_ascii=False).encode(), LIMIT) == content


@pytest.mark.parametrize(
    ("body", "size"),
    [
        # The text and its strings, 13 + 13; an object 400 and its name 120; a list 120; a value 60.
        (b'{"inputs":[]}', 13 + 13 + 400 + 120 + 120),
        (b'{"inputs":[1]}', 14 + 14 + 400 + 120 + 120),
        (b'{"inputs":[1,2]}', 16 + 16 + 400 + 120 + 120 + 60),
        (b'{"inputs":[1,2', 14 + 14 + 400 + 120 + 120 + 60),  # counted before it is parsed
        # A wide character, as it is or escaped, may make a string four times as long.
        ('{"inputs":["é"]}'.encode(), 4 * 17 + 4 * 17 + 400 + 120 + 120),
        (rb'{"inputs":["\u00e9"]}', 21 + 4 * 21 + 400 + 120 + 120),
    ],
)
def test_more_memory_than_is_allowed(body, size):
    with pytest.raises(RequestError) as raised:
        json_tensors.parse(body, size - 1)
    assert raised.value.code.name == "RESOURCE_EXHAUSTED"
    assert raised.value.message == (
        f"the JSON values may take {size} bytes of memory; this server allows {size - 1}"
    )
    if body.endswith(b"}"):
        json_tensors.parse(body, size)


ROWS = [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": ROWS},
        {"inputs": {"x": ROWS}},
        {"instances": ROWS},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]},
    ],
)
def test_rows_and_columns(content):
    arrays = read(content, x=tf.uint8)
    assert {name: (a.tolist(), a.dtype) for name, a in arrays.items()} == {"x": (ROWS, np.uint8)}


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": {"x": [1, 2], "name": ["a", {"b64": "/w=="}]}},
        {"instances": [{"x": 1, "name": "a"}, {"name": {"b64": "/w=="}, "x": 2}]},
    ],
)
def test_several_inputs(content):
    arrays = read(content, x=tf.float32, name=tf.string)
    assert {name: a.tolist() for name, a in arrays.items()} == {
        "x": [1, 2],
        "name": [b"a", b"\xff"],
    }
    assert (arrays["x"].dtype, arrays["name"].dtype) == (np.float32, object)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", "é", ""], [b"a", "é".encode(), b""]),
        ([{"b64": "AAE="}, {"b64": ""}, "x"], [b"\x00\x01", b"", b"x"]),
        ([["a"], ["b"]], [[b"a"], [b"b"]]),
        ([], []),
        ("a", b"a"),
        ({"b64": "YQ=="}, b"a"),
        (nested(8, "a"), nested(8, b"a")),
        # As TF Serving reads them: padding may be missing, white space does not count.
        ([{"b64": "YQ"}, {"b64": "YQ.."}, {"b64": "A\nAE\r\n= "}], [b"a", b"a", b"\x00\x01"]),
    ],
)
def test_strings(value, expected):
    array = read({"inputs": value}, x=tf.string)["x"]
    assert (array.dtype, array.tolist()) == (object, expected)


@pytest.mark.parametrize(
    "value",
    [
        [1],
        [None],
        [True],
        ["a", 1],
        [{"b64": "!"}],
        [{"b64": "Y"}],
        [{"b64": "YQ="}],
        [{"b64": "=YQ="}],
        [{"b64": "YQ==="}],
        [{"b64": "YQ==é"}],
        [{"b64": 3}],
        [{"b64": None}],
        [{"bytes": "YQ=="}],
        [["a"], ["b", "c"]],
        [["a"], "b"],
        [["a"], []],
        ["\ud800"],
        nested(9, "a"),
        nested(33, "a"),
        nested(900, "a"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_string(value):
    assert refusal({"inputs": {"x": value}}, x=tf.string).startswith("tensor parsing error: x (")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (tf.uint8, [0, 255]),
        (tf.int8, [-128, 127]),
        (tf.int32, [-(2**31), 2**31 - 1]),
        (tf.int64, [-(2**63), 2**63 - 1]),
        (tf.uint64, [2**63, 2**64 - 1]),
        (tf.float32, [1, 0.5, -2]),
        (tf.float32, [float("inf"), -1]),
        (tf.bool, [True, False]),
        (tf.uint8, 7),
        (tf.uint8, []),
        (tf.bool, []),
        (tf.uint8, [[], []]),
        (tf.uint8, nested(8, 1)),
    ],
)
def test_numbers(dtype, value):
    array = read({"inputs": value}, x=dtype)["x"]
    assert (array.dtype, array.tolist()) == (dtype.as_numpy_dtype, value)


def test_not_a_number_is_a_float():
    content = json_tensors.parse(b'{"inputs": [NaN]}', LIMIT)
    assert np.isnan(read(content, x=tf.float32)["x"]).tolist() == [True]
    assert refusal(content, x=tf.uint8) == "x: a JSON value is not of expected type: uint8"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *[
            (tf.uint8, value)
            for value in (
                [256], [-1], [1.0], [1, 1.5], [2**70], [2**64 - 1, -1], [True], [None], ["1"], "1",
                None, [{"b64": "AQ=="}], {"b64": "AQ=="},
            )
        ],
        (tf.int64, [2**63]),
        (tf.uint64, [-1]),
        (tf.uint64, [2**64]),
        (tf.float32, ["1"]),
        (tf.float32, [None]),
        (tf.float32, [True]),
        (tf.float32, [2**70]),
        (tf.bool, [1]),
        (tf.bool, ["true"]),
        (tf.bool, [None]),
        (tf.complex64, ["x"]),
        (tf.complex64, [{"b64": "AQ=="}]),
    ],
    ids=ascii,
)  # fmt: skip
def test_values_of_another_type(dtype, value):
    message = f"x: a JSON value is not of expected type: {dtype.name}"
    assert refusal({"inputs": {"x": value}}, x=dtype) == message


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32, tf.bool])
@pytest.mark.parametrize(
    "value", [[[1], [1, 2]], [[1], 2], [[1], []], nested(9, 1), nested(900, 1)]
)
def test_lists_that_are_no_array(dtype, value):
    assert refusal({"inputs": value}, x=dtype).startswith("tensor parsing error: x (")


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ([], "'instances' must be a list that is not empty"),
        ({}, "'instances' must be a list that is not empty"),
        ("text", "'instances' must be a list that is not empty"),
        ([1], "instances: this signature takes several inputs: x, y"),
        ([{"x": 1, "y": 2}, {"x": 1}], "Failed to process element: 1 of 'instances' list."),
        ([{"x": 1, "y": 2, "z": 3}], "Failed to process element: 0 of 'instances' list."),
        ([{"x": 1, "y": 2}, 5], "Failed to process element: 1 of 'instances' list."),
        ([{}], "Failed to process element: 0 of 'instances' list."),
    ],
)
def test_rows_that_do_not_fit_the_signature(instances, message):
    assert refusal({"instances": instances}, x=tf.uint8, y=tf.uint8).startswith(message)


def test_columns_of_several_inputs_need_names():
    message = "inputs: this signature takes several inputs: x, y"
    assert refusal({"inputs": [1]}, x=tf.uint8, y=tf.uint8) == message


@pytest.mark.parametrize(
    ("shape", "value", "words"),
    [
        ([-1], [[1]], "more than 1 dimensions"),
        ([], [1], "more than 0 dimensions"),
        ([-1, -1, -1], nested(4, 1), "more than 3 dimensions"),
        (None, nested(9, 1), "more than 8 dimensions"),
    ],
)
def test_the_rank_of_the_signature(shape, value, words):
    of = signature(x=tf.uint8)
    of.inputs["x"].tensor_shape.unknown_rank = shape is None
    for size in shape or []:
        of.inputs["x"].tensor_shape.dim.add(size=size)
    with pytest.raises(RequestError) as raised:
        json_tensors.inputs({"inputs": value}, of, LIMIT)
    assert words in raised.value.message


@pytest.mark.parametrize(
    ("dtype", "value", "size"),
    [
        (tf.float64, [0] * 3, 24),
        (tf.string, ["abc", "", "é"], 3 * 64 + 3 + 2),
        (tf.string, [], 64),  # what is empty counts as one
    ],
)
def test_memory_of_an_array(dtype, value, size):
    of = signature(x=dtype)
    json_tensors.inputs({"inputs": value}, of, size)
    with pytest.raises(RequestError) as raised:
        json_tensors.inputs({"inputs": value}, of, size - 1)
    assert raised.value.message.endswith(f"({size} bytes; this server allows {size - 1})")


def test_a_large_image():
    """Of 1,000 x 1,000 pixels, with the largest body of 64 MiB and the memory that goes with it."""
    image = [[[200, 100, 0]] * 1000] * 1000
    content = json_tensors.parse(json.dumps({"instances": [image]}).encode(), 5 * 64 * 2**20)
    array = json_tensors.inputs(content, signature(x=tf.uint8), 2**22)["x"]
    assert (array.shape, array.sum()) == ((1, 1000, 1000, 3), 300 * 10**6)


def test_a_long_string_among_short_ones_is_no_number(monkeypatch):
    """NumPy would make an array of strings that are all as long: no array is made at all."""
    monkeypatch.setattr(json_tensors.np, "array", None)
    message = refusal({"inputs": ["", "x" * 1000, ""]}, x=tf.uint8)
    assert message == "x: a JSON value is not of expected type: uint8"


def test_a_name_that_the_signature_does_not_have():
    assert refusal({"inputs": {"y": [1]}}, x=tf.uint8) == "y: this signature takes x"


OUTPUTS = {"code": np.array([[1, 2], [3, 4]], np.uint8), "half": np.array([0.5, 1.5], np.float32)}


WORDS = {"fingerprint": np.array([b"00ff", "é".encode(), b"\xff"], object)}


@pytest.mark.parametrize("rows_in_chunks", [[2], [1, 1], [0, 2]])
@pytest.mark.parametrize(
    ("by_rows", "outputs", "expected"),
    [
        (False, OUTPUTS, {"outputs": {"code": [[1, 2], [3, 4]], "half": [0.5, 1.5]}}),
        (
            True,
            OUTPUTS,
            {"predictions": [{"code": [1, 2], "half": 0.5}, {"code": [3, 4], "half": 1.5}]},
        ),
        (False, {"half": OUTPUTS["half"]}, {"outputs": [0.5, 1.5]}),
        (True, {"half": OUTPUTS["half"]}, {"predictions": [0.5, 1.5]}),
    ],
)
def test_answers(by_rows, outputs, expected, rows_in_chunks):
    chunks, start = [], 0
    for rows in rows_in_chunks:
        chunks.append({name: array[start : start + rows] for name, array in outputs.items()})
        start += rows
    assert json.loads(json_tensors.answer(by_rows, chunks)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fingerprint", ["00ff", "é", "\ufffd"]),
        ("image_bytes", [{"b64": "MDBmZg=="}, {"b64": "w6k="}, {"b64": "/w=="}]),
    ],
)
def test_strings_in_answers(name, expected):
    """In base64 where the name ends with _bytes, as TF Serving writes them."""
    chunk = {name: WORDS["fingerprint"]}
    assert json.loads(json_tensors.answer(True, [chunk])) == {"predictions": expected}
    assert json.loads(json_tensors.answer(False, [chunk])) == {"outputs": expected}


def test_an_answer_that_is_no_row():
    chunk = {"total": np.array(7, np.int32)}
    assert json.loads(json_tensors.answer(False, [chunk])) == {"outputs": 7}
