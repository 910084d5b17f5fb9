"""What a service of codes answers: codes, and what it tells about its model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from tfhash.serving._channel import MAX_MESSAGE_BYTES

_PREDICT = tf.compat.v1.saved_model.signature_constants.PREDICT_METHOD_NAME
FINGERPRINT = "fingerprint"  # the output of that name
_LONGEST_FINGERPRINT = 127
_DTYPES = {"code": tf.uint8, "bits": tf.uint8, "embedding": tf.float32, "valid": tf.bool}


@dataclass(frozen=True)
class Codes:
    """The codes of n images, in the order in which the images were given.

    code: uint8 [n, ceil(k / 8)], big-endian as numpy.packbits. valid: bool [n], False where an
    image could not be read; its code, bits and embedding are 0. version: of the model that
    answered. bits: uint8 [n, k] and embedding: float32 [n, k], None unless they were asked for.
    fingerprint: of the model that answered, as in its tfhash.json; "" for no images, and where the
    export is of before there were fingerprints.
    """

    code: np.ndarray
    valid: np.ndarray
    version: int
    bits: np.ndarray | None = None
    embedding: np.ndarray | None = None
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.code)


@dataclass(frozen=True)
class TensorInfo:
    """An input or output. dtype: such as "uint8" or "string".

    shape: None where the rank is open, and in it None where a size is.
    """

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a signature, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True)
class Metadata:
    """What a server tells about a model: name, version, and the signatures that encode, by name.

    fingerprint: of its weights and graph; "" where the export is of before there were any.
    """

    model: str
    version: int
    signatures: Mapping[str, Signature]
    fingerprint: str = ""

    @property
    def code_length(self) -> int | None:
        """k, the number of bits of a code; None where no signature tells."""
        for signature in self.signatures.values():
            bits = signature.outputs.get("bits")
            if bits and bits.shape:
                return bits.shape[-1]
        return None


class MixedError(ValueError):
    """The rows of one answer are of several models."""


def read_codes(response: predict_pb2.PredictResponse, outputs: Collection[str], rows: int) -> Codes:
    """The codes in an answer.

    ValueError where it is not what was asked for, MixedError where it is of several models.
    """
    arrays = {name: _array(response, name, rows) for name in outputs if name != FINGERPRINT}
    arrays.setdefault("valid", np.ones(rows, bool))
    _check_widths(arrays)
    digits = read_fingerprint(response, rows) if FINGERPRINT in outputs else ""
    return Codes(version=response.model_spec.version.value, fingerprint=digits, **arrays)


def read_fingerprint(response: predict_pb2.PredictResponse, rows: int) -> str:
    """What all rows of an answer, one or more, say; errors as of read_codes."""
    proto = _output(response, FINGERPRINT)
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.dtype != tf.string or shape != [rows]:
        raise ValueError(
            f"output {FINGERPRINT!r}: expected string [{rows}], "
            f"received {_dtype_name(proto.dtype)} {shape}"
        )
    found = sorted(set(_short_strings(proto, rows)))
    if not all(value.isalnum() and len(value) <= _LONGEST_FINGERPRINT for value in found):
        raise ValueError(f"output {FINGERPRINT!r}: expected digits, received {found[0][:40]!r}")
    if len(found) > 1:
        raise MixedError(f"{len(found)} fingerprints in one answer: its rows are of several models")
    return found[0].decode("ascii")


def join(parts: Sequence[Codes]) -> Codes:
    """The codes of a batch from those of its parts: one or more, all of the same model."""
    if len(parts) == 1:
        return parts[0]
    names = [name for name in _DTYPES if getattr(parts[0], name) is not None]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Codes(version=parts[0].version, fingerprint=parts[0].fingerprint, **arrays)


def no_codes(metadata: Metadata, outputs: Collection[str]) -> Codes:
    """The codes of no images, of the right width where the metadata tells it, else 0 wide."""
    code_length = metadata.code_length or 0
    shapes = {"code": (0, -(-code_length // 8)), "valid": (0,)}
    arrays = {
        name: np.zeros(shapes.get(name, (0, code_length)), _DTYPES[name].as_numpy_dtype)
        for name in {*outputs, "valid"} - {FINGERPRINT}
    }
    return Codes(version=metadata.version, fingerprint="", **arrays)


def read_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> Metadata:
    """What GetModelMetadata answered for signature_def; ValueError where that cannot be read."""
    found = get_model_metadata_pb2.SignatureDefMap()
    try:
        if not response.metadata["signature_def"].Unpack(found):
            raise ValueError("the answer holds no signature_def")
        signatures = {
            name: Signature(
                inputs={key: _tensor_info(info) for key, info in signature.inputs.items()},
                outputs={key: _tensor_info(info) for key, info in signature.outputs.items()},
            )
            for name, signature in found.signature_def.items()
            if signature.method_name == _PREDICT  # TensorFlow lists an initialisation here too
        }
    except (DecodeError, TypeError, OverflowError) as error:
        raise ValueError(f"its signature_def cannot be read ({error})") from None
    return Metadata(response.model_spec.name, response.model_spec.version.value, signatures)


def _output(response: predict_pb2.PredictResponse, name: str) -> tensor_pb2.TensorProto:
    if name not in response.outputs:
        raise ValueError(f"the answer holds no output {name!r}")
    return response.outputs[name]


def _short_strings(proto: tensor_pb2.TensorProto, rows: int) -> list[bytes]:
    """The values of a tensor of strings, of which the last stands for those that are left out.

    TensorFlow's own parser would start a device here, and take the memory of a GPU. In
    tensor_content stand all lengths, each in one byte where it is below 128, and then all bytes.
    """
    content, values = proto.tensor_content, list(proto.string_val)
    if content:
        lengths = content[:rows]
        ends = [rows, *(rows + end for end in itertools.accumulate(lengths))]
        if max(lengths) > _LONGEST_FINGERPRINT or ends[-1] != len(content):
            raise ValueError("tensor_content: its lengths are damaged")
        values = [content[start:end] for start, end in itertools.pairwise(ends)]
    if not 1 <= len(values) <= rows:
        raise ValueError(f"{len(values)} strings for {rows} rows")
    return values


def _array(response: predict_pb2.PredictResponse, name: str, rows: int) -> np.ndarray:
    proto = _output(response, name)
    shape = [dim.size for dim in proto.tensor_shape.dim]
    dtype, rank = _DTYPES[name], 1 if name == "valid" else 2
    if proto.dtype != dtype or len(shape) != rank or shape[0] != rows or min(shape) < 0:
        raise ValueError(
            f"output {name!r}: expected {dtype.name} of rank {rank} with {rows} rows, "
            f"received {_dtype_name(proto.dtype)} {shape}"
        )
    # One value may stand for a whole shape, so the size of the message bounds nothing.
    if math.prod(shape) * dtype.size > MAX_MESSAGE_BYTES:
        raise ValueError(f"output {name!r}: {shape} takes over {MAX_MESSAGE_BYTES} bytes")
    try:
        return tf.make_ndarray(proto)  # from tensor_content or the *_val fields
    except (ValueError, OverflowError) as error:  # such as an int_val of 300 for a uint8
        raise ValueError(f"output {name!r}: {error}") from None


def _check_widths(arrays: Mapping[str, np.ndarray]) -> None:
    """What stands beside each other in an answer speaks of one number of bits."""
    widths = {name: array.shape[1] for name, array in arrays.items() if name != "valid"}
    lengths = {widths[name] for name in ("bits", "embedding") if name in widths}
    if len(lengths) > 1 or any(-(-length // 8) != widths["code"] for length in lengths):
        of = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ValueError(f"widths that do not belong together: {of}")


def _dtype_name(number: int) -> str:
    try:
        return tf.as_dtype(number).name
    except TypeError:
        return f"dtype {number}"


def _tensor_info(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    shape = tf.TensorShape(info.tensor_shape)
    return TensorInfo(
        tf.as_dtype(info.dtype).name, None if shape.rank is None else tuple(shape.as_list())
    )
