"""The defaults and ranges of every setting: flagfiles and the rows of results.md rest on them.

Whoever changes one on purpose writes the file again and reads in its diff what users get:

    python tests/methods/test_defaults.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tfhash import methods
from tfhash.runs.experiment_settings import Experiment
from tfhash.settings import fields_of

KEPT = Path(__file__).with_name("defaults.json")


def described(config_class: type) -> dict[str, list[Any]]:
    """Of each field its default, range, choices, group, and whether it can change a result."""
    return {
        name: [
            field.default,
            field.metadata["limits"],
            field.metadata["choices"],
            field.metadata["group"],
            field.metadata["decides"],
        ]
        for name, field in fields_of(config_class).items()
    }


def all_settings() -> dict[str, dict[str, list[Any]]]:
    found = {"Experiment": described(Experiment)}
    for name in methods.names():
        method = methods.get(name)
        found[method.Settings.__name__] = described(method.Settings)
        found[name] = described(method.Config)
    return json.loads(json.dumps(found))  # tuples as lists


@pytest.mark.parametrize("name", sorted(all_settings()))
def test_defaults_and_ranges_are_as_they_were(name):
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    if name not in kept:
        pytest.skip("a new method; its defaults are kept once it is released")
    assert all_settings()[name] == kept[name]


def test_no_method_is_gone():
    assert set(json.loads(KEPT.read_text(encoding="utf-8"))) <= set(all_settings())


if __name__ == "__main__":
    lines = [
        f' "{name}": {{\n'
        + ",\n".join(f'  "{field}": {json.dumps(value)}' for field, value in fields.items())
        + "\n }"
        for name, fields in all_settings().items()
    ]
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
