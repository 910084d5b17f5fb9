"""A run folder from elsewhere: nothing that it says runs code, or is written to."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import tfhash
import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import train
from tfhash.benchmark import __main__ as benchmark
from tfhash.cli import flags as config_flags
from tfhash.export import __main__ as export
from tfhash.runs import folder


@pytest.fixture
def theirs(lsh_run, tmp_path):
    """theirs(flags): a run folder from elsewhere, whose metrics.json has these flags changed."""

    def make(**changes) -> Path:
        directory = tmp_path / "theirs"
        shutil.copytree(lsh_run, directory)
        path = directory / "metrics.json"
        metrics = json.loads(path.read_text())
        metrics["flags"] |= changes
        path.write_text(json.dumps(metrics))
        return directory

    return make


class Evil:
    """Its pickle makes a folder when it is read, as it could do anything."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (os.fspath(self.path),)


@pytest.fixture
def pickled(tmp_path) -> tuple[Path, Path]:
    """Weights that are a pickle, and what is there once it was read."""
    path, mark = tmp_path / "evil.npy", tmp_path / "its code has run"
    np.save(path, np.array({"conv1": Evil(mark)}, object), allow_pickle=True)
    return path, mark


def test_a_run_from_elsewhere_runs_no_code(command, theirs, pickled):
    weights, mark = pickled
    evil = {"features": "backbone", "weights": str(weights), "allow_pickle_weights": True}
    directory = theirs(**evil)
    for module, option in ((export, "--noverify"), (evaluate, "--encode")):
        line = command(module, f"--model_dir={directory}", option).line(module.NAME)
        assert f"--weights: {weights} is a pickle" in line and "--allow_pickle_weights" in line
    with pytest.raises(tfhash.UserError, match="`weights`: .* is a pickle"):
        tfhash.load(directory).encoder  # noqa: B018
    assert not mark.exists()
    # Its owner may still ask for it, which shows that the pickle would have done it.
    command(export, f"--model_dir={directory}", "--noverify", "--allow_pickle_weights")
    assert mark.is_dir()


def test_nor_does_a_saved_hasher_from_elsewhere(lsh_run, pickled, tmp_path):
    weights, mark = pickled
    directory = tmp_path / "saved"
    tfhash.load(lsh_run).save(directory)
    path = directory / "hasher.json"
    description = json.loads(path.read_text())
    description["settings"] |= {"features": "backbone", "weights": str(weights)}
    description["settings"] |= {"allow_pickle_weights": True}
    path.write_text(json.dumps(description))
    with pytest.raises(tfhash.UserError, match="`weights`: .* is a pickle"):
        tfhash.load(directory).encoder  # noqa: B018
    assert not mark.exists()


@pytest.mark.parametrize("module", [train, export, evaluate, benchmark])
def test_nor_does_a_flagfile(command, theirs, pickled, tmp_path, module):
    weights, mark = pickled
    flagfile = tmp_path / "flags.txt"
    flagfile.write_text(f"--weights={weights}\n--allow_pickle_weights\n")
    needed = {
        train: ["--method=lsh", "--features=backbone", f"--model_dir={tmp_path}/run"],
        benchmark: ["--methods=lsh", "--features=backbone", f"--out={tmp_path}/runs"],
    }.get(module, [f"--model_dir={theirs()}"])
    ended = command(module, "--noallow_pickle_weights", f"--flagfile={flagfile}", *needed)
    assert "--allow_pickle_weights: stands in a flagfile" in ended.line(module.NAME)
    assert not mark.exists()


def test_nor_a_flagfile_that_a_matrix_names(command, pickled, tmp_path):
    flagfile = tmp_path / "theirs.flags"
    flagfile.write_text(f"--method=lsh\n--weights={pickled[0]}\n--allow_pickle_weights=true\n")
    ended = command(benchmark, f"--methods={flagfile}", f"--out={tmp_path}/runs", "--dry_run")
    assert "--allow_pickle_weights: stands in a flagfile" in ended.line(benchmark.NAME)


@pytest.mark.parametrize("given", ["--allow_pickle_weights", "-allow_pickle_weights=true"])
def test_on_the_command_line_a_pickle_may_be_allowed(configurations, given):
    assert configurations(given).settings.allow_pickle_weights
    config_flags.check_own([given, "--flagfile=any"])


def test_what_a_run_folder_says_to_write_to_is_not_written_to(
    command, theirs, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    directory = theirs(cache_dir=str(tmp_path / "elsewhere"))
    assert command(evaluate, f"--model_dir={directory}", "--encode").status == 0
    tfhash.load(directory).encode(np.zeros((2, 16, 16, 3), np.uint8))
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "home" / ".cache" / "tfhash").is_dir()
    own = f"--cache_dir={tmp_path}/mine"
    assert command(evaluate, f"--model_dir={directory}", "--encode", own).status == 0
    assert (tmp_path / "mine").is_dir()


def test_a_run_of_before_had_its_copies_anywhere(theirs):
    """Its split, and with it the fingerprint, is that of --duplicates=keep."""
    directory = theirs()
    assert folder.read(directory)[0].experiment.duplicates is None
    metrics = json.loads((directory / "metrics.json").read_text())
    del metrics["flags"]["duplicates"]
    (directory / "metrics.json").write_text(json.dumps(metrics))
    assert folder.read(directory)[0].experiment.duplicates == "keep"


# Contents of metrics.json, as the one of a finished run changed to them.
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"flags": {}}, "metrics.json has no 'method'"),
        ({"flags": {"method": 5}}, "no finished run"),
        ({"flags": []}, "no finished run"),
        ({"flags": {"method": "lsh", "map_at": "x"}}, "no finished run"),
        ({"flags": {"method": "lsh", "code_length": 16}, "places": [1]}, "metrics.json has no "),
    ],
)
@pytest.mark.parametrize("module", [export, evaluate])
def test_metrics_json_that_lacks_what_is_needed_is_one_line(
    command, lsh_run, tmp_path, module, content, words
):
    directory = tmp_path / "run"
    shutil.copytree(lsh_run, directory)
    (directory / "metrics.json").write_text(json.dumps(content))
    line = command(module, f"--model_dir={directory}").line(module.NAME)
    assert "--model_dir: " in line and words in line
