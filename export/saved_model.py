"""The SavedModel: written aside, verified, then published as the next version in one rename."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfhash
from tfhash.data import images as image_ops
from tfhash.export import signatures, verify

METADATA_FILE = Path("assets.extra", "tfhash.json")


def save(
    encoder: keras.Model,
    *,
    code_length: int,
    image_size: int,
    metadata: Mapping[str, Any],
    images: np.ndarray,
    export_dir: Path | str,
) -> Path:
    """Publishes an encoder as `export_dir/N`, N the next integer, once its codes are verified.

    encoder: float32 [n, image_size, image_size, 3] in [0, 255] to [n, code_length] in [0, 1].
    metadata: what the run adds to `assets.extra/tfhash.json` (method, dataset, protocol, ...),
    JSON values. images: uint8 [n >= 1, image_size, image_size, 3], real images to verify with.
    Returns the published folder. Raises ValueError for other images or a wrong code_length, and
    `verify.VerificationError` where a loader answers other codes than Keras; then, as after any
    error, nothing is published.
    """
    _check_images(images, image_size)
    export_dir = Path(export_dir)
    export_dir.mkdir(parents=True, exist_ok=True)
    version = str(next_version(export_dir))
    # TF Serving loads any folder whose name is an integer, however complete; no other name.
    temporary = export_dir / f".{version}.tmp-{secrets.token_hex(4)}"
    try:
        _write(encoder, code_length, image_size, metadata, temporary)
        verify.verify(temporary, encoder, images)
        return temporary.rename(export_dir / version)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def next_version(export_dir: Path) -> int:
    """One more than the highest integer among the names in export_dir, 1 where there is none."""
    names = (path.name for path in export_dir.iterdir())
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def _check_images(images: np.ndarray, image_size: int) -> None:
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1:] != (image_size, image_size, 3)
        or not len(images)
    ):
        raise ValueError(
            f"images: expected uint8 [n >= 1, {image_size}, {image_size}, 3], "
            f"received {images.dtype} {list(images.shape)}"
        )


def _write(
    encoder: keras.Model,
    code_length: int,
    image_size: int,
    metadata: Mapping[str, Any],
    folder: Path,
) -> None:
    # Not tf.saved_model.save: a v1 Session, TF Serving's kind of loader, finds no variables of a
    # Keras 3 model there.
    archive = keras.export.ExportArchive()
    archive.track(encoder)
    functions = signatures.build(encoder, code_length, image_size)
    for name, function in functions.items():  # the first becomes serving_default too
        archive.add_endpoint(name, function, input_signature=[signatures.INPUTS[name]])
    archive.write_out(os.fspath(folder), verbose=False)

    content = dict(metadata) | {
        "code_length": code_length,
        "bit_order": "big",
        "threshold": signatures.THRESHOLD,
        "image_size": image_size,
        "signatures": {"serving_default": "encode_images", **signatures.describe(code_length)},
        "limits": {
            "formats": ["JPEG", "PNG"],
            "max_bytes": image_ops.MAX_BYTES,
            "max_side": image_ops.MAX_SIDE,
            "max_pixels": image_ops.MAX_PIXELS,
        },
        "versions": {
            "tfhash": tfhash.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }
    path = folder / METADATA_FILE
    path.parent.mkdir()
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
