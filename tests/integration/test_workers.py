"""Two real workers: one is killed, the other ends, and both go on to the same end."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from tfhash import train
from tfhash.deploy_training import __main__ as deploy_training

# It keeps the newest scores of all labelled images, in its checkpoints too.
FLAGS = """--method=dpsh --groups=2 --steps=40 --checkpoint_every=10 --batch_size=8 --code_length=12
    --backbone=small_cnn --dpsh.centred_start --dpsh.hash_optimizer=adamw
    --dpsh.hash_learning_rate=1e-3""".split()
LAST = "checkpoints/hash-00000040.weights.h5"
# What is not the same in two runs of the same.
OWN = ("train_seconds", "hash_seconds", "command", "flags", "places")


@pytest.fixture(scope="module")
def files(command, tmp_path_factory, free_ports) -> Path:
    """What tfhash.deploy_training writes for FLAGS."""
    folder = tmp_path_factory.mktemp("files")
    more = ["--workers=2", f"--output={folder}", f"--port={free_ports(1)[0]}"]
    ended = command(deploy_training, *FLAGS, *more)
    assert ended.status == 0, ended
    return folder


def launch(
    python: str, files: Path, directory: Path, ports: list[int]
) -> subprocess.CompletedProcess:
    """run_local.sh, with no second try."""
    environment = {"PYTHON": python, "PORT": str(ports[0]), "RESTARTS": "0"}
    return subprocess.run(
        [files / "run_local.sh", f"--model_dir={directory}"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
    )


@pytest.fixture
def start(python, free_ports, tmp_path) -> Iterator[Callable[[Path], list[subprocess.Popen]]]:
    """start(folder): the two workers as one starts them by hand; their errors are in tmp_path."""
    started = []

    def both(directory: Path) -> list[subprocess.Popen]:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
        processes = []
        for index in range(2):
            task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            command = [python, "-m", train.NAME, "--strategy=multi_worker", *FLAGS]
            with open(tmp_path / f"errors{index}", "w") as errors:
                processes.append(
                    subprocess.Popen(
                        [*command, f"--model_dir={directory}"],
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                        env=os.environ | {"TF_CONFIG": json.dumps(task)},
                    )
                )
        started.extend(processes)
        return processes

    yield both
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def undisturbed(python, files, tmp_path_factory, free_ports) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    process = launch(python, files, directory, free_ports(2, in_a_row=True))
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stderr == ""
    assert process.stdout.count("run folder:") == 1  # what the second one prints is not shown
    return directory


def arrays(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return found


def wait_for(path: Path, processes: list[subprocess.Popen]) -> None:
    end = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < end and all(process.poll() is None for process in processes)
        time.sleep(0.02)


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.long)])
def test_a_worker_that_is_killed_changes_nothing(
    victim, undisturbed, python, files, start, free_ports, tmp_path
):
    """The first one is where the workers meet, so that without it the others end another way."""
    directory = tmp_path / "run"
    workers = start(directory)
    wait_for(directory / "checkpoints" / "hash-00000010.weights.h5", workers)
    workers[victim].kill()
    begun = time.monotonic()
    other = workers[1 - victim]
    assert other.wait(timeout=120) == 1
    (line,) = (tmp_path / f"errors{1 - victim}").read_text().splitlines()
    assert line.startswith("tfhash.train: error: another worker is gone (")
    assert "the same command on all of them goes on from the last checkpoint" in line
    assert not (directory / LAST).exists(), f"it ended before, {time.monotonic() - begun:.0f} s"
    process = launch(python, files, directory, free_ports(2, in_a_row=True))
    assert process.returncode == 0, process.stderr[-3000:]
    assert ", from step " in process.stdout
    for part in ("query", "database"):
        one, two = (np.load(run / "codes" / f"{part}.npz") for run in (undisturbed, directory))
        assert np.array_equal(one["codes"], two["codes"])
    one, two = (arrays(run / LAST) for run in (undisturbed, directory))
    assert one.keys() == two.keys() and len(one) > 10
    before = arrays(undisturbed / LAST.replace("40", "30"))
    assert sum(not np.array_equal(one[name], before[name]) for name in one) > 10  # it learns
    assert [name for name in one if not np.array_equal(one[name], two[name])] == []
    one, two = (json.loads((run / "metrics.json").read_text()) for run in (undisturbed, directory))
    assert [name for name in one if name not in OWN and one[name] != two[name]] == []
