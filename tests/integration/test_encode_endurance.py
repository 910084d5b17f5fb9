"""A server killed twice while thousands of files are encoded: nothing lost, nothing twice.

The whole of it, as it was run by hand; without this variable 300 files:

    TFHASH_FILES=5000 python -m pytest tests/integration/test_encode_endurance.py
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_serving", reason="needs the extra serving")

from tfhash import export
from tfhash.serving.encode import __main__ as encode_command

FILES = int(os.environ.get("TFHASH_FILES", 300))
CONTENTS = 37  # distinct images; a prime, so that a row of another request is seen
UNREADABLE_EVERY = 50
SIZE, CODE_LENGTH = 16, 64
FLAGS = ("--batch=4", "--timeout=120")  # a server takes seconds to start, more on a busy machine


class Photos(NamedTuple):
    """readable: paths, sorted. listed: what the command says of the others."""

    pattern: str
    readable: list[str]
    listed: str


@pytest.fixture
def photos(tmp_path) -> Photos:
    """FILES copies of CONTENTS images; every UNREADABLE_EVERY-th of something else.

    No links: a real file is encoded once, whatever the number of its names.
    """
    rng = np.random.default_rng(0)
    images = []
    for number in range(CONTENTS):
        # Some ms each to decode, so that no kill comes after the last file.
        pixels = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((80, 80, 1))).astype(np.uint8)
        images.append((tf.io.encode_png if number % 2 else tf.io.encode_jpeg)(pixels).numpy())
    bad = {
        "damaged": images[0][: len(images[0]) // 2],
        "empty": b"",
        "not a JPEG or PNG image": b"a letter",
    }
    for number, content in enumerate([*images, *bad.values()]):
        (tmp_path / f"content{number}").write_bytes(content)

    readable, unreadable = [], {reason: [] for reason in bad}
    (tmp_path / "photos").mkdir()
    for number in range(FILES):
        path = tmp_path / "photos" / f"{number:05}.jpg"
        if number % UNREADABLE_EVERY == 7:
            kind = number // UNREADABLE_EVERY % len(bad)
            shutil.copy(tmp_path / f"content{CONTENTS + kind}", path)
            unreadable[list(bad)[kind]].append(str(path))
        else:
            shutil.copy(tmp_path / f"content{number % CONTENTS}", path)
            readable.append(str(path))
    listed = [f"{FILES - len(readable):,} of {FILES:,} files have no code"]
    for reason, paths in unreadable.items():
        listed += [f"{len(paths):,} {reason}:", *(f"  {path}" for path in paths)]
    return Photos(f"{tmp_path}/photos/*", readable, "\n".join([*listed, ""]))


@pytest.fixture
def start(python) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a command in a process of its own, killed when the test ends."""
    with contextlib.ExitStack() as stack:

        def start(module: str, *arguments: str, **pipes: int) -> subprocess.Popen:
            command = [python, "-m", module, *arguments]
            process = stack.enter_context(subprocess.Popen(command, text=True, **pipes))
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def start_server(start, tmp_path) -> Callable[[int], tuple[subprocess.Popen, int]]:
    """Starts a server of one encoder on a port, 0 for a free one; tells the port once it serves."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Flatten(),
            keras.layers.Dense(CODE_LENGTH, activation="sigmoid"),
        ]
    )
    export.save(
        encoder,
        code_length=CODE_LENGTH,
        image_size=SIZE,
        metadata={},
        images=None,
        export_dir=tmp_path / "export",
    )

    def start_server(port: int) -> tuple[subprocess.Popen, int]:
        server = start(
            "tfhash.serving.server",
            f"--model_base_path={tmp_path}/export",
            f"--port={port}",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        server.stdout.readline()  # the banner
        return server, int(server.stdout.readline().split()[2].rpartition(":")[2])

    return start_server


def rows(journal: Path) -> int:
    """How many files the command has done with."""
    return journal.read_text().count("\n[") if journal.exists() else 0


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_a_server_killed_twice(start, start_server, photos, command, tmp_path, capsys):
    server, port = start_server(0)
    flags = [f"--target=127.0.0.1:{port}", f"--images={photos.pattern}", *FLAGS]
    undisturbed = command(encode_command, *flags, f"--output={tmp_path}/undisturbed.npz")
    assert (undisturbed.status, undisturbed.errors) == (1, photos.listed)

    begin = time.monotonic()
    encoding = start(
        "tfhash.serving.encode",
        *flags,
        f"--output={tmp_path}/codes.npz",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    done = []
    for kill in (1, 2):
        while rows(tmp_path / "codes.npz.part") < kill * FILES // 3 and encoding.poll() is None:
            time.sleep(0.005)
        server.kill()
        server.stdout.read()  # until it is gone
        time.sleep(0.5)
        done.append(rows(tmp_path / "codes.npz.part"))
        assert encoding.poll() is None, (done, *encoding.communicate())
        server, _ = start_server(port)
    output, errors = encoding.communicate(timeout=300)
    with capsys.disabled():
        seconds = time.monotonic() - begin
        print(f"\n{FILES} files, server killed after {done}, {seconds:.0f} s")

    assert encoding.returncode == 1
    assert errors.endswith(photos.listed), errors  # TensorFlow may say something before
    assert output == f"{tmp_path}/codes.npz: {len(photos.readable):,} codes of 64 bits\n"
    assert not (tmp_path / "codes.npz.part").exists()
    arrays, expected = load(tmp_path / "codes.npz"), load(tmp_path / "undisturbed.npz")
    assert arrays["paths"].tolist() == photos.readable
    assert len(np.unique(expected["codes"], axis=0)) == CONTENTS
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
