"""python -m tfhash: the list of commands, in a process of its own as a user starts it."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys

import pytest

from tfhash import __main__ as tfhash_main

_SHOWN = """
import runpy, sys
sys.argv = ["tfhash"]
try:
    runpy.run_module("tfhash", run_name="__main__")
finally:
    print([name for name in ("tensorflow", "keras", "numpy", "absl") if name in sys.modules])
"""


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_it_lists_each_command_in_a_line(arguments):
    process = _run("-m", "tfhash", *arguments)
    assert (process.returncode, process.stderr) == (0, "")
    *lines, hint = process.stdout.splitlines()
    assert "--help" in hint
    found = dict(line.removeprefix("python -m tfhash.").split(maxsplit=1) for line in lines)
    assert tuple(found) == tfhash_main.COMMANDS
    assert found["train"] == "trains a method, judges it and leaves a run folder"
    assert not [text for text in found.values() if "`" in text or text.endswith(".")]


def test_nothing_that_takes_long_is_imported():
    process = _run("-c", _SHOWN)
    assert process.stdout.splitlines()[-1] == "[]"


def test_an_argument_is_one_line_and_status_2():
    process = _run("-m", "tfhash", "--help", "train")
    assert (process.returncode, process.stdout) == (2, "")
    (line,) = process.stderr.splitlines()
    assert line.startswith("tfhash: error: unexpected argument 'train'")
    assert "python -m tfhash.train" in line


def test_a_command_that_is_not_installed_is_left_out(monkeypatch, capsys):
    find_spec = importlib.util.find_spec

    def without_serving(name: str) -> importlib.machinery.ModuleSpec | None:
        if name.startswith("tfhash.serving"):
            raise ModuleNotFoundError("No module named 'tfhash.serving'")
        return None if name == "tfhash.export" else find_spec(name)

    monkeypatch.setattr(importlib.util, "find_spec", without_serving)
    assert tfhash_main.main([]) == 0
    output = capsys.readouterr().out
    assert "tfhash.top_results" in output
    assert "tfhash.serving" not in output and "tfhash.export" not in output
