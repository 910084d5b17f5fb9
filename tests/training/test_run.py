"""The run folder is claimed by the work in it, and by nothing else."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from tfhash.errors import NO_LOCKS, NotNowError, UserError
from tfhash.storage import locks
from tfhash.storage.locks import lock
from tfhash.training import run as run_module
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


@pytest.mark.parametrize("content", [None, ""])
def test_checkpoints_without_the_values_that_they_were_made_with(tmp_path, content):
    """They may be those of any flags; to go on would mix two runs."""
    run = Run(tmp_path)
    run.claim("config.json", {"bits": 8})
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "hash-00000001.weights.h5").touch()
    (tmp_path / "config.json").unlink()
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="`model_dir`: .*config.json tells"):
        run.claim("config.json", {"bits": 8})


HOLD = """
import sys
from pathlib import Path
from tfhash.storage.locks import lock
with lock(Path(sys.argv[1]), "model_dir"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_of_the_first_until_that_dies(tmp_path, holder):
    words = f"`model_dir`: process {holder.pid} works in {tmp_path}; allowed: "
    with pytest.raises(NotNowError, match=words) as error, Run(tmp_path).alone():
        pass
    assert error.value.status == 1
    with Run(tmp_path, writes=False).alone():  # one of several workers, whose chief holds it
        pass
    holder.kill()
    holder.wait()
    with Run(tmp_path).alone():
        pass


def test_who_waits_gets_the_folder_when_it_is_free(tmp_path, holder, capsys):
    threading.Timer(0.2, holder.kill).start()
    with lock(tmp_path, "stage1_dir", wait=True):
        assert holder.wait() == -signal.SIGKILL
    told = capsys.readouterr().out
    assert told == f"process {holder.pid} works in {tmp_path}: this one waits for it\n"


def test_a_folder_is_free_again_afterwards_and_leftovers_are_removed(tmp_path):
    leftovers = [tmp_path / ".metrics.json.tmp-7", tmp_path / "codes" / ".query.tmp-7.npz"]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for _ in range(2):
        with Run(tmp_path).alone():
            assert not any(path.exists() for path in leftovers)


@pytest.fixture
def flock_fails(monkeypatch):
    """flock_fails(number): from now on it ends with this number of an error."""

    def fail(number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(locks.fcntl, "flock", flock)

    return fail


@pytest.mark.parametrize("number", sorted(NO_LOCKS))
def test_a_file_system_without_locks_is_no_reason_not_to_work(tmp_path, flock_fails, number):
    flock_fails(number)
    with Run(tmp_path).alone():
        (tmp_path / "done").touch()
    assert (tmp_path / "done").exists()


def test_any_other_failure_of_a_lock_is_told(tmp_path, flock_fails):
    flock_fails(errno.EIO)
    with pytest.raises(UserError, match="`model_dir`: cannot write to .*Input/output error"):
        with Run(tmp_path).alone():
            pass


def test_a_file_that_does_not_fit_leaves_what_was_there(tmp_path, file_size_limit):
    run_module.write_text(tmp_path / "a.json", "old")
    with file_size_limit(4096), pytest.raises(OSError, match="File too large"):
        run_module.write_text(tmp_path / "a.json", "x" * 9000)
    assert (tmp_path / "a.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
