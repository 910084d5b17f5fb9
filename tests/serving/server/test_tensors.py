"""tensors: what is read is what tf.make_ndarray reads, unless it is wrong or too much."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from tfhash.serving.server import tensors
from tfhash.serving.server.status import RequestError

LIMIT = 1024


def tensor(
    dtype: str, shape: list[int], unknown_rank: bool = False, **fields
) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(f"DT_{dtype}"), **fields)
    proto.tensor_shape.unknown_rank = unknown_rank
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def read(proto: tensor_pb2.TensorProto, name: str = "x", limit: int = LIMIT) -> np.ndarray:
    """Of an input of the same type, of any shape."""
    info = meta_graph_pb2.TensorInfo(dtype=proto.dtype)
    info.tensor_shape.unknown_rank = True
    return tensors.read(name, proto, info, limit)


@pytest.mark.parametrize(
    ("proto", "values"),
    [
        (tensor("UINT8", [2, 2], tensor_content=b"\x00\x01\x02\xff"), [[0, 1], [2, 255]]),
        (tensor("UINT8", [2], int_val=[0, 255]), [0, 255]),
        (tensor("UINT8", [], int_val=[7]), 7),
        (tensor("INT64", [1], int64_val=[-(2**63)]), [-(2**63)]),
        (tensor("UINT64", [1], uint64_val=[2**64 - 1]), [2**64 - 1]),
        (tensor("HALF", [1], half_val=[0x3C00]), [1.0]),
        (tensor("BOOL", [2], bool_val=[True, False]), [True, False]),
        (tensor("STRING", [2], string_val=[b"a\x00", b""]), [b"a\x00", b""]),
        # Fewer values than the shape holds: the last stands for the rest, and 0 for none at all.
        (tensor("INT32", [4], int_val=[5, 6]), [5, 6, 6, 6]),
        (tensor("FLOAT", [2, 1], float_val=[0.5]), [[0.5], [0.5]]),
        (tensor("FLOAT", [2]), [0, 0]),
        (tensor("STRING", [3], string_val=[b"a", b"b"]), [b"a", b"b", b"b"]),
        # Both encodings in one TensorProto: TensorFlow takes tensor_content.
        (tensor("UINT8", [1], tensor_content=b"\x03", int_val=[4]), [3]),
        (tensor("UINT8", [0, LIMIT]), []),
    ],
)
def test_reads(proto, values):
    array = read(proto)
    assert array.dtype == tf.dtypes.as_dtype(proto.dtype).as_numpy_dtype
    assert array.shape == tuple(dimension.size for dimension in proto.tensor_shape.dim)
    assert array.tolist() == values


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (tensor("UINT8", [2, -1], int_val=[1]), "its shape is not known"),
        (tensor("UINT8", [-2, -2], int_val=[1]), "its shape is not known"),
        (tensor("UINT8", [], unknown_rank=True), "its shape is not known"),
        (tensor("INVALID", [1]), "TensorFlow DType"),
        (tensor_pb2.TensorProto(dtype=9999), "TensorFlow DType"),
        (tensor("FLOAT_REF", [1]), "float32_ref"),
        (tensor("RESOURCE_REF", [1]), "resource_ref"),
        (tensor("VARIANT_REF", [1]), "variant_ref"),
        (tensor("RESOURCE", [1]), "resource"),
        (tensor("VARIANT", [1]), "variant"),
        (tensor("UINT8", [4], tensor_content=b"123"), "reshape"),
        (tensor("UINT8", [2], tensor_content=b"123"), "reshape"),
        (tensor("INT32", [1], tensor_content=b"123"), "multiple of element size"),
        (tensor("STRING", [1], tensor_content=b"12345678"), "OBJECT"),
        (tensor("UINT8", [1], int_val=[1, 2]), ""),
        (tensor("STRING", [1], string_val=[b"a", b"b"]), "reshape"),
        (tensor("UINT8", [1], int_val=[256]), "out of bounds"),
        (tensor("UINT8", [2], int_val=[-1]), "out of bounds"),
        (tensor("BFLOAT16", [1], half_val=[65536]), "out of bounds"),
        (tensor("UINT8", [1] * 9, int_val=[1]), "9 dimensions; at most 8 are allowed"),
        (tensor("STRING", [1] * 33, string_val=[b"a"]), "33 dimensions; at most 8 are allowed"),
        (tensor("UINT8", [1] * 65, int_val=[1]), "65 dimensions; at most 8 are allowed"),
        # Of no size, but what computes with the other dimensions may overflow.
        (tensor("UINT8", [0, 2**62]), f"{2**62} bytes; this server allows {LIMIT}"),
        (tensor("UINT8", [0, 2**62, 2**62]), "bytes; this server allows"),
        (tensor("STRING", [2**62, 0]), "bytes; this server allows"),
    ],
)
def test_what_is_wrong_names_the_input(proto, words):
    with pytest.raises(RequestError) as raised:
        read(proto, "images")
    assert raised.value.code.name == "INVALID_ARGUMENT"
    assert raised.value.message.startswith("tensor parsing error: images (")
    assert words in raised.value.message


@pytest.mark.parametrize("dtype", types_pb2.DataType.keys())
def test_no_type_ends_in_another_error(dtype):
    proto = tensor(dtype.removeprefix("DT_"), [2])
    try:
        assert read(proto).shape == (2,)
    except RequestError as error:
        assert error.message.startswith("tensor parsing error: x (")


@pytest.mark.parametrize(
    ("proto", "size"),
    [
        (tensor("UINT8", [50_000, 224, 224, 3], int_val=[7]), 50_000 * 224 * 224 * 3),
        (tensor("INT64", [LIMIT // 8 + 1], int64_val=[7]), LIMIT + 8),
        (tensor("STRING", [2**40], string_val=[b"a"]), 65 * 2**40),  # its own and 64 bytes each
        # The last stands for all that are missing, and TensorFlow copies it as often.
        (tensor("STRING", [10], string_val=[b"", b"a" * 45]), 10 * 64 + 9 * 45),
        (tensor("UINT8", [2**62, 2**62]), 2**124),
    ],
)
def test_a_few_bytes_may_not_ask_for_much_memory(proto, size):
    assert proto.ByteSize() < 70
    with pytest.raises(RequestError) as raised:
        read(proto, "images")
    assert raised.value.message == (
        f"tensor parsing error: images ({size} bytes; this server allows {LIMIT})"
    )


@pytest.mark.parametrize("shape", [[], [1, 1], [1, 1, 1, 1]])
def test_the_rank_of_the_signature(shape):
    info = meta_graph_pb2.TensorInfo(dtype=types_pb2.DT_UINT8)
    info.tensor_shape.dim.add(size=-1)
    if len(shape) <= 1:
        assert tensors.read("x", tensor("UINT8", shape, int_val=[1]), info, LIMIT) == 1
        return
    with pytest.raises(RequestError, match=f"x \\({len(shape)} dimensions; at most 1 are allowed"):
        tensors.read("x", tensor("UINT8", shape, int_val=[1]), info, LIMIT)


@pytest.mark.parametrize("dtype", types_pb2.DataType.keys())
def test_another_type_than_the_signature(dtype):
    info = meta_graph_pb2.TensorInfo(dtype=types_pb2.DT_UINT8)
    if dtype == "DT_UINT8":
        return
    with pytest.raises(RequestError, match="Type mismatch: actual .* vs. expect uint8"):
        tensors.read("x", tensor(dtype.removeprefix("DT_"), [1]), info, LIMIT)


def test_as_much_memory_as_the_limit():
    assert read(tensor("INT64", [LIMIT // 8])).nbytes == LIMIT


ARRAYS = [
    np.arange(6, dtype=dtype).reshape(2, 3)
    for dtype in ("uint8", "int8", "uint16", "int32", "int64", "uint64", "float16", "f4", "f8")
] + [
    np.array([[True, False]]),
    np.arange(3).astype(ml_dtypes.bfloat16),
    np.array([0.5, -np.inf, np.nan], np.float32),
    np.array([2**63 - 1, -(2**63)]),
    np.array([[b"a\x00", b""], ["é".encode(), b"\xff"]], object),
    np.zeros((0, 3), np.uint8),
    np.zeros((0,), object),
    np.array(5, np.int32),
]


@pytest.mark.parametrize("as_content", [True, False])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_what_is_written_is_read_again(array, as_content):
    proto = tensors.write(array, as_content=as_content)
    for again in (tf.make_ndarray(proto), read(proto)):
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize(
    ("array", "field"),
    [
        (np.array([1, 2], np.uint8), "int_val"),
        (np.array([1, 2], np.int32), "int_val"),
        (np.array([1, 2], np.int64), "int64_val"),
        (np.array([1, 2], np.float32), "float_val"),
        (np.array([1, 2], np.float64), "double_val"),
    ],
)
def test_both_encodings(array, field):
    values = tensors.write(array, as_content=False)
    assert (list(getattr(values, field)), values.tensor_content) == ([1, 2], b"")
    content = tensors.write(array, as_content=True)
    assert (list(getattr(content, field)), content.tensor_content) == ([], array.tobytes())


@pytest.mark.parametrize("as_content", [True, False])
def test_strings_have_no_content(as_content):
    proto = tensors.write(np.array([b"a", b"b"], object), as_content=as_content)
    assert list(proto.string_val) == [b"a", b"b"]
