"""Predict requests and answers of the REST API: JSON to arrays and back."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tfhash.serving.server import tensors
from tfhash.serving.server.status import RequestError, invalid

# Bytes of memory for each of these characters of JSON: a list with places for its first values; an
# object, and each of its names; any further value, a number or a string, with its place.
_OBJECT_BYTES = {b"[": 120, b"{": 400, b":": 120, b",": 60}
_NUMBERS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
_64_BITS = -(2**63), 2**64 - 1


def parse(body: bytes, most: int) -> dict[str, Any]:
    """The JSON object of a request. RequestError for anything else.

    Also, before it is parsed, where its values may take over `most` bytes as objects.
    """
    size = _parsed_size(body)
    if size > most:
        raise RequestError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the JSON values may take {size} bytes of memory; this server allows {most}",
        )
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


def _parsed_size(body: bytes) -> int:
    """Bytes of the text and of its values, estimated from above."""
    # One character beyond the others makes all of its string up to four bytes wide.
    text = len(body) if body.isascii() else 4 * len(body)
    strings = text if b"\\u" not in body else 4 * len(body)
    return text + strings + sum(size * body.count(c) for c, size in _OBJECT_BYTES.items())


def inputs(
    content: Mapping[str, Any], signature: meta_graph_pb2.SignatureDef, max_bytes: int
) -> dict[str, np.ndarray]:
    """Arrays of the signature's types, from rows (`instances`) or columns (`inputs`).

    RequestError for another type or rank, and for an array over max_bytes.
    """
    names = sorted(signature.inputs)
    if "inputs" in content:
        columns = content["inputs"]
        if not _is_object(columns):
            columns = {_only(names, "inputs"): columns}
    else:
        columns = _columns(content["instances"], names)
    for name in columns.keys() - signature.inputs.keys():
        raise invalid(f"{name}: this signature takes {', '.join(names)}")
    return {
        name: _array(name, value, signature.inputs[name], max_bytes)
        for name, value in columns.items()
    }


def answer(by_rows: bool, chunks: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """The JSON of the outputs, which come in chunks of rows.

    `predictions`, a row each, for a request in rows; else `outputs`, a column each.
    """
    return (_predictions if by_rows else _outputs)(chunks)


def _predictions(chunks: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    text = []
    for outputs in chunks:
        columns = {name: _values(name, array) for name, array in outputs.items()}
        rows: Sequence = next(iter(columns.values()))
        if len(columns) > 1:
            by_row = zip(*columns.values(), strict=True)
            rows = [dict(zip(columns, row, strict=True)) for row in by_row]
        text.append(json.dumps(rows)[1:-1].encode())
    return b'{"predictions": [' + b", ".join(filter(None, text)) + b"]}"


def _outputs(chunks: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    columns: dict[str, list[bytes]] = {}
    for outputs in chunks:
        for name, array in outputs.items():
            columns.setdefault(name, []).append(json.dumps(_values(name, array)).encode())
    joined = {
        # A column of several chunks is a list of rows.
        name: text[0]
        if len(text) == 1
        else b"[" + b", ".join(filter(None, (one[1:-1] for one in text))) + b"]"
        for name, text in columns.items()
    }
    if len(joined) == 1:
        (value,) = joined.values()
    else:
        named = (json.dumps(name).encode() + b": " + text for name, text in joined.items())
        value = b"{" + b", ".join(named) + b"}"
    return b'{"outputs": ' + value + b"}"


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


def _array(name: str, value: Any, info: meta_graph_pb2.TensorInfo, max_bytes: int) -> np.ndarray:
    """Of the signature's type, which nothing but the type of each value decides about."""
    dtype = tf.dtypes.as_dtype(info.dtype)
    try:
        shape, flat = _flattened(value, tensors.most_dimensions(info))
        if dtype == tf.string:
            strings = [_bytes(one) for one in flat]
            tensors.check_size(shape, info, max_bytes, strings)
            array = np.empty(len(strings), object)
            array[:] = strings
            return array.reshape(shape)
        tensors.check_size(shape, info, max_bytes, None)
    except ValueError as error:
        raise invalid(f"tensor parsing error: {name} ({error})") from None
    made = np.dtype(dtype.as_numpy_dtype)
    if set(map(type, flat)) <= _NUMBERS.get("b" if dtype.is_bool else _kind(dtype), set()):
        least, greatest = (dtype.min, dtype.max) if dtype.is_integer else _64_BITS
        whole = [one for one in flat if type(one) is int] if dtype.is_floating else flat
        if not whole or dtype.is_bool or least <= min(whole) and max(whole) <= greatest:
            return np.array(flat, made).reshape(shape)
    raise invalid(f"{name}: a JSON value is not of expected type: {dtype.name}")


def _kind(dtype: tf.DType) -> str:
    return "i" if dtype.is_integer else "f" if dtype.is_floating else ""


def _flattened(value: Any, most: int) -> tuple[list[int], list]:
    """The shape of nested lists, and their values. ValueError where they are no array."""
    shape: list[int] = []
    level = [value]
    while (kinds := set(map(type, level))) == {list}:
        if len(shape) == most:
            raise ValueError(f"more than {most} dimensions, which is what is allowed")
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise ValueError("its lists are not of one length")
        shape.append(lengths.pop())
        level = list(itertools.chain.from_iterable(level))
    if list in kinds:
        raise ValueError("its lists are not of one depth")
    return shape, level


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and isinstance(value.get("b64"), str):
        return _from_base64(value["b64"])
    raise ValueError('expected a string or {"b64": ...}')


def _from_base64(text: str) -> bytes:
    """As TF Serving reads it: no white space counts; padding, = or ., may be left out."""
    digits = "".join(text.split())
    bare = digits.rstrip("=.")
    padding = -len(bare) % 4
    if len(digits) - len(bare) not in (0, padding):
        raise ValueError("Unable to base64 decode: incorrect padding")
    try:
        return base64.b64decode(bare + "=" * padding, validate=True)
    except ValueError as error:
        raise ValueError(f"Unable to base64 decode: {error}") from None
