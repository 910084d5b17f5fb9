"""Commands whose index is in a database: which kind the address names, and what is told."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tfhash.search import databases


class FakeModule:
    """Stands for tfhash.search.milvus, whose own tests need an environment of their own."""

    def __init__(self, index):
        self.index, self.asked = index, []

    def is_there(self, address):
        return bool(self.asked)

    def MilvusIndex(self, address, **options):  # noqa: N802
        self.asked.append((address, options))
        return self.index


class FakeIndex:
    """What `build` asks of an index in a database."""

    place, code_length, model, notes = "http://host:1", 12, "m1", ()

    def __init__(self):
        self.held, self.known = {}, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    close = compact = lambda self: None

    def __len__(self):
        return len(self.held)

    def content(self):
        return self.held

    def codes(self, ids):
        assert ids == []  # none is there already
        return np.zeros((0, 2), np.uint8)

    def payload(self, ids):
        assert ids == []
        return []

    def facts(self):
        return self.known

    def remember(self, **facts):
        self.known |= facts

    def change(self, codes, *, ids, content, payload, replace):
        self.held |= dict(zip(ids, content, strict=True))

    def optimise(self):
        return "all codes are compared"


def test_the_commands_work_on_milvus_by_its_address(photos, search, monkeypatch):
    index = FakeIndex()
    module = FakeModule(index)
    monkeypatch.setattr(databases, "milvus", module)
    address = "--index=milvus://token@host:1"
    for encoded in (70, 0):
        built = search("build", address, "--images=photos/**", "--model=export").output
        assert f"{encoded} encoded" in built
        assert "index:      http://host:1, 70 codes of 12 bits" in built
        assert "token" not in built and ("all codes are compared" in built) == bool(encoded)
    assert len(index.held) == 70
    first, second = module.asked
    assert first == ("milvus://token@host:1", {"code_length": 12, "model": "m1"})
    assert second == ("milvus://token@host:1", {"code_length": None, "model": ""})


def test_without_pymilvus_a_line_says_what_to_do(search):
    if importlib.util.find_spec("pymilvus"):
        pytest.skip("pymilvus is here")
    ended = search("info", "--index=milvus://host:1", status=2)
    assert "--index: Milvus needs pymilvus: pip install 'tfhash[milvus]'" in ended.errors


@pytest.mark.parametrize("address", ["milvus://u:se/cret@h", "postgresql://u:se/cret@h/db"])
def test_an_address_that_cannot_be_read_is_not_shown(search, address):
    ended = search("info", f"--index={address}", status=2)
    if "the address cannot be read" not in ended.errors:
        assert "pip install" in ended.errors
    assert "cret" not in ended.output + ended.errors


def test_folders_are_no_addresses():
    for index in ("runs/x.index", "/milvus://", "m.db", "http://host"):
        assert not databases.is_address(index)
