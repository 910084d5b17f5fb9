"""The decoder by itself, a SavedModel beside the encoder: image files in, the network's pixels out.

It is what `encode_bytes` does before the network, for who runs the network elsewhere, in ONNX
Runtime or TensorFlow Lite, or wants to decode the next files while it runs. In assets.extra, which
TF Serving hands to nobody.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfhash import exports
from tfhash.data import images as image_ops
from tfhash.export import signatures
from tfhash.export.verify import VerificationError

_CHECKED = 32  # images: what could differ would differ in each


def write(folder: Path, image_size: int, megapixels: int = image_ops.MEGAPIXELS) -> None:
    """Writes the decoder of a version into its folder; arguments as of `signatures.build`."""
    spec = tf.TensorSpec(None, tf.string, name="image_bytes")
    module = tf.Module()
    module.decoders = {
        name: tf.function(function, input_signature=[spec], autograph=False)
        for name, function in signatures.build_decoders(image_size, megapixels).items()
    }
    path = os.fspath(folder / exports.DECODER)
    tf.saved_model.save(module, path, signatures=dict(module.decoders))


def check(folder: Path, images: np.ndarray) -> None:
    """VerificationError where the decoder in a folder does not give back the pixels of PNG files.

    images: uint8 [n >= 1, S, S, 3], at the encoder's own size.
    """
    images = images[:_CHECKED]
    files = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    loaded = tf.saved_model.load(os.fspath(folder / exports.DECODER))
    for name, function in loaded.signatures.items():
        if not np.array_equal(function(image_bytes=files)["images"], images):
            raise VerificationError(f"{exports.DECODER}, {name}: other pixels than those of a PNG")
