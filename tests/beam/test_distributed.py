"""Runs in several processes and over the portable API, and a worker that is killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("apache_beam", reason="needs Apache Beam: `make beam`")

from tests.beam import rows
from tests.beam.conftest import SECONDS
from tests.serving.conftest import JPEG, FakeServer

TWO = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=SECONDS)
    return process.returncode, output, errors


def contents(folder: str = "out") -> dict[str, bytes]:
    """The bytes of everything that a run has written, by name."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@pytest.fixture
def job_server():
    """The address of a local job service, which speaks what those of Flink and Spark do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = "apache_beam.runners.portability.local_job_service_main"
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


def test_every_way_to_run_makes_the_same_files(photos, bulk, start, job_server, codes_of):
    """In this process, in two processes, and over the portable API; codes are the SavedModel's."""
    two = start(*TWO, output="two/codes@4.parquet")
    portable = start(
        "--runner=PortableRunner",
        f"--job_endpoint={job_server}",
        "--environment_type=LOOPBACK",
        output="portable/codes@4.parquet",
    )
    assert bulk().status == 1  # for there are two files without a code
    for process in (two, portable):
        status, output, errors = ended(process)
        assert status == 1 and "40 codes of 13 bits" in output, errors
        assert "41 images read, 40 encoded, 0 as they were; 0 of 4 shards" in output
    assert contents("two") == contents("portable") == contents("out")
    paths = [str(path) for path in sorted(photos.glob("[ab]/*.png"))]
    expected = dict(zip(paths, codes_of([Path(path).read_bytes() for path in paths]), strict=True))
    assert rows.codes() == expected


def workers(process: subprocess.Popen) -> list[int]:
    """The processes of workers: Python's own, below the shell that Beam starts each with."""
    listed = subprocess.run(["ps", "-wweo", "pid,ppid,args"], capture_output=True, text=True)
    table = [line.split(None, 2) for line in listed.stdout.splitlines()[1:]]
    below = {process.pid}
    for _ in range(3):
        below |= {int(pid) for pid, parent, _ in table if int(parent) in below}
    return [
        int(pid)
        for pid, _, command in table
        if int(pid) in below and re.match(r"\S*python\S* -m \S*sdk_worker_main", command)
    ]


@pytest.fixture
def stopping():
    """A server that answers four requests, and the others once `open` is set."""
    server = FakeServer()
    server.open = threading.Event()

    def before(number, context):
        if number >= 4:
            server.open.wait(SECONDS)

    server.service.before = before
    yield server
    server.open.set()
    server.stop()


def test_a_killed_worker_costs_its_shard_alone(bulk, start, stopping, tmp_path, monkeypatch):
    """12 shards, a request each; a worker dies when four are there, for more are not answered.

    Each worker has six shards to make, so either of them has some left.
    """
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(100):
        Path(f"photos/{number:02}.jpg").write_bytes(JPEG + b"%c%d" % (number, number))
    given = {"model": None, "target": stopping.target, "output": "out/codes@12.parquet"}
    process = start(*TWO, "--timeout=300", "--batch=100", **given)
    end = time.monotonic() + SECONDS
    while (len(rows.shards()) < 4 or len(workers(process)) < 2) and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(workers(process)[0], signal.SIGKILL)
    stopping.open.set()
    status, output, errors = ended(process)  # the local runner notices it within seconds
    line = errors.splitlines()[-1]
    assert line.startswith("tfhash.serving.bulk: error: the job failed: "), errors
    assert line.endswith("finished shards are kept, the same command goes on from there")
    assert status == 1 and output == "" and "Traceback" not in errors
    finished = rows.shards()
    assert 4 <= len(finished) < 12
    before = rows.times(finished)
    asked = stopping.service.files()

    again = bulk(**given)
    assert f"; {len(finished)} of 12 shards were finished before" in again.output
    assert (again.status, again.errors) == (0, "") and "100 codes of 12 bits" in again.output
    assert rows.times(finished) == before  # not touched
    left = 100 - sum(rows.facts(path)["rows"] for path in finished)
    assert stopping.service.files() == asked + left  # what is done is not asked again
    assert {path.name for path in Path("out").iterdir()} == {
        *(f"codes-{shard:05}-of-00012.parquet" for shard in range(12)),
        "codes-errors.csv",
    }
    bulk(**(given | {"output": "undisturbed/codes@12.parquet"}))
    assert contents("out") == contents("undisturbed")
    assert len(rows.codes()) == 100
