"""What the tests of encode share: files that the fake service reads, and the command on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tfhash.serving.encode import __main__ as command_module

JPEG = b"\xff\xd8\xff"  # what a file has to begin with to be sent


@pytest.fixture
def photos(tmp_path) -> Path:
    """12 files in two folders, of the contents a0, b1, ... l11 behind the start of a JPEG."""
    folder = tmp_path / "photos"
    for i in range(12):
        path = folder / ("even", "odd")[i % 2] / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG + b"%c%d" % (ord("a") + i, i))
    return folder


@pytest.fixture(scope="session")
def codes_of() -> Callable[[Iterable[str | Path]], list[list[int]]]:
    """The fake's codes of files: the first byte, and the high half of the second."""

    def codes(paths):
        contents = [Path(path).read_bytes().removeprefix(JPEG) for path in paths]
        return [[content[0], content[1] & 0xF0] for content in contents]

    return codes


@pytest.fixture
def encode(command, server, photos, tmp_path):
    """Runs the command on the photos, with flags in place of or beside the ones here."""

    def encode(**changes):
        arguments = {
            "target": server.target,
            "images": f"{photos}/**/*.jpg",
            "output": tmp_path / "codes.npz",
            "batch": 2,
            "timeout": 5,
        } | changes
        return command(command_module, *(f"--{name}={value}" for name, value in arguments.items()))

    return encode
