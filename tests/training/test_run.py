"""The run folder is claimed by the work in it, and by nothing else."""

from __future__ import annotations

import json

import pytest

from tfhash.errors import UserError
from tfhash.training.run import WORK, Run


@pytest.mark.parametrize("work", WORK)
def test_a_folder_with_work_keeps_its_values(tmp_path, work):
    run = Run(tmp_path)
    run.claim("config.json", {"bits": 8})
    (tmp_path / work).mkdir()
    run.claim("config.json", {"bits": 8})
    with pytest.raises(UserError, match="`bits`: 12, but .* was made with 8"):
        run.claim("config.json", {"bits": 12})


def test_a_folder_without_work_takes_new_values(tmp_path):
    """As after a mistake of the user, which ended the run before it learned anything."""
    for bits in (8, 12):
        Run(tmp_path).claim("config.json", {"bits": bits})
    assert json.loads((tmp_path / "config.json").read_text()) == {"bits": 12}


def test_a_process_that_does_not_write_only_compares(tmp_path):
    second = Run(tmp_path, writes=False)
    second.claim("config.json", {"bits": 8})
    second.write_json("metrics.json", {})
    assert list(tmp_path.iterdir()) == []
    Run(tmp_path).claim("config.json", {"bits": 8})
    (tmp_path / WORK[0]).mkdir()
    with pytest.raises(UserError, match="`bits`: 12"):
        second.claim("config.json", {"bits": 12})


def test_without_a_folder_nothing_is_claimed_or_written():
    run = Run()
    run.claim("config.json", {"bits": 8})
    run.write_json("metrics.json", {})
    assert run.folder("logs") is None and not run.writes


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    run = Run(tmp_path / "file" / "run")
    for write in (
        lambda: run.claim("config.json", {}),
        lambda: run.write_text("flags.txt", ""),
    ):
        with pytest.raises(UserError, match="cannot write to"):
            write()
