"""What a service of codes answers: codes, and what it tells about its model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from tfhash.serving._channel import MAX_MESSAGE_BYTES

_PREDICT = tf.compat.v1.saved_model.signature_constants.PREDICT_METHOD_NAME
_DTYPES = {"code": tf.uint8, "bits": tf.uint8, "embedding": tf.float32, "valid": tf.bool}


@dataclass(frozen=True)
class Codes:
    """The codes of n images, in the order in which the images were given.

    code: uint8 [n, ceil(k / 8)], big-endian as numpy.packbits. valid: bool [n], False where an
    image could not be read; its code, bits and embedding are 0. version: of the model that
    answered. bits: uint8 [n, k] and embedding: float32 [n, k], None unless they were asked for.
    """

    code: np.ndarray
    valid: np.ndarray
    version: int
    bits: np.ndarray | None = None
    embedding: np.ndarray | None = None

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
    """What a server tells about a model: name, version, and the signatures that encode, by name."""

    model: str
    version: int
    signatures: Mapping[str, Signature]

    @property
    def code_length(self) -> int | None:
        """k, the number of bits of a code; None where no signature tells."""
        for signature in self.signatures.values():
            bits = signature.outputs.get("bits")
            if bits and bits.shape:
                return bits.shape[-1]
        return None


def read_codes(response: predict_pb2.PredictResponse, outputs: Collection[str], rows: int) -> Codes:
    """The codes in an answer; ValueError where it is not what was asked for."""
    arrays = {name: _array(response, name, rows) for name in outputs}
    arrays.setdefault("valid", np.ones(rows, bool))
    return Codes(version=response.model_spec.version.value, **arrays)


def join(parts: Sequence[Codes]) -> Codes:
    """The codes of a batch from those of its parts: one or more, all of the same version."""
    if len(parts) == 1:
        return parts[0]
    names = [name for name in _DTYPES if getattr(parts[0], name) is not None]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Codes(version=parts[0].version, **arrays)


def no_codes(metadata: Metadata, outputs: Collection[str]) -> Codes:
    """The codes of no images, of the right width where the metadata tells it, else 0 wide."""
    code_length = metadata.code_length or 0
    shapes = {"code": (0, -(-code_length // 8)), "valid": (0,)}
    arrays = {
        name: np.zeros(shapes.get(name, (0, code_length)), _DTYPES[name].as_numpy_dtype)
        for name in {*outputs, "valid"}
    }
    return Codes(version=metadata.version, **arrays)


def read_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> Metadata:
    """What GetModelMetadata answered for signature_def; ValueError where that is missing."""
    found = get_model_metadata_pb2.SignatureDefMap()
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
    return Metadata(response.model_spec.name, response.model_spec.version.value, signatures)


def _array(response: predict_pb2.PredictResponse, name: str, rows: int) -> np.ndarray:
    if name not in response.outputs:
        raise ValueError(f"the answer holds no output {name!r}")
    proto = response.outputs[name]
    shape = [dim.size for dim in proto.tensor_shape.dim]
    dtype, rank = _DTYPES[name], 1 if name == "valid" else 2
    if proto.dtype != dtype or len(shape) != rank or shape[0] != rows:
        raise ValueError(
            f"output {name!r}: expected {dtype.name} of rank {rank} with {rows} rows, "
            f"received {tf.as_dtype(proto.dtype).name} {shape}"
        )
    # One value may stand for a whole shape, so the size of the message bounds nothing.
    if math.prod(shape) * dtype.size > MAX_MESSAGE_BYTES:
        raise ValueError(f"output {name!r}: {shape} takes over {MAX_MESSAGE_BYTES} bytes")
    return tf.make_ndarray(proto)  # from tensor_content or the *_val fields


def _tensor_info(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    shape = tf.TensorShape(info.tensor_shape)
    return TensorInfo(
        tf.as_dtype(info.dtype).name, None if shape.rank is None else tuple(shape.as_list())
    )
