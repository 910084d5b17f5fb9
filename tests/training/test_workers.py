"""Several workers: what TF_CONFIG may say, and that what cannot work ends in one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from tfhash.errors import NotNowError, UserError
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
            None, None, "{{node a}}\nCollective ops is aborted by: Socket closed"
        ),
    ],
)
def test_what_others_leave_undone_becomes_one_line(error):
    with (
        pytest.raises(NotNowError, match=r"^another worker is gone \(.*Socket closed\)"),
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


def train(tf_config: str, *flags: str) -> tuple[subprocess.CompletedProcess, float]:
    """The command with a TF_CONFIG, and the seconds that it took."""
    command = [
        sys.executable,
        "-m",
        "tfhash.train",
        "--strategy=multi_worker",
        "--groups=2",
        *flags,
    ]
    begun = time.monotonic()
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"TF_CONFIG": tf_config},
    )
    return process, time.monotonic() - begun


def cluster(index: int, *ports: int) -> str:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


@pytest.mark.parametrize("index", [0, 1])
def test_workers_that_never_come(index, free_ports, tmp_path):
    process, seconds = train(
        cluster(index, *free_ports(2)), "--worker_wait=1", f"--model_dir={tmp_path}"
    )
    (line,) = process.stderr.splitlines()
    assert process.returncode == 1
    told = f"not all 2 workers came within 1 s (--worker_wait), seen from worker {index}"
    assert line.startswith(f"tfhash.train: error: TF_CONFIG: {told}")
    assert seconds < 60  # without the setting it waits for an hour, or for ever


def test_a_port_in_use(free_ports, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process, _ = train(cluster(0, port, *free_ports(1)), f"--model_dir={tmp_path}")
    (line,) = process.stderr.splitlines()
    assert process.returncode == 1
    assert f"TF_CONFIG: this worker cannot listen at 127.0.0.1:{port}" in line


def test_the_command_names_tf_config(tmp_path):
    process, _ = train("{}", f"--model_dir={tmp_path / 'run'}")
    (line,) = process.stderr.splitlines()
    assert process.returncode == 2 and "error: TF_CONFIG: no workers" in line
    assert "--strategy=multi_worker needs" in line
    assert not (tmp_path / "run").exists()
