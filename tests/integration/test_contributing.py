"""CONTRIBUTING.md: the method in three files, run as they stand there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tfhash import methods, train

REPOSITORY = Path(__file__).parents[2]
# A fenced block, and the path in the line before it.
FILE = re.compile(r"^`([\w./]+)`\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHANCE = 0.1  # ten digits, as many of each


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """The text of each file of the example by its path."""
    return dict(FILE.findall((REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")))


@pytest.fixture
def dropped_in(files, monkeypatch, tmp_path) -> Path:
    """A folder with the files in their places, whose module is one of tfhash.methods."""
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    folder = tmp_path / "tfhash" / "methods"
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    yield tmp_path
    sys.modules.pop("tfhash.methods.toy", None)
    vars(methods).pop("toy", None)


def test_the_example_is_three_short_files(files):
    assert list(files) == [
        "tfhash/methods/toy.py", "tests/methods/test_toy.py", "configs/toy.flags"
    ]  # fmt: skip
    assert len(files["tfhash/methods/toy.py"].splitlines()) <= 70


def test_its_flagfile_trains_it(command, dropped_in):
    """With an eighth of the steps it is well above chance."""
    ended = command(
        train,
        f"--flagfile={dropped_in / 'configs' / 'toy.flags'}",
        "--steps=100",
        "--checkpoint_every=50",
        "--toy.hash_schedule=constant",
        f"--model_dir={dropped_in / 'run'}",
    )
    assert ended.status == 0, ended.errors
    assert "Toy, stage 1 of 1 (hash network): step 100 of 100" in ended.output
    assert json.loads((dropped_in / "run" / "metrics.json").read_text())["map"] > 3 * CHANCE


def test_its_own_tests_pass(files, dropped_in):
    names: dict = {}
    text = files["tests/methods/test_toy.py"]
    exec(compile(text, "CONTRIBUTING.md: tests/methods/test_toy.py", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
