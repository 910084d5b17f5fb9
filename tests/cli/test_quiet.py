"""TensorFlow's noise and a user's stderr, each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tfhash.cli import quiet

LSH = "--method=lsh --dataset=digits --code_length=8 --image_size=8".split()
# What tfhash.train does first, then a warning and a line of TensorFlow's C++ log.
WARNS = """
from tfhash.cli import quiet
quiet.start()
import warnings
warnings.warn("mind the labels")
"""
BROKEN = """
import sys
from pathlib import Path
Path("tensorflow.py").write_text("import sys; print('half', file=sys.stderr); import no_such")
sys.path.insert(0, ".")
from tfhash.cli import quiet
quiet.start()
"""


@pytest.fixture
def run(tmp_path):
    """run(*arguments): Python in an empty folder, without what silences TensorFlow outside."""
    hidden = ("TF_CPP_MIN_LOG_LEVEL", "GRPC_VERBOSITY", "PYTHONWARNINGS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}

    def start(*arguments: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
        )

    return start


def test_a_training_writes_nothing_to_stderr(run, tmp_path):
    flags = [*LSH, f"--model_dir={tmp_path}/run", f"--cache_dir={tmp_path}/cache"]
    process = run("-m", "tfhash.train", *flags)
    assert (process.returncode, process.stderr) == (0, "")
    assert "mAP" in process.stdout


def test_tensorflow_speaks_where_verbosity_asks_for_it(run):
    process = run("-m", "tfhash.train", "--verbosity=1", "--ties=nosuch")
    assert process.returncode == 2
    *lines, last = process.stderr.splitlines()
    assert last.startswith("tfhash.train: error: --ties")
    assert any(".cc:" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "environment", "silent"),
    [
        (["--vary=seed=1", "--name=-v", "run"], {}, True),
        (["--verbosity=1"], {}, False),
        (["-verbosity", "1"], {}, False),
        (["-v=1"], {}, False),
        (["-v", "1"], {}, False),
        ([], {"TF_CPP_MIN_LOG_LEVEL": "1"}, False),
        ([], {"TF_CPP_MIN_LOG_LEVEL": "3"}, True),
    ],
)
def test_who_asks_for_its_words_gets_them(monkeypatch, arguments, environment, silent):
    """A module that is there already in place of TensorFlow: importing it costs nothing."""
    monkeypatch.setattr(quiet.sys, "argv", ["tfhash.train", *arguments])
    monkeypatch.setattr(quiet.os, "environ", dict(environment))
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    imported = []
    monkeypatch.setattr("builtins.__import__", lambda name, *_: imported.append(name))
    quiet.start()
    assert imported == ["tensorflow"] * silent
    level = "3" if silent else environment.get("TF_CPP_MIN_LOG_LEVEL")
    assert quiet.os.environ.get("TF_CPP_MIN_LOG_LEVEL") == level


def test_a_warning_of_python_is_seen(run):
    process = run("-c", WARNS)
    assert process.returncode == 0
    line, *_ = process.stderr.splitlines()
    assert line.endswith("UserWarning: mind the labels")
    assert ".cc:" not in process.stderr


def test_what_kept_tensorflow_from_being_imported_is_seen(run):
    process = run("-c", BROKEN)
    assert process.returncode == 1
    assert process.stderr.startswith("half\n")
    assert "No module named 'no_such'" in process.stderr


@pytest.mark.parametrize("name", ["benchmark", "export"])
def test_no_command_is_noisy_before_it_does_anything(run, name):
    process = run("-m", f"tfhash.{name}", "--nosuchflag")
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"tfhash.{name}: error: ")


@pytest.mark.parametrize("name", ["server", "encode"])
def test_nor_is_one_of_serving(run, name):
    pytest.importorskip("tensorflow_serving", reason="needs the extra serving")
    process = run("-m", f"tfhash.serving.{name}", "--nosuchflag")
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"tfhash.serving.{name}: error: ")
