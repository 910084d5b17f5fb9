"""Several workers: what TF_CONFIG may say, and that what cannot work ends in one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess

import pytest
import tensorflow as tf

from tfhash import train
from tfhash.errors import NotNowError, UserError
from tfhash.training.strategies import make_strategy
from tfhash.training.workers import check_same, read_cluster, together

WORKERS = {"worker": ["a:1", "b:1"]}
OF_FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "first"),
    [
        (WORKERS, "worker", 0, True),
        (WORKERS, "worker", 1, False),
        (WORKERS | {"chief": ["c:1"]}, "chief", 0, True),
        (WORKERS | {"chief": ["c:1"]}, "worker", 0, False),
        ({"chief": ["c:1"]}, "chief", 0, True),
    ],
)
def test_the_chief_is_first_or_the_first_worker_where_there_is_none(cluster, kind, index, first):
    found = read_cluster(json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
    assert found.is_first is first
    assert found.address == cluster[kind][index]
    assert found.count == sum(len(addresses) for addresses in cluster.values())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "missing"),
        ("", "missing"),
        ("{'cluster'", "no JSON .*{'cluster'"),
        ("[]", "no workers"),
        ("{}", "no workers"),
        ({"cluster": ["a:1"], "task": OF_FIRST}, "no workers"),
        ({"cluster": {"worker": []}, "task": OF_FIRST}, "no workers"),
        ({"cluster": WORKERS | {"ps": ["c:1"]}, "task": OF_FIRST}, "'ps' .*chief, worker"),
        ({"cluster": {"worker": "a:1"}, "task": OF_FIRST}, 'worker: "a:1"; .*list of host:port'),
        ({"cluster": {"worker": ["a"]}, "task": OF_FIRST}, "list of host:port"),
        ({"cluster": {"worker": ["a:0"]}, "task": OF_FIRST}, "list of host:port"),
        ({"cluster": {"worker": ["a:65536"]}, "task": OF_FIRST}, "list of host:port"),
        ({"cluster": {"worker": [":1"]}, "task": OF_FIRST}, "list of host:port"),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": OF_FIRST}, "one address twice"),
        ({"cluster": WORKERS | {"chief": ["c:1", "d:1"]}, "task": OF_FIRST}, "two chiefs"),
        ({"cluster": WORKERS}, "task null; allowed as its type: worker"),
        ({"cluster": WORKERS, "task": {"type": "chief", "index": 0}}, "as its type: worker"),
        ({"cluster": WORKERS, "task": {"type": "worker"}}, "index null; .* a worker: 0 to 1"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": 2}}, "index 2; .*: 0 to 1"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": -1}}, "index -1; .*: 0 to 1"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": "1"}}, 'index "1"; .*: 0 to 1'),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": True}}, "index true; .*: 0 to 1"),
    ],
)
def test_another_tf_config_is_refused(text, told):
    text = text if text is None or isinstance(text, str) else json.dumps(text)
    with pytest.raises(UserError, match=f"^TF_CONFIG: .*{told}.*`strategy`=multi_worker needs"):
        read_cluster(text)


class Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """One that has met nobody, for its kind alone."""

    def __init__(self):
        pass


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.UnavailableError(None, None, "Socket closed"),
        tf.errors.InternalError(
            None, None, "File a\n{{node a}} Collective ops is aborted by: Socket closed"
        ),
    ],
)
def test_what_others_leave_undone_becomes_one_line(error):
    with (
        pytest.raises(
            NotNowError,
            match=r"^another worker is gone \((Collective ops is aborted by: )?Socket closed\)",
        ),
        together(Workers()),
    ):
        raise error


@pytest.mark.parametrize(
    ("strategy", "error"),
    [
        (tf.distribute.get_strategy(), tf.errors.UnavailableError(None, None, "no room")),
        (Workers(), tf.errors.InvalidArgumentError(None, None, "a bug")),
    ],
)
def test_other_errors_stay_what_they_are(strategy, error):
    with pytest.raises(type(error)), together(strategy):
        raise error


def test_a_process_alone_waits_for_nobody():
    check_same(tf.distribute.get_strategy(), "nothing", 1)


def meeting(python: str, tf_config: str) -> subprocess.Popen:
    """A process that waits a second for the others, and tells what became of it."""
    script = "from tfhash.training import workers\nworkers.meet(1)"
    return subprocess.Popen(
        [python, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TF_CONFIG": tf_config},
    )


def config(index: int, *ports: int) -> str:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def test_a_meeting_that_fails_ends_soon(python, free_ports):
    """The first one alone, the second one alone, and one whose port another program has.

    Without a time to wait the first would wait for ever, and the second for an hour.
    """
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        of_first, of_second, free = free_ports(2), free_ports(2), free_ports(1)
        processes = [
            meeting(python, config(0, *of_first)),
            meeting(python, config(1, *of_second)),
            meeting(python, config(0, taken, *free)),
        ]
        try:
            ends = [process.communicate(timeout=240)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
    for index in range(2):
        told = f"not all 2 workers came within 1 s (`worker_wait`), seen from worker {index}"
        assert f"tfhash.errors.NotNowError: TF_CONFIG: {told}" in ends[index]
    assert f"NotNowError: TF_CONFIG: this worker cannot listen at 127.0.0.1:{taken}" in ends[2]


def test_the_command_names_tf_config(command, tmp_path, monkeypatch):
    """Before it makes a folder; and only where workers are asked for."""
    monkeypatch.setenv("TF_CONFIG", "{}")
    ended = command(train, "--strategy=multi_worker", f"--model_dir={tmp_path / 'run'}")
    line = ended.line("tfhash.train")
    assert "TF_CONFIG: no workers" in line and "--strategy=multi_worker needs" in line
    assert not (tmp_path / "run").exists()


def test_a_finished_run_of_workers_is_read_by_one_process(monkeypatch):
    """The strategy of workers that have met nobody is that of one device."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert make_strategy("multi_worker") is tf.distribute.get_strategy()
