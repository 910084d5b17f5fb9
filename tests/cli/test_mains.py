"""tfhash.cli.mains, each case in its own process: absl parses flags once per process."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tfhash.cli import mains

_COMMAND = """
from absl import flags
from tfhash.cli import mains
from tfhash.errors import UserError

_MODES = ["fine", "status", "mistake", "bug", "long", "pipe"]
_MODE = flags.DEFINE_enum("mode", None, _MODES, "", required=True)

def main(argv):
    if _MODE.value == "mistake":
        raise UserError("--count: received 0,\\n  allowed is 1 or more")
    if _MODE.value == "bug":
        raise ValueError("unforeseen")
    for _ in range(100_000 if _MODE.value == "long" else 0):
        print("a line of a long answer")
    if _MODE.value == "pipe":
        raise BrokenPipeError("of a worker")
    return 3 if _MODE.value == "status" else None

mains.run("tfhash.tiny", main)
"""


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize(("mode", "status"), [("fine", 0), ("status", 3)])
def test_the_exit_status_is_what_main_returns(mode, status):
    process = _run(f"--mode={mode}")
    assert (process.returncode, process.stderr) == (status, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mode=mistake"], "--count: received 0, allowed is 1 or more"),
        ([], "--mode"),
        (["--mode=other"], "--mode=other"),
        (["--mdoe=fine"], "mdoe"),
        (["--mode=fine", "--flagfile=no/such/file"], "no/such/file"),
        (["--mode=fine", "runs/first"], "unexpected argument 'runs/first'"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_status_2(arguments, words):
    process = _run(*arguments)
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith("tfhash.tiny: error: ")
    assert words in line


def test_any_other_error_keeps_its_traceback():
    process = _run("--mode=bug")
    assert process.returncode == 1
    assert "Traceback" in process.stderr and "ValueError: unforeseen" in process.stderr


@pytest.mark.parametrize("arguments", [["--mode=long"], ["--help"]])
def test_a_reader_that_leaves_ends_it_without_a_word(arguments):
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 1)


def test_a_pipe_to_others_that_breaks_keeps_its_traceback():
    process = _run("--mode=pipe")
    assert process.returncode == 1 and "BrokenPipeError: of a worker" in process.stderr


def test_a_missing_extra_is_one_line_and_status_2(capsys):
    mains.require("tfhash.tried", "serving", "sys", "absl")
    with pytest.raises(SystemExit) as ended:
        mains.require("tfhash.tried", "serving", "absl", "no_such_package", "nor_this")
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "tfhash.tried: error: not installed: no_such_package, nor_this; the extra serving of "
        "tfhash brings it\n"
    )


def test_each_figure_of_a_table_stands_apart_from_its_name(capsys):
    shown = dict.fromkeys(("triplet_accuracy", "class_accuracy", "precision_at100"), 0.25)
    facts = {"method": "x", "code_length": 8, "dataset": "y", "protocol": "z", "ties": "expected"}
    sizes = {"split_fingerprint": "0", "query_count": 1, "database_size": 1}
    more = {"map": 0.5, "map_at5000": 0.5, "precision_radius2": 0.5}
    mains.print_table(facts | sizes | shown | more)
    _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 6
    assert all(re.fullmatch(r"  \S.* 0\.\d{4}", row) for row in rows), rows
    mains.print_table(facts | sizes | {"map": 0.5, "proxy": "a proxy for z"})
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  y is a proxy for z",
        "  mAP                         0.5000",
    ]


def test_a_required_flag_that_is_missing_is_named(command):
    """absl alone would say that a flag must have a value other than None, twice in one line."""
    from tfhash.benchmark import __main__ as benchmark

    ended = command(benchmark, "--seeds=0")
    assert (ended.status, ended.errors) == (
        2,
        "tfhash.benchmark: error: missing: --methods, --out\n",
    )


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("ascii:strict", rb"caf\xe9 \u72ac"), ("utf-8:strict", rb"caf\xe9 " + "犬".encode())],
)
def test_any_name_is_printed_and_logged(encoding, expected):
    code = """
from absl import logging
from tfhash.cli import mains

def main(argv):
    print("caf\\udce9 \\u72ac")
    logging.warning("caf\\udce9 \\u72ac")
    mains.print_error("tfhash.tiny", "caf\\udce9 \\u72ac \\x1b[31m")

mains.run("tfhash.tiny", main)
"""
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == expected + b"\n"
    logged, error = ended.stderr.splitlines()
    assert logged.endswith(expected)
    assert error == b"tfhash.tiny: error: " + expected + rb" \x1b[31m"
