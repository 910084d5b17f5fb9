"""What runs the network on pixels: TensorFlow itself, ONNX Runtime, or TensorFlow Lite.

The files of the latter two are those that `python -m tfhash.export --format=onnx` and
`--format=tflite` write beside the versions of an export.
"""

from __future__ import annotations

import importlib.util
import os
import posixpath
import sys
import threading
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tfhash import stderr
from tfhash.errors import UserError
from tfhash.names import shown

TENSORFLOW, ONNXRUNTIME, TFLITE = NAMES = ("tensorflow", "onnxruntime", "tflite")
_FILES = {ONNXRUNTIME: "encoder.onnx", TFLITE: "encoder_float32.tflite"}
_FORMATS = {ONNXRUNTIME: "onnx", TFLITE: "tflite"}
HELP = (
    "what runs the network: tensorflow, or, of files that tfhash.export wrote beside the export, "
    "onnxruntime (--format=onnx; needs the package) or tflite (--format=tflite); codes of the "
    "first images are compared with those of tensorflow"
)


class Network(NamedTuple):
    """encode: uint8 [n >= 1, size, size, 3] to packed codes uint8 [n, ceil(k / 8)]."""

    size: int
    encode: Callable[[np.ndarray], np.ndarray]


def file_of(engine: str, version: str) -> str:
    """The file of an engine, beside the folder of a version; "" for TensorFlow, which has none."""
    if engine == TENSORFLOW:
        return ""
    return posixpath.join(_beside(version), _FILES[engine])


def to_make(engine: str, version: str) -> str:
    """The command that makes the file of an engine."""
    where = f"--model_dir=RUN --export_dir={shown(_beside(version)) or '.'}"
    return f"python -m tfhash.export {where} --format={_FORMATS[engine]}"


def require(engine: str, version: str, exists: Callable[[str], bool]) -> None:
    """UserError, with what to do, where the package or the file of an engine is not there."""
    if engine == ONNXRUNTIME and not _is_installed(ONNXRUNTIME):
        raise UserError(
            f"--engine={engine}: not installed: {engine}; `pip install {engine}`, or the extra onnx"
            " of tfhash, brings it"
        )
    file = file_of(engine, version)
    if file and not exists(file):
        raise UserError(f"--engine={engine}: there is no {shown(file)}; {to_make(engine, version)}")


def load(engine: str, file: str, threads: int) -> Network:
    """The network in a file of ONNX Runtime or TensorFlow Lite, on so many threads; 0: all cores.

    UserError, in one line, where the file cannot be loaded.
    """
    # Both say things at their start that no setting keeps them from; what fails is in the error.
    with stderr.aside(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return {ONNXRUNTIME: _onnxruntime, TFLITE: _tflite}[engine](file, threads)
        except Exception as error:  # each has many kinds
            cause = error
    said = shown(" ".join(str(cause).split())[:200])
    raise UserError(f"--engine={engine}: {shown(file)} cannot be loaded ({said})") from cause


def tensorflow() -> ModuleType:
    """TensorFlow, imported without what it says then where its logs are not asked for."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3" and "tensorflow" not in sys.modules:
        with stderr.aside():
            import tensorflow as tf
    else:
        import tensorflow as tf
    return tf


def _beside(version: str) -> str:
    return posixpath.dirname(version.rstrip("/"))


def _onnxruntime(file: str, threads: int) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return Network(given.shape[1], lambda images: session.run(["code"], {given.name: images})[0])


def _tflite(file: str, threads: int) -> Network:
    interpreter = tensorflow().lite.Interpreter(
        model_path=file, num_threads=threads or os.cpu_count()
    )
    runner: Any = interpreter.get_signature_runner("encode_images")
    turn = threading.Lock()  # an interpreter computes for one thread at a time

    def encode(images: np.ndarray) -> np.ndarray:
        with turn:
            return runner(images=images)["code"]

    return Network(int(runner.get_input_details()["images"]["shape"][1]), encode)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # as of what a test has taken away
        return False
