"""Headers of flagfiles, from runs."""

from __future__ import annotations

import json

import pytest

from tfhash import train
from tfhash.benchmark import headers
from tfhash.errors import UserError

TEXT = """# LSH on the digits.
#
# command:   python -m tfhash.train --flagfile=configs/lsh.flags
# hardware:  two CPU cores
# run time:  about 9 hours, and once 4 minutes for features
# mAP:       not run here
--method=lsh
--code_length=8
"""


@pytest.fixture
def flagfile(tmp_path):
    path = tmp_path / "lsh.flags"
    path.write_text(TEXT)
    (tmp_path / "other.flags").write_text(TEXT.replace("=8", "=9"))
    matrix = tmp_path / "matrix.flags"
    matrix.write_text(TEXT.replace("--method=lsh", "--methods=lsh,sh"))
    (tmp_path / "longer.flags").write_text(
        f"# Longer codes.\n--flagfile={matrix}\n--code_length=9\n"
    )
    return path


def run_of(*arguments, **values):
    given = train.parse(["--method=lsh", "--code_length=8", *arguments])
    run = {"method": "lsh", "dataset": "digits", "protocol": "p", "code_length": 8}
    return run | {"flags": given.values, "seed": given.experiment.seed} | values


def test_the_header_has_the_means_of_the_runs_of_these_flags(flagfile):
    """Times 100, 160: 130 s. mAP .4, .5: .45 ± .0707. Runs of other flags have no say."""
    runs = [
        run_of("--seed=10", "--data_dir=a", map=0.4, train_seconds=100.0),
        run_of("--seed=2", "--weights=b.npz", map=0.5, train_seconds=160.0),
        run_of("--seed=3", "--labelled_per_class=99", map=0.9, train_seconds=9.0),
        run_of("--seed=2", "--weights=b.npz", map=0.5, train_seconds=160.0),
        {"method": "lsh", "code_length": 8, "map": 0.9, "dataset": "digits", "protocol": "p"},
    ]
    assert headers.update(flagfile.parent, runs[:3]) == [flagfile]
    expected = TEXT.replace("about 9 hours", "2 min 10 s of training")
    expected = expected.replace("not run here", "0.450 ± 0.071 (seeds 2, 10)")
    assert flagfile.read_text() == expected
    assert headers.update(flagfile.parent, runs[:3]) == []  # nothing new
    assert headers.update(flagfile.parent, runs) == []
    assert (flagfile.parent / "other.flags").read_text() == TEXT.replace("=8", "=9")


def test_seeds_in_a_row_and_short_times(flagfile):
    runs = [run_of(f"--seed={seed}", map=0.5, train_seconds=0.25) for seed in (4, 3, 5)]
    headers.update(flagfile.parent, runs)
    assert "# run time:  0.2 s of training, and once" in flagfile.read_text()
    assert "# mAP:       0.500 ± 0.000 (seeds 3 to 5)\n" in flagfile.read_text()


def test_a_single_run_has_no_deviation(flagfile):
    headers.update(flagfile.parent, [run_of("--seed=4", map=0.5, train_seconds=59.4)])
    assert "# run time:  59 s of training, and once" in flagfile.read_text()
    assert "# mAP:       0.500 (seed 4)\n" in flagfile.read_text()


def test_a_folder_without_flagfiles_is_refused(tmp_path):
    with pytest.raises(UserError, match="--flagfiles: no flagfile in"):
        headers.update(tmp_path, [])


def test_the_command(command, flagfile, tmp_path):
    run = run_of("--seed=4", map=0.5, train_seconds=59.4)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "metrics.json").write_text(json.dumps(run))
    ended = command(headers, f"{tmp_path}/runs", f"--flagfiles={tmp_path}")
    assert (ended.status, ended.output) == (0, f"wrote {flagfile}\n")
    assert "(seed 4)" in flagfile.read_text()
    assert "no folder given" in command(headers).line("tfhash.benchmark.headers")
