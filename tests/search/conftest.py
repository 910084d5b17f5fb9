"""Photos in a folder, and an encoder that counts what it is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.search import items
from tfhash.search import __main__ as main_module
from tfhash.search import build
from tfhash.search.encoder import Limits
from tfhash.search.index import Index

BITS = 12


class FakeEncoder:
    """Codes are bits of a file's middle bytes; a file that says so is refused."""

    directory = Path("export/1")
    limits = Limits()

    def __init__(self, code_length=BITS, fingerprint="m1"):
        self.code_length, self.fingerprint = code_length, fingerprint
        self.asked: list[int] = []

    def __call__(self, contents):
        assert 0 < len(contents) <= build.BATCH
        self.asked.append(len(contents))
        codes = [np.frombuffer(c[len(c) // 2 :][:2], np.uint8) & [255, 240] for c in contents]
        valid = np.array([b"REFUSED" not in content for content in contents])
        codes = np.array(codes, np.uint8)
        codes[~valid] = 0
        return codes, valid


def picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """photos/{a,b,c}/N.png below the working directory: 24, 23 and 23 files."""
    monkeypatch.chdir(tmp_path)
    folder = Path("photos")
    for number in range(70):
        place = folder / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        picture(place / f"{number}.png", number)
    return folder


@pytest.fixture
def fake_encoder() -> type[FakeEncoder]:
    return FakeEncoder


@pytest.fixture
def draw():
    """draw(path, seed): a picture of noise."""
    return picture


@pytest.fixture(params=["memory", "folder", "loaded"])
def index(request, tmp_path):
    codes, ids = items.made()
    path = None if request.param == "memory" else tmp_path / "index"
    found = Index(
        codes, ids=ids, code_length=items.BITS, payload=items.labelled(), path=path, model="m1"
    )
    if request.param == "loaded":
        found.close()
        found = Index.load(path)
    yield found
    found.close()


@pytest.fixture
def encoders(monkeypatch, fake_encoder):
    """The encoders that were loaded: of a folder with m2 in its name one of another model."""
    loaded = []

    def load(folder):
        loaded.append(fake_encoder(fingerprint="m2" if "m2" in str(folder) else "m1"))
        return loaded[-1]

    monkeypatch.setattr(main_module, "Encoder", load)
    return loaded


@pytest.fixture
def search(command, encoders):
    """search("build", ...): what came of the command, which must end well unless told."""

    def run(*arguments, status=0):
        ended = command(main_module, *arguments)
        assert ended.status == status, ended
        return ended

    return run


@pytest.fixture
def built(photos, search):
    search("build", "--index=i", "--images=photos/**", "--model=export")
    return photos


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL of the module's own; skipped where its packages are missing."""
    from tests.search.postgres_server import Server  # skips, so not for tests without it

    server = Server()
    yield server
    server.stop()
