"""Verification: the same codes through Keras, tf.saved_model.load and a v1 Session.

As a script this file is the far side: a process that cannot import tfhash, as a server cannot.
Hence no import of tfhash here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

_MAX_REASON = 300  # characters; TensorFlow's messages run to pages
_Feeds = dict[str, tuple[str, np.ndarray]]


class VerificationError(RuntimeError):
    """A SavedModel that does not answer as the Keras encoder does; not to be published."""


def verify(folder: Path, encoder: Callable, images: np.ndarray) -> None:
    """Compares the codes of a SavedModel with those of the Keras encoder it was made from.

    folder: the SavedModel. encoder: float32 [n, S, S, 3] in [0, 255] to [n, k] in [0, 1].
    images: uint8 [n, S, S, 3], at the encoder's own size; encode_bytes gets them as PNG, which
    loses nothing.
    Raises VerificationError, one line, at the first signature and loader that differ in any bit.
    """
    bits = _keras_embedding(encoder, images) > 0.5
    expected = np.packbits(bits, axis=-1)
    for path, code in _codes_in_new_process(folder, images).items():
        differing = np.unpackbits(code ^ expected).sum()
        if differing:
            raise VerificationError(f"{path}: {differing} of {bits.size} bits differ from Keras")


def _keras_embedding(encoder: Callable, images: np.ndarray) -> np.ndarray:
    # In a graph, so that TensorFlow fuses the same operations as in the export, and on the CPU
    # like the other process: low precision rounds differently otherwise, near the threshold.
    @tf.function
    def embed(batch: tf.Tensor) -> tf.Tensor:
        with tf.device("/CPU:0"):
            return tf.cast(encoder(batch, training=False), tf.float32)

    return embed(tf.constant(images, tf.float32)).numpy()


def _codes_in_new_process(folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Codes by `loader, signature`, computed where tfhash cannot be imported."""
    with tempfile.TemporaryDirectory() as scratch:
        images_file, codes_file = Path(scratch, "images.npy"), Path(scratch, "codes.npz")
        np.save(images_file, images)
        # -P keeps this file's neighbours off the path. The GPU, if any, is this process's.
        process = subprocess.run(
            [sys.executable, "-P", __file__, str(folder), str(images_file), str(codes_file)],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
        if process.returncode:
            last_line = "".join(process.stderr.strip().splitlines()[-1:])
            raise VerificationError(
                f"a process without tfhash ended with status {process.returncode}: {last_line}"
            )
        with np.load(codes_file) as codes:
            return dict(codes)


def _main(folder: str, images_file: str, codes_file: str) -> None:
    images = np.load(images_file)
    png = [tf.io.encode_png(image).numpy() for image in images]
    feeds = {
        "encode_images": ("images", images),
        "encode_bytes": ("image_bytes", np.array(png, object)),
    }
    codes = {}
    for loader, encode in _LOADERS.items():
        try:
            answers = encode(folder, feeds)
        except Exception as error:
            words = " ".join(str(error).split())
            sys.exit(f"{loader}: {type(error).__name__}: {words[:_MAX_REASON]}")
        codes |= {f"{loader}, {signature}": code for signature, code in answers.items()}
    np.savez(codes_file, **codes)


def _through_function(folder: str, feeds: _Feeds) -> dict[str, np.ndarray]:
    signatures = tf.saved_model.load(folder).signatures
    return {
        signature: signatures[signature](**{name: tf.constant(value)})["code"].numpy()
        for signature, (name, value) in feeds.items()
    }


def _through_session(folder: str, feeds: _Feeds) -> dict[str, np.ndarray]:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def
        return {
            signature: session.run(
                signatures[signature].outputs["code"].name,
                {signatures[signature].inputs[name].name: value},
            )
            for signature, (name, value) in feeds.items()
        }


_LOADERS = {"tf.saved_model.load": _through_function, "v1 Session": _through_session}


if __name__ == "__main__":
    sys.modules["tfhash"] = None
    try:
        import tfhash  # noqa: F401
    except ImportError:
        _main(*sys.argv[1:])
    else:
        sys.exit("tfhash can be imported here, so this process would prove nothing")
