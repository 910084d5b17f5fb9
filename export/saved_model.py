"""The SavedModel: written aside, verified, then published as the next version in one rename."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfhash
from tfhash import exports, paths
from tfhash.data import images as image_ops
from tfhash.data.arrays import as_images
from tfhash.export import aside, decoder, fingerprint, operations, signatures, verify, warmup
from tfhash.export.folded import folded
from tfhash.hashers.base import Hasher


def save(
    encoder: keras.Model,
    *,
    code_length: int,
    image_size: int,
    metadata: Mapping[str, Any],
    images: np.ndarray | None,
    export_dir: Path | str,
    max_image_megapixels: int = image_ops.MEGAPIXELS,
) -> Path:
    """Publishes an encoder as `export_dir/N`, N the next integer, once it is verified.

    encoder: float32 [n, image_size, image_size, 3] in [0, 255] to [n, code_length] in [0, 1].
    metadata: what the run adds to `assets.extra/tfhash.json` (method, dataset, protocol, ...),
    JSON values. images: uint8 [n >= 1, image_size, image_size, 3], real images to verify with;
    None: nothing is verified. max_image_megapixels: the limit of `images.decode` in the graph.
    Returns the published folder. Raises ValueError for other images or a wrong code_length, OSError
    where export_dir cannot be written, and `verify.VerificationError` where a loader answers other
    codes than Keras or fails, a warm-up request too, or where TF Serving could not load the graph;
    then, as after any error, nothing is published.
    """
    if images is not None:
        _check_images(images, image_size)
    export_dir = Path(export_dir).expanduser()
    # TF Serving loads any folder whose name is an integer, however complete; no other name.
    limits = image_ops.Limits(max_image_megapixels)
    digits = signatures.fingerprint_of(encoder, code_length, image_size, limits.megapixels)
    with (
        aside.folder(export_dir, str(next_version(export_dir))) as temporary,
        paths.literal(temporary) as folder,
    ):
        _write(encoder, code_length, image_size, metadata, digits, folder, limits)
        if images is not None:
            operations.check(folder)
            verify.verify(folder, encoder, images, warmup.read(folder), digits)
            decoder.check(folder, images)
        return _publish(temporary, export_dir)


def export_saved_model(
    hasher: Hasher,
    export_dir: Path | str,
    *,
    images: np.ndarray | None = None,
    metadata: Mapping[str, Any] | None = None,
    max_image_megapixels: int = image_ops.MEGAPIXELS,
    fold: bool = True,
) -> Path:
    """Publishes what a hasher has learned as `export_dir/N`, a SavedModel; see `save`.

    images: uint8 [n >= 1, H, W, 3], real images with which the SavedModel is verified in a process
    that has no tfhash; None: nothing is verified. metadata: further JSON values for
    `assets.extra/tfhash.json`. max_image_megapixels: pixels that an image file may have, in
    millions, as the flag of training. fold: whether batch normalisation becomes part of the layers
    before it, see `folded.folded`. Returns the published folder. UserError before the hasher has
    learned.
    """
    if images is not None:
        images = as_images(images, "images", hasher.image_size)
    encoder = folded(hasher.encoder, images) if fold else hasher.encoder
    return save(
        encoder,
        code_length=hasher.code_length,
        image_size=hasher.image_size,
        metadata={"method": hasher.method(), "seed": hasher.seed, **(metadata or {})},
        images=images,
        export_dir=export_dir,
        max_image_megapixels=max_image_megapixels,
    )


def next_version(export_dir: Path) -> int:
    """One more than the highest integer among the names in export_dir, 1 where there is none."""
    names = (path.name for path in export_dir.glob("*"))
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def _publish(temporary: Path, export_dir: Path) -> Path:
    """Gives the folder the next integer as its name; the one after, where another is faster."""
    while True:
        try:  # a folder that has content is never replaced by a rename
            return temporary.rename(export_dir / str(next_version(export_dir)))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


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
    digits: str,
    folder: Path,
    limits: image_ops.Limits,
) -> None:
    # Not tf.saved_model.save: a v1 Session, TF Serving's kind of loader, finds no variables of a
    # Keras 3 model there.
    archive = keras.export.ExportArchive()
    archive.track(encoder)
    functions = signatures.build(encoder, code_length, image_size, limits.megapixels, digits)
    for name, function in functions.items():  # the first becomes serving_default too
        archive.add_endpoint(name, function, input_signature=[signatures.INPUTS[name]])
    archive.write_out(os.fspath(folder), verbose=False)
    warmup_requests = warmup.write(folder, image_size)
    decoder.write(folder, image_size, limits.megapixels)

    content = dict(metadata) | {
        fingerprint.OUTPUT: digits,
        "code_length": code_length,
        "bit_order": "big",
        "threshold": signatures.THRESHOLD,
        "image_size": image_size,
        "signatures": {"serving_default": signatures.DEFAULT, **signatures.describe(code_length)},
        "limits": {
            "formats": ["JPEG", "PNG"],
            "max_bytes": limits.bytes,
            "max_side": image_ops.MAX_SIDE,
            "max_pixels": limits.pixels,
        },
        "decoding": image_ops.DECODING,
        "warmup": {"requests": warmup_requests, "images": warmup.BATCH_SIZES},
        "versions": {
            "tfhash": tfhash.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }
    path = folder / exports.METADATA
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
