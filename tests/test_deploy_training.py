"""tfhash.deploy_training: YAML whose numbers and names agree, and shell that does what it says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tfhash import deploy_training, train
from tfhash.deploy_training import __main__ as command_of_training
from tfhash.errors import UserError
from tfhash.training.workers import read_cluster

LINES = ["--method=ssgah", "--dataset=photos of me: 'a' \"b\" $c %%d", "--model_dir=runs/x"]


@pytest.fixture
def texts() -> dict[str, str]:
    settings = deploy_training.Settings(
        workers=3, restarts=2, port=4567, job="birds", namespace="lab", claim="disk", cpus=6,
        memory=12, image="registry:5000/me/tfhash:1",
    )  # fmt: skip
    return deploy_training.render(settings, LINES)


@pytest.fixture
def parts(texts) -> dict[str, dict]:
    """The objects of Kubernetes, by their kinds."""
    return {part["kind"]: part for part in yaml.safe_load_all(texts["kubernetes.yaml"])}


def stub(folder: Path, name: str, text: str) -> Path:
    """A shell script that stands for a program."""
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_what_of_kubernetes_has_to_agree(parts):
    flags, service, job = (parts[kind] for kind in ("ConfigMap", "Service", "Job"))
    assert {part["metadata"]["name"] for part in parts.values()} == {"birds"}
    assert {part["metadata"]["namespace"] for part in parts.values()} == {"lab"}
    assert flags["data"]["training.flags"].splitlines() == LINES
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": "birds"}
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 3
    assert spec["backoffLimit"] == 6  # each of two restarts is one of three pods
    pod = spec["template"]["spec"]
    # What Kubernetes makes the names of pods of, and what podFailurePolicy needs.
    assert pod["subdomain"] == "birds" and pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    rules = spec["podFailurePolicy"]["rules"]
    (codes,) = (rule["onExitCodes"] for rule in rules if rule["action"] == "FailJob")
    assert codes == {"containerName": container["name"], "operator": "In", "values": [2]}
    assert codes["values"] == [UserError.status]
    ports = (service["spec"]["ports"][0]["port"], container["ports"][0]["containerPort"])
    assert ports == (4567, 4567)
    assert container["image"] == "registry:5000/me/tfhash:1"
    assert container["resources"]["limits"] == {"cpu": 6, "memory": "12Gi"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["work"]["persistentVolumeClaim"] == {"claimName": "disk"}
    assert volumes["flags"]["configMap"] == {"name": flags["metadata"]["name"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == volumes.keys() and mounts["work"] == container["workingDir"]
    assert f"{mounts['flags']}/training.flags" in container["command"][-1]


@pytest.mark.parametrize("index", range(3))
def test_what_a_pod_makes_of_its_number(parts, tmp_path, index):
    (container,) = parts["Job"]["spec"]["template"]["spec"]["containers"]
    stub(tmp_path, "python", 'echo "$TF_CONFIG"; echo "$@"')
    output = subprocess.check_output(
        container["command"],
        text=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index)},
    )
    config, arguments = output.splitlines()
    found = read_cluster(config)
    assert (found.kind, found.index, found.count) == ("worker", index, 3)
    assert found.address == f"birds-{index}.birds:4567"
    assert arguments == "-m tfhash.train --flagfile=/etc/tfhash/training.flags"


def test_what_a_node_of_slurm_makes_of_its_number(texts, tmp_path):
    """srun starts a worker for each host; one ends badly at first, and all start again."""
    script = stub(tmp_path, "slurm.sh", texts["slurm.sh"])
    stub(tmp_path, "scontrol", '[ "$*" = "show hostnames n[1-3]" ] && printf "n1\\nn2\\nn3\\n"')
    stub(tmp_path, "srun", 'shift; for i in 0 1 2; do SLURM_PROCID=$i "$@" || exit; done')
    stub(
        tmp_path, "python", 'echo "$TF_CONFIG"; echo "$@"; mkdir once 2>/dev/null && exit 9; exit 0'
    )
    folder = tmp_path / "a b"
    folder.mkdir()
    process = subprocess.run(
        [script],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "n[1-3]",
            "SLURM_SUBMIT_DIR": str(folder),
        },
    )
    assert process.returncode == 0, process
    assert process.stderr == "slurm.sh: a worker ended with status 9; all start again\n"
    lines = process.stdout.splitlines()
    tasks = [read_cluster(line) for line in lines[::2]]
    assert [task.index for task in tasks] == [0, 0, 1, 2]
    assert [task.address for task in tasks[1:]] == ["n1:4567", "n2:4567", "n3:4567"]
    assert set(lines[1::2]) == {f"-m tfhash.train --flagfile={folder}/training.flags"}
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", texts["slurm.sh"], re.MULTILINE))
    assert asked.items() >= {"nodes": "3", "cpus-per-task": "6", "mem": "12G"}.items()


@pytest.fixture
def local(tmp_path, texts) -> Iterator[Callable[..., subprocess.Popen]]:
    """local(python): run_local.sh with a stub of Python, in tmp_path; the stub knows its $index."""
    started = []

    def start(python: str, **more: str) -> subprocess.Popen:
        script = stub(tmp_path, "run_local.sh", texts["run_local.sh"])
        stub(tmp_path, "python", r"index=${TF_CONFIG##*: } index=${index%\}\}}" + f"\n{python}")
        process = subprocess.Popen(
            [script, "--more"],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}"} | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_the_launcher_tells_each_worker_who_it_is(local, tmp_path):
    process = local('echo "$TF_CONFIG" > "config$index"; echo "$@"', PORT="7000")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert output == f"-m tfhash.train --flagfile={tmp_path}/training.flags --more\n"
    found = [read_cluster((tmp_path / f"config{index}").read_text()) for index in range(3)]
    assert [worker.address for worker in found] == [f"127.0.0.1:{7000 + i}" for i in range(3)]


@pytest.mark.parametrize(
    ("fault", "status", "starts"),
    [
        ("exit 1", 1, 3),  # two restarts
        ("kill -9 $$", 1, 3),
        ("exit 2", 2, 1),
        ("mkdir once 2>/dev/null && exit 1; exit 0", 0, 2),
    ],
)
def test_the_launcher_ends_all_and_starts_all_again(local, tmp_path, fault, status, starts):
    """The last of three workers ends badly; the others would sleep for a minute."""
    others = "[ -d once ] && exit 0; exec sleep 60"
    python = f'echo $$ >> "pids$index"; if [ "$index" = 2 ]; then sleep 1; {fault}; fi; {others}'
    process = local(python)
    _, errors = process.communicate(timeout=50)
    assert process.returncode == status, errors
    pids = [(tmp_path / f"pids{index}").read_text().split() for index in range(3)]
    assert [len(of_worker) for of_worker in pids] == [starts] * 3
    assert errors.count("all start again") == starts - 1
    assert len(errors.splitlines()) == starts - 1 + (status == 1)
    assert not any(Path(f"/proc/{pid}").exists() for of_worker in pids for pid in of_worker)


def test_the_launcher_kills_none_that_has_ended(local, tmp_path):
    """Its number may be that of another process by then."""
    told = f'() {{ echo "$@" >> {tmp_path}/killed; builtin kill "$@"; }}'
    python = 'echo $$ > "pid$index"; if [ "$index" = 2 ]; then sleep 1; exit 2; fi; exec sleep 60'
    process = local(python, **{"BASH_FUNC_kill%%": told})
    assert process.wait(timeout=50) == 2
    pids = [(tmp_path / f"pid{index}").read_text().strip() for index in range(3)]
    assert (tmp_path / "killed").read_text().split() == ["-KILL", *pids[:2]]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_launcher_that_is_stopped_leaves_no_worker(local, tmp_path, signal_number):
    process = local('echo $$ > "pid$index"; exec sleep 60')
    pids = [tmp_path / f"pid{index}" for index in range(3)]
    while not all(path.exists() and path.read_text() for path in pids):
        time.sleep(0.05)
    process.send_signal(signal_number)
    assert process.wait(timeout=30) == 128 + signal_number
    assert not any(Path(f"/proc/{path.read_text().strip()}").exists() for path in pids)


def test_the_scripts_are_bash_without_a_mistake(texts, tmp_path):
    for name in ("run_local.sh", "slurm.sh"):
        (tmp_path / name).write_text(texts[name])
        subprocess.run(["bash", "-n", tmp_path / name], check=True)
        assert "%%" not in texts[name]


def test_the_command(command, tmp_path, monkeypatch):
    """The flagfile is that of the training, and the command says what to do with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.flags").write_text("--method=dpsh\n--steps=7\n--groups=2\n--code_length=12\n")
    arguments = ("--flagfile=my.flags", "--workers=2", "--output=files", "--steps=9")
    ended = command(command_of_training, *arguments)
    assert (ended.status, ended.errors) == (0, "")
    names = sorted(path.name for path in Path("files").iterdir())
    assert names == sorted(deploy_training.NAMES)
    lines = ended.output.splitlines()
    assert lines[-2:] == [
        "to train with 2 workers on this machine, into runs/dpsh_digits_12:",
        "  files/run_local.sh",
    ]
    assert set(lines[:-2]) == {f"wrote files/{name}" for name in names}
    assert os.access("files/run_local.sh", os.X_OK)
    flags = Path("files/training.flags").read_text().splitlines()
    assert flags.pop() == "--model_dir=runs/dpsh_digits_12"
    given = train.parse(flags)
    assert (given.experiment.method, given.experiment.code_length) == ("dpsh", 12)
    assert (given.settings.steps, given.settings.groups) == (9, 2)
    assert given.settings.strategy == "multi_worker"
    ended = command(command_of_training, *arguments)
    assert ended.output.count("unchanged") == 5
    ended = command(command_of_training, *arguments[:-1])
    assert "--output: files/kubernetes.yaml exists" in ended.line(command_of_training.NAME)
    ended = command(command_of_training, *arguments[:-1], "--overwrite")
    assert ended.output.count("wrote") == 2  # the flags, and the manifest that holds them


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--method=dpsh", "--groups=2", "--workers=4"], "--groups: 2; .* --workers=4: multiples"),
        (["--method=dpsh"], "--groups: 1; .* --workers=2"),
        (["--method=lsh"], "--method: .* deep method"),
        (["--groups=2", "--xla"], "--xla: not with --strategy=multi_worker"),
        (["--groups=2", "--job=Birds"], "--job: 'Birds'; allowed: a to z"),
        (["--groups=2", "--namespace=a_b"], "--namespace: 'a_b'"),
        (["--groups=2", "--image=a b"], "--image: 'a b'"),
        (["--groups=2", "--port=65535"], "--port: 65535; .* up to 65534"),
        (["--groups=2", "--workers=0"], "workers"),
    ],
)
def test_what_cannot_be_is_refused(command, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    ended = command(command_of_training, *arguments, "--output=files")
    assert re.search(told, ended.line(command_of_training.NAME)), ended.errors
    assert not Path("files").exists()
