"""Batches in parts of which each fits one request, as protocol messages."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from tfhash.serving._channel import MAX_MESSAGE_BYTES

Batch = np.ndarray | Sequence[bytes]

# Bytes of images in one request. A server may allow less than this side of gRPC does.
_MAX_GROUP_BYTES = MAX_MESSAGE_BYTES // 2
_Item = TypeVar("_Item")


@dataclasses.dataclass
class Part:
    """What of a batch goes into one request.

    rows: 0 for an empty batch, which is not to be sent: TF Serving may pad the merged requests with
    the first row of one, and breaks off where that has none. cut_off: how often its answer broke
    off after it had begun.
    """

    request: predict_pb2.PredictRequest
    rows: int
    ends_batch: bool
    cut_off: int = 0

    @property
    def signature(self) -> str:
        return self.request.model_spec.signature_name


def groups(
    items: Iterable[_Item], size: Callable[[_Item], int], most: int
) -> Iterator[list[_Item]]:
    """Items in groups that each fit one request: at most `most`, and not too many bytes.

    size: the bytes of an item. A single item over the limit on bytes is a group of its own.
    """
    group: list[_Item] = []
    total = 0
    for item in items:
        if group and (len(group) == most or total + size(item) > _MAX_GROUP_BYTES):
            yield group
            group, total = [], 0
        group.append(item)
        total += size(item)
    if group:
        yield group


def of_images(request: predict_pb2.PredictRequest, images: np.ndarray, most: int) -> Iterator[Part]:
    """The parts of uint8 [n, H, W, 3], each of `most` images or fewer: `request` with these."""
    rows = max(1, min(most, _MAX_GROUP_BYTES // math.prod(images.shape[1:])))
    slices = (images[start : start + rows] for start in range(0, len(images), rows))
    return _parts(request, "images", len(images), slices, image_tensor)


def of_files(
    request: predict_pb2.PredictRequest, image_bytes: Sequence[bytes], most: int
) -> Iterator[Part]:
    """The same of the contents of files."""
    grouped = groups(image_bytes, len, most)
    return _parts(request, "image_bytes", len(image_bytes), grouped, _string_tensor)


def image_tensor(images: np.ndarray) -> tensor_pb2.TensorProto:
    shape = tf.TensorShape(images.shape).as_proto()
    return tensor_pb2.TensorProto(
        dtype=tf.uint8.as_datatype_enum, tensor_shape=shape, tensor_content=images.tobytes()
    )


def _parts(
    request: predict_pb2.PredictRequest,
    name: str,
    rows: int,
    groups: Iterator[Batch],
    tensor: Callable[[Any], tensor_pb2.TensorProto],  # of a group
) -> Iterator[Part]:
    if not rows:
        yield Part(request, rows=0, ends_batch=True)
    for group in groups:
        rows -= len(group)
        part = predict_pb2.PredictRequest(
            model_spec=request.model_spec,
            output_filter=request.output_filter,
            inputs={name: tensor(group)},
        )
        yield Part(part, len(group), ends_batch=not rows)


def _string_tensor(items: Sequence[bytes]) -> tensor_pb2.TensorProto:
    shape = tf.TensorShape([len(items)]).as_proto()
    return tensor_pb2.TensorProto(
        dtype=tf.string.as_datatype_enum, tensor_shape=shape, string_val=items
    )
