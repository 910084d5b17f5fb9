"""What the formats for other runtimes share: the encoder as one float32 graph, its description,
and how far its codes are from those of the SavedModel."""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfhash
from tfhash import paths
from tfhash.export import aside, fingerprint, signatures

SIGNATURE = "encode_images"
METADATA_FILE = "tfhash.json"  # as in the SavedModel's assets.extra
_BATCH = 32  # images at once: it bounds the memory


@dataclass(frozen=True)
class Difference:
    """How many bits of the codes of one set of images differ from those of the SavedModel."""

    bits: int
    total: int
    images: int

    def __str__(self) -> str:
        return f"{self.bits:,} of {self.total:,} bits differ, on {self.images:,} images"


def difference(codes: np.ndarray, images: np.ndarray, saved_model: Path | str) -> Difference:
    """Compares codes of another format with those that a SavedModel gives the same images.

    codes: packed uint8 [n, ceil(k / 8)], as `tflite.codes` and `onnx.codes` answer. images: uint8
    [n >= 1, S, S, 3]. saved_model: a published version, `export_dir/N`; computes on the CPU here.
    Raises ValueError where the SavedModel answers codes of another shape.
    """
    with tf.device("/CPU:0"), paths.literal(saved_model) as folder:
        loaded = tf.saved_model.load(os.fspath(folder))
        encode = loaded.signatures[SIGNATURE]
        code_length = encode.structured_outputs["bits"].shape[-1]
        expected = in_batches(lambda batch: encode(images=tf.constant(batch))["code"], images)
    if codes.shape != expected.shape:
        raise ValueError(f"codes: expected {list(expected.shape)}, received {list(codes.shape)}")
    bits = int(np.bitwise_count(codes ^ expected).sum())
    return Difference(bits, len(images) * code_length, len(images))


def trace(
    encoder: keras.Model, code_length: int, image_size: int
) -> tf.types.experimental.PolymorphicFunction:
    """The encoder as a graph that other runtimes can take over, traced for one input signature.

    encoder: float32 [n, image_size, image_size, 3] in [0, 255] to [n, code_length] in [0, 1].
    The function takes `images` uint8 [n, image_size, image_size, 3] and answers as the SavedModel's
    `encode_images`: code, bits, embedding. It computes in float32 whatever the encoder's precision,
    since the other runtimes have no bfloat16; codes of a mixed_bfloat16 encoder change by that.
    Raises ValueError for a wrong code_length.
    """

    def encode_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        embedding = encoder(tf.cast(images, tf.float32), training=False)
        if embedding.shape[1:] != [code_length]:
            raise ValueError(
                f"code_length: received {code_length}, but the encoder answers "
                f"{embedding.shape.as_list()}"
            )
        bits = tf.cast(embedding > signatures.THRESHOLD, tf.int32)
        return {
            "code": tf.cast(_packed(bits), tf.uint8),
            "bits": tf.cast(bits, tf.uint8),
            "embedding": embedding,
        }

    images = tf.TensorSpec([None, image_size, image_size, 3], tf.uint8, name="images")
    function = tf.function(encode_images, input_signature=[images], autograph=False)
    with _float32(encoder):
        function.get_concrete_function()
    return function


def describe(
    code_length: int, image_size: int, metadata: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """What METADATA_FILE says: the run's metadata, what a reader of codes must know, and `more`."""
    outputs = signatures.describe(code_length)[SIGNATURE]["outputs"]
    del outputs[fingerprint.OUTPUT]  # a file cannot be swapped behind its reader's back
    signature = {
        "inputs": {"images": f"uint8 [N, {image_size}, {image_size}, 3]"},
        "outputs": outputs,
    }
    return dict(metadata) | {
        "code_length": code_length,
        "bit_order": "big",
        "threshold": signatures.THRESHOLD,
        "image_size": image_size,
        "signatures": {SIGNATURE: signature},
        "versions": {
            "tfhash": tfhash.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        **more,
    }


def to_json(description: Mapping[str, Any]) -> str:
    return json.dumps(description, indent=1) + "\n"


def write(path: Path | str, content: bytes) -> Path:
    """Writes a file at once: who reads `path` sees all of it or what was there before."""
    path = Path(path).expanduser()
    with aside.folder(path.parent, path.name) as temporary:
        (temporary / path.name).write_bytes(content)
        os.replace(temporary / path.name, path)
    return path


def in_batches(encode: Callable[[np.ndarray], Any], images: np.ndarray) -> np.ndarray:
    """`encode` of all images, at least one, a part at a time."""
    starts = range(0, len(images), _BATCH)
    return np.concatenate([encode(images[start : start + _BATCH]) for start in starts])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops stderr and warnings. Converters tell pages there, from C++, whatever the log level;
    what fails is in their exceptions too."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)


def _packed(bits: tf.Tensor) -> tf.Tensor:
    """numpy.packbits(bits, axis=-1) of int32 [n, k], as int32 [n, ceil(k / 8)].

    Of whole numbers, since what is float becomes 8-bit numbers of TensorFlow Lite, and is rounded;
    and of operations that every runtime has. (Over an empty batch ONNX Runtime sums to a wrong
    shape.)
    """
    padded = tf.pad(bits, [[0, 0], [0, -bits.shape[1] % 8]])
    parts = [padded[:, place::8] * (128 >> place) for place in range(8)]
    return functools.reduce(operator.add, parts)


@contextlib.contextmanager
def _float32(encoder: keras.Model) -> Iterator[None]:
    """Every layer of the encoder computes in float32. The variables are float32 in any case."""
    layers = [
        part
        for part in tf.train.TrackableView(encoder).descendants()
        if isinstance(part, keras.layers.Layer)
    ]
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy
