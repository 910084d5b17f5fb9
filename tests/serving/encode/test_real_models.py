"""encode against real exports: two behind one address, of one version, name and length; reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.config import model_server_config_pb2

from tfhash import export
from tfhash.export import warmup
from tfhash.serving import HashClient
from tfhash.serving.encode import __main__ as command_module
from tfhash.serving.encode.journal import Journal
from tfhash.serving.server.server import Options, Server

SIZE, CODE_LENGTH, FILES = 8, 16, 24


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> list[Path]:
    """The base paths of two models that differ in their weights alone."""
    folders = [tmp_path_factory.mktemp("export") for _ in range(2)]
    for seed, folder in enumerate(folders):
        keras.utils.set_random_seed(seed)
        layers = [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Flatten(),
            keras.layers.Dense(CODE_LENGTH, activation="sigmoid"),
        ]
        published = export.save(
            keras.Sequential(layers),
            code_length=CODE_LENGTH,
            image_size=SIZE,
            metadata={},
            images=None,
            export_dir=folder,
        )
        (published / warmup.FILE).unlink()  # it takes most of a start, of which there are seven
    return folders


@pytest.fixture
def serve(exports) -> Iterator[Callable[[int], str]]:
    """serve(i): has the one server answer with that model, in place of the one before."""
    running: list[Server] = []
    port = 0

    def serve(number: int) -> str:
        nonlocal port
        while running:
            # Calls under way end first, as at SIGTERM: gRPC does not send one again of which a
            # part of the answer came.
            running.pop().stop(5)
        config = model_server_config_pb2.ModelServerConfig()
        config.model_config_list.config.add(
            name="tfhash", base_path=str(exports[number]), model_platform="tensorflow"
        )
        running.append(Server(config, Options(port=port, poll_seconds=60)))
        running[-1].start()
        port = running[-1].port
        return f"127.0.0.1:{port}"

    yield serve
    while running:
        running.pop().stop(0)


@pytest.fixture
def photos(tmp_path) -> list[bytes]:
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    contents = []
    for number in range(FILES):
        pixels = generator.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        contents.append(tf.io.encode_png(pixels).numpy())
        (tmp_path / "photos" / f"{number:02}.png").write_bytes(contents[-1])
    return contents


@pytest.fixture
def encode(command, tmp_path, photos):
    def encode(target: str):
        flags = {"target": target, "images": f"{tmp_path}/photos/*", "timeout": 300}
        flags |= {"output": tmp_path / "codes.npz", "batch": 3, "in_flight": 2}
        return command(command_module, *(f"--{name}={value}" for name, value in flags.items()))

    return encode


def expected(target: str, photos: list[bytes]) -> list[list[int]]:
    with HashClient(target) as client:
        return client.encode_bytes(photos).code.tolist()


def after_four_requests(monkeypatch, do: Callable[[], None]) -> None:
    """Does this once the journal has the rows of four requests."""
    add, calls = Journal.add, []

    def add_then(self, rows):
        add(self, rows)
        calls.append(rows)
        if len(calls) == 4:
            do()

    monkeypatch.setattr(Journal, "add", add_then)


def codes_in(output: Path) -> list[list[int]]:
    with np.load(output, allow_pickle=False) as file:
        return file["codes"].tolist()


def test_the_model_is_swapped_midway(serve, encode, photos, tmp_path, monkeypatch):
    target = serve(0)
    of_the_first = expected(target, photos)
    with monkeypatch.context() as patch:
        after_four_requests(patch, lambda: serve(1))
        ended = encode(target)
    assert ended.status == 1 and len(ended.errors.splitlines()) == 1
    assert "version 1 was replaced by another model of that version" in ended.errors
    assert not (tmp_path / "codes.npz").exists()
    assert encode(target).status == 0
    of_the_second = expected(target, photos)
    assert codes_in(tmp_path / "codes.npz") == of_the_second != of_the_first
    serve(0)
    assert "all files are encoded anew" in encode(target).output
    assert codes_in(tmp_path / "codes.npz") == of_the_first


def test_the_model_is_swapped_between_two_runs(serve, encode, photos, tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    target = serve(0)
    with monkeypatch.context() as patch:
        after_four_requests(patch, interrupt)
        assert encode(target).status == 130
    serve(1)
    assert encode(target).status == 0
    assert codes_in(tmp_path / "codes.npz") == expected(target, photos)


def test_a_file_that_the_model_refuses_has_its_reason(serve, encode, photos, tmp_path):
    """A limit in the graph's own words, and libpng's complaint as damage."""
    wide = tf.io.encode_png(np.zeros([2, 600, 3], np.uint8)).numpy()
    (tmp_path / "photos" / "wide.png").write_bytes(wide)
    (tmp_path / "photos" / "cut.png").write_bytes(photos[0][: len(photos[0]) // 2])
    ended = encode(serve(0))
    assert ended.status == 1
    assert ended.errors.splitlines() == [
        f"2 of {FILES + 2} files have no code",
        "1 damaged:",
        f"  {tmp_path}/photos/cut.png",
        "1 refused by the model: image dimensions out of range: 600 x 2 px; allowed: sides of 1 to "
        "32768 px, one at most 100 times the other:",
        f"  {tmp_path}/photos/wide.png",
    ]
    assert len(codes_in(tmp_path / "codes.npz")) == FILES
