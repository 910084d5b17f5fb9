"""Matrices that are trained: cells that fail, workers that are killed, interruptions."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tfhash import train
from tfhash.benchmark import __main__ as benchmark

TINY = """
--steps=40 --checkpoint_every=2 --batch_size=6 --unlabelled_batch_size=0 --mixed_bfloat16
--ssgah.variant=baseline --ssgah.hidden_units=8
""".split()

# With 1000 labelled images a class, which the digits have not, each cell ends at once. In the
# others lsh comes after ssgah, which leaves another precision to a process, in the same process.
MATRIX = ["--code_lengths=8", "--seeds=0,1", "--vary=labelled_per_class=1000,10"]


def name(method: str, labelled: int, seed: int) -> str:
    return f"{method}_8_labelled_per_class-{labelled}_seed{seed}"


DONE = [name("ssgah", 10, 0), name("lsh", 10, 0)]
KILLED, BROKEN = name("ssgah", 10, 1), name("lsh", 10, 1)
FOREIGN, *REFUSED = (name(method, 1000, seed) for seed in (0, 1) for method in ("ssgah", "lsh"))


def wait_for(happened: Callable[[], object], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def once_there(path: Path, act: Callable[[], None]) -> Iterator[None]:
    """Acts, in a thread, as soon as the file is there."""

    def watch() -> None:
        wait_for(path.is_file)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


def kill_the_worker() -> None:
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)


def press_ctrl_c() -> None:
    """As in a terminal, where it reaches every process; the command's own is the last here."""
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)
    time.sleep(0.3)  # for what the worker would say
    os.kill(os.getpid(), signal.SIGINT)


class Matrix:
    """The same matrix twice: with mishaps; and, those mended, until Ctrl-C in its last cell."""

    def __init__(self, command: Callable, out: Path):
        self.out = out
        self.flags = [*MATRIX, f"--out={out}", f"--cache_dir={out}/cache", *TINY]
        foreign = out / FOREIGN
        (foreign / "checkpoints").mkdir(parents=True)
        (foreign / "config.json").write_text('{"method": "itq"}')
        in_place_of_a_folder = out / BROKEN / "codes"
        in_place_of_a_folder.parent.mkdir()
        in_place_of_a_folder.touch()
        with once_there(self.checkpoint_of_killed(2), kill_the_worker):
            self.first = command(benchmark, "--methods=ssgah,lsh", *self.flags)
        self.error = (out / BROKEN / "error.txt").read_text()
        in_place_of_a_folder.unlink()
        with once_there(self.checkpoint_of_killed(12), press_ctrl_c):
            self.second = command(benchmark, "--methods=lsh,ssgah", *self.flags)

    def checkpoint_of_killed(self, step: int) -> Path:
        return self.out / KILLED / "checkpoints" / f"hash-{step:08d}.weights.h5"

    def metrics(self, cell: str) -> dict:
        return json.loads((self.out / cell / "metrics.json").read_text())


@pytest.fixture(scope="module")
def ended(command, tmp_path_factory) -> Matrix:
    return Matrix(command, tmp_path_factory.mktemp("matrix") / "out")


def test_the_other_cells_outlive_a_failure_and_a_killed_worker(ended):
    assert ended.first.status == 1
    title, *lines = ended.first.errors.splitlines()
    assert title == "6 of 8 cells failed:"
    found = dict(line.removeprefix("  ").split(": ", 1) for line in lines)
    assert found.keys() == {FOREIGN, *REFUSED, KILLED, BROKEN}
    assert all("1020 are needed" in found[refused] for refused in REFUSED)
    assert found[FOREIGN].startswith(f"--method: 'ssgah', but {ended.out / FOREIGN} was made with ")
    assert found[KILLED] == "its process was ended by SIGKILL (out of memory?)"
    assert found[BROKEN].startswith("FileExistsError: ")
    assert found[BROKEN].endswith(f" ({ended.out / BROKEN}/error.txt)")
    assert ended.error.startswith("Traceback") and "FileExistsError" in ended.error


def test_each_cell_is_one_line_of_progress(ended):
    *lines, head, row, other, hint = ended.first.output.splitlines()
    assert len(lines) == 8 + 2  # the rows of cells that were refused, too
    for number, line in enumerate(lines[:8], start=1):
        assert line.startswith(f"{number}/8 ") and line.endswith(" left)")
    for cell in DONE:
        (line,) = (line for line in lines if cell in line)
        assert f" {cell}: mAP {ended.metrics(cell)['map']:.4f} (" in line
    assert hint == f"more of it: python -m tfhash.report {ended.out}"


def test_the_same_command_skips_what_is_done_and_goes_on(ended):
    first, *lines = ended.second.output.splitlines()
    assert first == "2 of 8 cells are done already"
    assert [cell for cell in DONE if cell in "".join(lines)] == []
    assert f"7/8 {BROKEN}: mAP {ended.metrics(BROKEN)['map']:.4f} (" in lines[-1]
    assert not (ended.out / BROKEN / "error.txt").exists()
    log = (ended.out / KILLED / "log.txt").read_text()
    killed, again = log.split("python -m tfhash.train ")[1:]
    assert "stage 1 of 1 (hash network): 40 updates\n" in killed
    assert "stage 1 of 1 (hash network): 40 updates, from step " in again
    assert "40 updates\n" not in again


def test_ctrl_c_stops_the_worker_and_says_how_to_go_on(ended):
    assert ended.second.status == 130
    assert ended.second.errors == (
        "tfhash.benchmark: error: interrupted; 3 of 8 cells are done, the same command goes on\n"
    )
    assert multiprocessing.active_children() == []
    assert "KeyboardInterrupt" not in (ended.out / KILLED / "log.txt").read_text()
    assert not (ended.out / KILLED / "metrics.json").exists()


def test_done_is_what_was_made_from_the_same_deciding_flags(ended, command):
    """--radius decides what metrics.json says, --name does not."""

    def done(*flags: str) -> set[str]:
        lines = command(benchmark, "--methods=ssgah,lsh", *ended.flags, "--dry_run", *flags)
        return {line.split("/")[-1].removesuffix("  # done")
                for line in lines.output.splitlines() if line.endswith("# done")}  # fmt: skip

    assert done() == done("--name=other") == {*DONE, BROKEN}
    assert done("--radius=1") == set()


@pytest.mark.parametrize("cell", DONE)
def test_a_cell_alone_gives_the_same_codes(ended, command, tmp_path, cell):
    arguments = shlex.split(ended.metrics(cell)["command"])[3:]
    assert arguments[-1] == f"--model_dir={ended.out / cell}"
    assert command(train, *arguments[:-1], f"--model_dir={tmp_path}").status == 0
    for part in ("query", "database"):
        with (
            np.load(ended.out / cell / "codes" / f"{part}.npz") as of_matrix,
            np.load(tmp_path / "codes" / f"{part}.npz") as alone,
        ):
            assert sorted(of_matrix) == sorted(alone) == ["codes", "ids", "labels"]
            for array in alone:
                np.testing.assert_array_equal(of_matrix[array], alone[array])


def test_sigterm_is_as_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), benchmark._terminated_as_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert signal.getsignal(signal.SIGTERM) is before


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in Linux's /proc")
def test_no_worker_outlives_a_command_that_is_killed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", benchmark.NAME, "--methods=ssgah", "--code_lengths=8",
         "--seeds=0,1", "--workers=2", f"--out={tmp_path}", *TINY, "--steps=1000000",
         "--checkpoint_every=1000000"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: len(list(tmp_path.glob("*/log.txt"))) == 2)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=30)
