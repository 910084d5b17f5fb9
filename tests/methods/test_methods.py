"""Methods are found by their modules; nothing lists them."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from tfhash import methods
from tfhash.errors import UserError
from tfhash.methods.ssgah import SSGAH

TOY = """
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.hashers.base import Hasher

class Helper:
    pass

class Toy(Hasher):
    pass
"""


def test_names_are_the_public_modules():
    assert "ssgah" in methods.names()
    assert methods.names() == sorted(methods.names())
    assert not [name for name in methods.names() if name.startswith("_")]


def test_get_answers_the_hasher_of_a_module():
    assert methods.get("ssgah") is SSGAH


@pytest.mark.parametrize("name", ["sgah", "_ssgah_stage", ""])
def test_an_unknown_name_is_a_mistake_of_the_user(name):
    with pytest.raises(UserError, match=f"`method`: '{name}'; allowed: .*ssgah"):
        methods.get(name)


def test_every_method_has_a_configuration_and_settings():
    for name in methods.names():
        hasher = methods.get(name)
        for config in (hasher.Config(), hasher.Settings()):
            assert all("help" in field.metadata for field in dataclasses.fields(config))


def test_a_module_that_is_dropped_in_is_a_method(tmp_path, monkeypatch):
    """Its Hasher is taken, not a helper in it nor a Hasher that it imports."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    try:
        assert "toy" in methods.names()
        assert methods.get("toy").__name__ == "Toy"
    finally:
        sys.modules.pop("tfhash.methods.toy", None)
        vars(methods).pop("toy", None)
