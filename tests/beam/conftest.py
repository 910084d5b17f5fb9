"""A small encoder behind the signatures of an export, photos, and the command of bulk on them.

These tests run where Apache Beam is installed: `make beam` makes an environment of their own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SIZE, CODE_LENGTH = 16, 13  # 13 bits take two bytes, three low bits unused
SECONDS = 300  # that a command may take on a busy machine


@pytest.fixture(scope="session")
def make_export() -> Callable[[Path, int], Path]:
    """make_export(folder, seed): a version in the folder, as tfhash.export writes it, and beside it
    the files of other engines.

    The graph is that of `tfhash.export.signatures`; without the library's training, which needs
    packages that this environment lacks.
    """

    def make(folder: Path, seed: int) -> Path:
        import keras

        from tfhash.export import decoder, signatures, tflite

        keras.utils.set_random_seed(seed)
        encoder = keras.Sequential(
            [
                keras.Input((SIZE, SIZE, 3)),
                keras.layers.Rescaling(1 / 127.5, offset=-1),
                keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(CODE_LENGTH, activation="sigmoid"),
            ]
        )
        digits = signatures.fingerprint_of(encoder, CODE_LENGTH, SIZE)
        archive = keras.export.ExportArchive()
        archive.track(encoder)
        built = signatures.build(encoder, CODE_LENGTH, SIZE, fingerprint_digits=digits)
        for name, function in built.items():
            archive.add_endpoint(name, function, input_signature=[signatures.INPUTS[name]])
        archive.write_out(str(folder / "1"), verbose=False)
        (folder / "1" / "assets.extra").mkdir()
        decoder.write(folder / "1", SIZE)
        told = json.dumps({"fingerprint": digits, "code_length": CODE_LENGTH})
        (folder / "1" / "assets.extra" / "tfhash.json").write_text(told)
        given = {"code_length": CODE_LENGTH, "image_size": SIZE, "metadata": {}}
        file = folder / "encoder_float32.tflite"
        tflite.save(encoder, **given, precision="float32", path=file)
        if importlib.util.find_spec("tf2onnx"):
            from tfhash.export import onnx

            onnx.save(encoder, **given, path=folder / "encoder.onnx")
        return folder

    return make


@pytest.fixture(scope="session")
def export(make_export, tmp_path_factory) -> Path:
    return make_export(tmp_path_factory.mktemp("model") / "export", 1)


@pytest.fixture(scope="session")
def fingerprint(export) -> str:
    return json.loads((export / "1/assets.extra/tfhash.json").read_text())["fingerprint"]


@pytest.fixture(scope="session")
def codes_of(export) -> Callable[[list[bytes]], list[bytes]]:
    """Codes of the contents of files, asked of the SavedModel one by one."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(export / "1"))
    encode = loaded.signatures["encode_bytes"]

    def codes(contents: list[bytes]) -> list[bytes]:
        answers = (encode(image_bytes=tf.constant([content]))["code"] for content in contents)
        return [answer.numpy().tobytes() for answer in answers]

    codes.loaded = loaded  # its variables live as long as it does
    return codes


def png(seed: int) -> bytes:
    """A picture of noise."""
    import io

    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def draw() -> Callable[[int], bytes]:
    return png


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """photos/{a,b}/NN.png below the working directory: 40 files; and three that are none."""
    monkeypatch.chdir(tmp_path)
    folder = Path("photos")
    for number in range(40):
        path = folder / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff no image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "note.txt").write_text("passed over")
    return folder


@pytest.fixture
def bulk(command, export) -> Callable[..., SimpleNamespace]:
    """Runs the command in this process, with flags in place of or beside the ones here."""
    from tfhash.serving.bulk import __main__ as module

    def run(*more: str, **changes: object):
        given = {"model": export, "input": "photos/**", "output": "out/codes@4.parquet"}
        arguments = [f"--{k}={v}" for k, v in (given | changes).items() if v is not None]
        return command(module, *arguments, *more)

    return run


@pytest.fixture
def start(export) -> Callable[..., subprocess.Popen]:
    """Starts the command in a process of its own, as `bulk` runs it here."""
    started: list[subprocess.Popen] = []

    def run(*more: str, **changes: object) -> subprocess.Popen:
        given = {"model": export, "input": "photos/**", "output": "out/codes@4.parquet"}
        arguments = [f"--{k}={v}" for k, v in (given | changes).items() if v is not None]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tfhash.serving.bulk", *arguments, *more],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"TF_NUM_INTRAOP_THREADS": "1"},
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()
