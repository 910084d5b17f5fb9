"""Predict requests and answers of the REST API: JSON to arrays and back."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tfhash.serving.server.status import invalid

# A value is two bytes of JSON and up to some 70 as a Python object: this many take 300 MB.
MOST_VALUES = 4_000_000


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a request. RequestError for anything else, and over MOST_VALUES values."""
    values = sum(map(body.count, (b",", b"[", b"{", b":")))  # at least as many as there are
    if values > MOST_VALUES:
        raise invalid(f"some {values} JSON values; this server allows {MOST_VALUES}")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(content, dict):
        raise invalid(f"expected a JSON object, received {type(content).__name__}")
    if not isinstance(content.get("signature_name", ""), str):
        raise invalid("'signature_name' key must be a string value.")
    if ("instances" in content) == ("inputs" in content):
        raise invalid("Missing 'inputs' or 'instances' key: exactly one of the two is needed")
    return content


def inputs(
    content: Mapping[str, Any], signature: meta_graph_pb2.SignatureDef
) -> dict[str, np.ndarray]:
    """Arrays of the signature's types, from rows (`instances`) or columns (`inputs`)."""
    names = sorted(signature.inputs)
    if "inputs" in content:
        columns = content["inputs"]
        if not _is_object(columns):
            columns = {_only(names, "inputs"): columns}
    else:
        columns = _columns(content["instances"], names)
    return {
        # A name that the signature does not have is refused later, with the others named.
        name: _array(name, value, signature.inputs[name].dtype if name in names else tf.string)
        for name, value in columns.items()
    }


def answer(content: Mapping[str, Any], outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`predictions`, a row each, for a request in rows; else `outputs`, a column each."""
    columns = {name: _values(name, array) for name, array in outputs.items()}
    one = next(iter(columns.values())) if len(columns) == 1 else None
    if "inputs" in content:
        return {"outputs": columns if one is None else one}
    if one is None:
        one = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"predictions": one}


def _values(name: str, array: np.ndarray) -> Any:
    """JSON values; of strings as TF Serving writes them, {"b64": ...} where a name says bytes."""
    if array.dtype != object:
        return array.tolist()

    def text(value: bytes) -> Any:
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode(errors="replace")

    return np.frompyfunc(text, 1, 1)(array).tolist()


def _columns(rows: Any, names: list[str]) -> dict[str, list]:
    if not isinstance(rows, list) or not rows:
        raise invalid("'instances' must be a list that is not empty")
    if not any(_is_object(row) for row in rows):
        return {_only(names, "instances"): rows}
    for position, row in enumerate(rows):
        if not _is_object(row) or set(row) != set(names):
            raise invalid(
                f"Failed to process element: {position} of 'instances' list. Its keys must be "
                f"equal to: {','.join(names)}"
            )
    return {name: [row[name] for row in rows] for name in names}


def _only(names: list[str], key: str) -> str:
    if len(names) != 1:
        raise invalid(f"{key}: this signature takes several inputs: {', '.join(names)}")
    return names[0]


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _array(name: str, value: Any, datatype: int) -> np.ndarray:
    dtype = tf.dtypes.as_dtype(datatype)
    try:
        if dtype == tf.string:
            array = np.array(_bytes(value), object)
            if any(isinstance(one, list) for one in array.ravel()):
                raise ValueError("its lists are not of one length, or too deep")
            return array
        array = np.array(value)
    except (RecursionError, TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {name} ({error})") from None
    if not array.size:
        array = array.astype(dtype.as_numpy_dtype)
    kinds = "b" if dtype.is_bool else "iu" if dtype.is_integer else "iuf"
    if array.dtype.kind not in kinds or (
        dtype.is_integer and array.size and not _within(array, dtype)
    ):
        raise invalid(f"{name}: a JSON value is not of expected type: {dtype.name}")
    return array.astype(dtype.as_numpy_dtype)


def _within(array: np.ndarray, dtype: tf.DType) -> bool:
    return bool(dtype.min <= array.min() and array.max() <= dtype.max)


def _bytes(value: Any) -> Any:
    """Strings, and `{"b64": ...}` objects, at any depth of lists, as bytes."""
    if isinstance(value, list):
        return [_bytes(one) for one in value]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and isinstance(value.get("b64"), str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"Unable to base64 decode: {error}") from None
    raise ValueError('expected a string or {"b64": ...}')
