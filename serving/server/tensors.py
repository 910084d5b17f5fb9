"""TensorProtos to arrays, checked against the signature before anything is made, and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from tfhash.serving.server.status import invalid

# Where the signature leaves the rank open. NumPy takes 64, and TensorFlow ends the process at some.
MOST_DIMENSIONS = 8
# A string takes as much besides its bytes: the bytes object, its place in the array, and again in
# the tensor.
_STRING_BYTES = 64
_PART = 2**16  # values that are Python objects at a time
_VALUE_FIELDS = {
    tf.bool: "bool_val",
    tf.uint8: "int_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.string: "string_val",
}


def read(
    name: str, tensor: tensor_pb2.TensorProto, info: meta_graph_pb2.TensorInfo, max_bytes: int
) -> np.ndarray:
    """The array of an input; of strings, one of bytes objects.

    info: of the input, in the signature. A TensorProto of a few bytes may stand for gigabytes, one
    value repeated: RequestError where the array would take more than max_bytes, where its type or
    rank is not the signature's, or where shape and values do not agree.
    """
    if tensor.dtype != info.dtype:
        raise invalid(
            f"Type mismatch: actual {_type_name(tensor.dtype)} vs. expect {_type_name(info.dtype)}"
        )
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    try:
        dtype = tf.dtypes.as_dtype(info.dtype)
        if dtype.base_dtype in (tf.resource, tf.variant) or dtype != dtype.base_dtype:
            raise TypeError(f"a {dtype.name} has no values")
        if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
            raise ValueError("its shape is not known")
        strings = tensor.string_val if info.dtype == types_pb2.DT_STRING else None
        check_size(shape, info, max_bytes, strings)
        return tf.make_ndarray(tensor)
    except (OverflowError, TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {name} ({error})") from None


def most_dimensions(info: meta_graph_pb2.TensorInfo) -> int:
    """The rank of the signature, MOST_DIMENSIONS where that leaves it open."""
    known = info.HasField("tensor_shape") and not info.tensor_shape.unknown_rank
    return len(info.tensor_shape.dim) if known else MOST_DIMENSIONS


def check_size(
    shape: Sequence[int],
    info: meta_graph_pb2.TensorInfo,
    max_bytes: int,
    strings: Sequence[bytes] | None,
) -> None:
    """ValueError for another rank than the signature's, or over max_bytes.

    strings: the values of a string tensor, of which the last stands for all that are missing.
    """
    most = most_dimensions(info)
    if len(shape) > most:
        raise ValueError(f"{len(shape)} dimensions; at most {most} are allowed")
    # An empty dimension does not make the others small: what computes with them may overflow.
    count = math.prod(max(size, 1) for size in shape)
    if strings is None:
        size = count * tf.dtypes.as_dtype(info.dtype).size
    elif len(strings) > count:
        raise ValueError(f"{len(strings)} strings for {count} places; cannot reshape")
    else:
        repeated = len(strings[-1]) * (count - len(strings)) if strings else 0
        size = _STRING_BYTES * count + sum(map(len, strings)) + repeated
    if size > max_bytes:
        raise ValueError(f"{size} bytes; this server allows {max_bytes}")


def memory(array: np.ndarray) -> int:
    """Bytes that an input takes: the array, and TensorFlow's copy of it."""
    if array.dtype == object:
        return 2 * (_STRING_BYTES * array.size + sum(map(len, array.flat)))
    return 2 * array.nbytes


def write(array: np.ndarray, *, as_content: bool) -> tensor_pb2.TensorProto:
    """The TensorProto of an output: its bytes as tensor_content, or its values in a *_val field."""
    dtype = tf.dtypes.as_dtype(array.dtype)
    field = _VALUE_FIELDS.get(dtype)
    if field is None or as_content and dtype != tf.string:
        return tf.make_tensor_proto(array)
    tensor = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    values, flat = getattr(tensor, field), array.ravel()
    for start in itertools.count(0, _PART):
        if start >= array.size:
            return tensor
        values.extend(flat[start : start + _PART].tolist())


def _type_name(datatype: int) -> str:
    """As TensorFlow writes it: float, uint8, string."""
    try:
        return types_pb2.DataType.Name(datatype).removeprefix("DT_").lower()
    except ValueError:
        return f"type {datatype}"
