"""TensorProtos to arrays, with a limit on the memory that one may ask for, and back."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tfhash.serving.server.status import invalid

_VALUE_FIELDS = {
    tf.bool: "bool_val",
    tf.uint8: "int_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.string: "string_val",
}


def read(name: str, tensor: tensor_pb2.TensorProto, max_bytes: int) -> np.ndarray:
    """The array of an input; of strings, one of bytes objects.

    A TensorProto of a few bytes may stand for gigabytes, one value repeated: RequestError where the
    array would take more than max_bytes, or where shape, type and values do not agree.
    """
    dimensions = [dimension.size for dimension in tensor.tensor_shape.dim]
    try:
        dtype = tf.dtypes.as_dtype(tensor.dtype)
        if dtype in (tf.resource, tf.variant):
            raise TypeError(f"a {dtype.name} has no values")
        if tensor.tensor_shape.unknown_rank or any(size < 0 for size in dimensions):
            raise ValueError("its shape is not known")
        size = math.prod(dimensions) * np.dtype(dtype.as_numpy_dtype).itemsize
        if size > max_bytes:
            raise ValueError(f"{size} bytes; this server allows {max_bytes}")
        return tf.make_ndarray(tensor)
    except (OverflowError, TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {name} ({error})") from None


def write(array: np.ndarray, *, as_content: bool) -> tensor_pb2.TensorProto:
    """The TensorProto of an output: its bytes as tensor_content, or its values in a *_val field."""
    dtype = tf.dtypes.as_dtype(array.dtype)
    field = _VALUE_FIELDS.get(dtype)
    if field is None or as_content and dtype != tf.string:
        return tf.make_tensor_proto(array)
    tensor = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    getattr(tensor, field).extend(array.ravel().tolist())
    return tensor
