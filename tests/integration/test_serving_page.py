"""docs/serving.md: every shell and Python line on it, run from top to bottom as a reader would.

A command that ends is run in this process, which has TensorFlow already.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

pytest.importorskip("tf2onnx", reason="needs the extra onnx")
predict_pb2 = pytest.importorskip(
    "tensorflow_serving.apis.predict_pb2", reason="needs the extra serving"
)

REPOSITORY = Path(__file__).parents[2]
COMMAND = re.compile(r"python -m (tfhash\.[\w.]+) ([^&|>]+)")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = 7

# What the output of each block holds, in the order of the page.
EXPECTED = [
    ("sh", ["published runs/quickstart/export/1", "24 bits", "AVAILABLE", "deploy/models.config"]),
    ("python", ["24 bits", f"({FILES}, 3) 1 (2, 24)", "fingerprint ", "0 photos/0.png"]),
    ("python", ["[[", "]]"]),
    ("python", ["[[", "]]"]),
    ("python", ["24"]),
    ("sh", ['{"predictions": [{"bits": [']),
    ("textproto", []),
    ("sh", ["float32.tflite", "float16.tflite", "int8.tflite", "encoder.onnx", "bits differ"]),
    ("python", ["[["]),
    ("python", ["[["]),
    ("sh", ["here.npz: 7 codes", "onnxruntime: 0 of ", "onnx.npz: 7 codes", "tflite.npz: 7 codes"]),
]


@pytest.fixture(scope="module")
def folder(command, tmp_path_factory):
    """Where the page starts: a finished run in runs/quickstart, and photos."""
    from tfhash import train

    folder = tmp_path_factory.mktemp("reader")
    ended = command(
        train,
        f"--flagfile={REPOSITORY / 'configs' / 'ssgah_baseline.flags'}",
        "--steps=5",
        "--checkpoint_every=5",
        f"--model_dir={folder / 'runs' / 'quickstart'}",
    )
    assert ended.status == 0, ended.errors
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(FILES):
        pixels = rng.integers(0, 256, (20 + number, 30, 3), np.uint8)
        (folder / "photos" / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    return folder


@pytest.fixture
def page():
    """The blocks of the page, with ports that are free here."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [str(one.getsockname()[1]) for one in sockets]
    text = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
    return BLOCK.findall(text.replace("8500", ports[0]).replace("8501", ports[1]))


@pytest.fixture
def shell(python, folder):
    """shell(lines): their output. What they leave running ends with the test."""
    groups = []
    path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])

    def run(lines: str) -> str:
        output = folder / "shell.txt"
        with output.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-e", "-o", "pipefail", "-c", lines],
                cwd=folder,
                env=os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY)},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            groups.append(process.pid)
            status = process.wait(timeout=500)
        text = output.read_text(errors="replace")
        assert status == 0, text
        return text

    yield run
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


@pytest.fixture
def in_turn(command, shell):
    """in_turn(block): the output of its lines; of a command that ends, of what a shell takes."""

    def run(block: str) -> str:
        output = ""
        for line in re.split(r"\n(?!\s)", block.replace("\\\n", " ").strip()):
            if alone := COMMAND.fullmatch(line):
                package = importlib.util.find_spec(alone[1]).submodule_search_locations
                module = importlib.import_module(alone[1] + ".__main__" * bool(package))
                ended = command(module, *shlex.split(alone[2]))
                assert ended.status == 0, f"{line}\n{ended}"
                output += ended.output + ended.errors  # as a shell has it
            else:
                output += shell(line)
        return output

    return run


@pytest.mark.skipif(not shutil.which("curl"), reason="the page uses curl")
def test_every_line_of_the_page_works(folder, page, in_turn, monkeypatch):
    assert [kind for kind, _ in page] == [kind for kind, _ in EXPECTED]
    monkeypatch.chdir(folder)
    for (kind, text), (_, expected) in zip(page, EXPECTED, strict=True):
        match kind:
            case "sh":
                output = in_turn(text)
            case "python":
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile(text, "docs/serving.md", "exec"), {"__name__": "__main__"})
                output = printed.getvalue()
            case "textproto":
                output = ""
                request = text_format.Parse(text, predict_pb2.PredictRequest())
                assert request.model_spec.signature_name == "encode_bytes"
        assert [part for part in expected if part not in output] == [], f"{text}\n{output}"
    with np.load("codes.npz") as codes:
        assert len(codes["codes"]) == FILES
