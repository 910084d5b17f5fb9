"""A tiny network as an export with the files of every engine, and image files for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfhash import export
from tfhash.export import onnx, tflite
from tfhash.serving import engines

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnxruntime", "tf2onnx"))
SIZE, CODE_LENGTH = 16, 13  # 13 bits take two bytes, three low bits unused
BAD = b"\xff\xd8\xff no image"
ALL = {"code_length": CODE_LENGTH, "metadata": {}}
FILES = {
    engine: engines.file_of(engine, "export/1").removeprefix("export/") for engine in engines.NAMES
}


def encoder(seed: int, size: int = SIZE) -> keras.Model:
    """Untrained; its codes differ between the photos."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(CODE_LENGTH, activation="sigmoid"),
        ]
    )
    return model


def make(folder: Path, seed: int) -> Path:
    """folder/1, encoder_float32.tflite and, with the extra onnx, encoder.onnx."""
    model = encoder(seed)
    export.save(model, **ALL, image_size=SIZE, images=None, export_dir=folder)
    tflite.save(
        model, **ALL, image_size=SIZE, precision="float32", path=folder / FILES[engines.TFLITE]
    )
    if HAS_ONNX:
        onnx.save(model, **ALL, image_size=SIZE, path=folder / FILES[engines.ONNXRUNTIME])
    return folder


def photos(count: int) -> list[bytes]:
    """JPEG and PNG files of noise, of many sizes."""
    generator = np.random.default_rng(count)
    contents = []
    for number in range(count):
        pixels = generator.integers(0, 256, (10 + number, 40, 3), np.uint8)
        write = tf.io.encode_png if number % 2 else tf.io.encode_jpeg
        contents.append(write(pixels).numpy())
    return contents


def codes(export_dir: Path, contents: list[bytes]) -> list[bytes]:
    """The SavedModel's, asked one by one."""
    loaded = tf.saved_model.load(str(export_dir / "1"))
    encode = loaded.signatures["encode_bytes"]
    return [
        encode(image_bytes=tf.constant([content]))["code"].numpy().tobytes() for content in contents
    ]
