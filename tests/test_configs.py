"""Every flagfile of configs/: it parses, and its header says how to run it and what to expect."""

from __future__ import annotations

import contextlib
import re
from itertools import takewhile
from pathlib import Path

import pytest
from absl import flags

from tfhash.benchmark import __main__ as benchmark
from tfhash.benchmark.headers import is_matrix

REPOSITORY = Path(__file__).parents[1]
FLAGFILES = sorted((REPOSITORY / "configs").glob("*.flags"))
with contextlib.chdir(REPOSITORY):
    MATRICES = list(filter(is_matrix, FLAGFILES))

each_flagfile = pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
each_training = pytest.mark.parametrize(
    "path", sorted(set(FLAGFILES) - set(MATRICES)), ids=lambda path: path.name
)


def header(path: Path) -> dict[str, str]:
    """The lines `# name: value` that the file opens with."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    matches = (re.fullmatch(r"# ([\w ]+): +(\S.*)", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def test_the_flagfile_of_the_quickstart_is_among_them():
    assert "ssgah.flags" in [path.name for path in FLAGFILES]


@each_training
def test_the_configurations_can_be_built(configurations, path):
    given = configurations(f"--flagfile={path}")
    of_methods = set(re.findall(r"^--(?:no)?(\w+)\.", path.read_text(), re.MULTILINE))
    assert of_methods <= {given.experiment.method}


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.name)
def test_the_cells_of_a_matrix_can_be_built(command, path, tmp_path):
    of_user = ["--data_dir=data", "--weights=weights.npz", f"--out={tmp_path}"]
    ended = command(benchmark, f"--flagfile={path}", *of_user, "--dry_run")
    assert ended.status == 0
    assert len(ended.output.splitlines()) >= 10


@each_flagfile
def test_the_header_has_command_hardware_run_time_and_map(path):
    found = header(path)
    main = "benchmark" if path in MATRICES else "train"
    assert found["command"].startswith(f"python -m tfhash.{main} --flagfile=configs/{path.name}")
    assert found["hardware"]
    for measured in (found["run time"], found["mAP"]):
        assert re.search(r"\d", measured) or measured in ("not run here", "results.md")


def test_an_unknown_flag_is_found(configurations, tmp_path):
    path = tmp_path / "typo.flags"
    path.write_text("# command: none\n--stepps=3\n")
    with pytest.raises(flags.UnrecognizedFlagError, match="stepps"):
        configurations(f"--flagfile={path}")


def test_the_header_ends_where_the_flags_begin(tmp_path):
    path = tmp_path / "one.flags"
    path.write_text("# On digits: fast.\n#\n# run time:  3 min\n--steps=3\n# mAP: 1\n")
    assert header(path) == {"run time": "3 min", "On digits": "fast."}
