"""The encoder as a TensorFlow Lite file, for phones and small machines.

Signature `encode_images`: images uint8 [N, S, S, 3], RGB, S the encoder's own size -> code uint8
[N, ceil(k/8)], bits uint8 [N, k], embedding float32 [N, k], as in the SavedModel. Built-in
operations only, so every interpreter runs it. A signature runner takes any N from 1; an empty
batch, or images of another size, it may refuse (RuntimeError) or answer with anything.

The description of the codes, tfhash.json, is in the file itself, where TensorFlow Lite keeps
associated files: the file is a ZIP archive as well (`unzip -p encoder.tflite tfhash.json`).
"""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.export import portable

PRECISIONS = ("float32", "float16", "int8")


def save(
    encoder: keras.Model,
    *,
    code_length: int,
    image_size: int,
    metadata: Mapping[str, Any],
    precision: str,
    path: Path | str,
    calibration: np.ndarray | None = None,
) -> Path:
    """Writes an encoder as a TensorFlow Lite file, atomically; returns its path.

    encoder: float32 [n, image_size, image_size, 3] in [0, 255] to [n, code_length] in [0, 1].
    metadata: what the run adds to tfhash.json, JSON values. precision: of the stored weights,
    float32 or float16 (half the size, other roundings), and the file computes in float32; or int8
    (a quarter), and it computes in 8-bit numbers wherever TensorFlow Lite can.
    calibration: uint8 [n >= 1, image_size, image_size, 3], for int8: images that show how large the
    numbers between the layers become.
    Raises UserError for another precision or an operation that TensorFlow Lite lacks, ValueError
    for a wrong code_length, or int8 without calibration; then nothing is written.
    """
    if precision not in PRECISIONS:
        raise UserError(
            f"--tflite_precision: {precision!r} is not allowed; {' or '.join(PRECISIONS)}"
        )
    if precision == "int8" and not (calibration is not None and len(calibration)):
        raise ValueError("calibration: int8 needs images")
    description = portable.describe(code_length, image_size, metadata, weights=precision)
    content = io.BytesIO(_convert(encoder, code_length, image_size, precision, calibration))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(zipfile.ZipInfo(portable.METADATA_FILE), portable.to_json(description))
    return portable.write(path, content.getvalue())


def codes(path: Path | str, images: np.ndarray) -> np.ndarray:
    """The codes that TensorFlow's interpreter gives: packed uint8 [n, ceil(k / 8)].

    images: uint8 [n >= 1, S, S, 3]. Raises ValueError for other images.
    """
    with portable.quiet():
        interpreter = tf.lite.Interpreter(model_path=str(path))
        encode = interpreter.get_signature_runner(portable.SIGNATURE)
        _, *shape = encode.get_input_details()["images"]["shape_signature"]
        if images.dtype != np.uint8 or [*images.shape[1:]] != shape or not len(images):
            raise ValueError(
                f"images: expected uint8 [n >= 1, {', '.join(map(str, shape))}], "
                f"received {images.dtype} {list(images.shape)}"
            )
        return portable.in_batches(lambda batch: encode(images=batch)["code"], images)


def _convert(
    encoder: keras.Model,
    code_length: int,
    image_size: int,
    precision: str,
    calibration: np.ndarray | None,
) -> bytes:
    with tempfile.TemporaryDirectory() as folder, portable.quiet():
        # Through a SavedModel, because only that way does the signature keep its name.
        archive = keras.export.ExportArchive()
        archive.track(encoder)
        archive.add_endpoint(portable.SIGNATURE, portable.trace(encoder, code_length, image_size))
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[portable.SIGNATURE]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        if calibration is not None and precision == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                (portable.SIGNATURE, {"images": calibration[n : n + 1]})
                for n in range(len(calibration))
            )
        try:
            return converter.convert()
        except Exception as error:  # the converter's own class is not public
            lacking = re.findall(r"^(?:TF Select|Custom) ops: (.+)$", str(error), re.MULTILINE)
            if not lacking:
                raise
            raise UserError(
                f"--format=tflite: TensorFlow Lite has no {', '.join(lacking)}, which the encoder "
                "uses; export it as saved_model"
            ) from error
