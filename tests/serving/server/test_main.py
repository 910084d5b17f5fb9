"""The command: a mistake is one line; a process serves, follows its files, and ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tfhash.serving.server import __main__ as main

PATIENCE = 30
IMAGES = np.array([[1, 2], [250, 250]], np.uint8)  # sums 3 and 500


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command takes SIGTERM and SIGINT of the process that runs it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


PEM = "-----BEGIN NOTHING-----\\nAAAA\\n-----END NOTHING-----\\n"
FILES = {
    "bad.config": "model_config_list { config { nam: 'a' } }",
    "relative.config": "model_config_list { config { name: 'a' base_path: 'models' } }",
    "twice.config": (
        "model_config_list { config { name: 'a' base_path: '/a' model_platform: 'tensorflow' } "
        "config { name: 'a' base_path: '/b' model_platform: 'tensorflow' } }"
    ),
    "platform.config": (
        "model_config_list { config { name: 'a' base_path: '/a' model_platform: 'caffe' } }"
    ),
    "empty-ssl.config": "",
    "bad-ssl.config": "server_key 'x'",
    "garbage-ssl.config": f'server_key: "{PEM}" server_cert: "{PEM}"',
    "verify-ssl.config": f'server_key: "{PEM}" server_cert: "{PEM}" client_verify: true',
    "batching.txt": "max_batch_size { value: 8 }",
    "bad-batching.txt": "max_batch_size { value: 0 }",
}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model_base_path: needed, or --model_config_file"),
        (["--model_base_path={folder}/none"], "--model_base_path: no folder {folder}/none"),
        (["--model_base_path={folder}/bad.config"], "--model_base_path: no folder"),
        (["--model_base_path={folder}", "--port=70000"], "--port=70000"),
        (["--model_base_path={folder}", "--port=-1"], "--port=-1"),
        (["--model_base_path={folder}", "--rest_api_port=65536"], "--rest_api_port=65536"),
        (["--model_base_path={folder}", "--grpc_max_threads=0"], "--grpc_max_threads=0"),
        (
            ["--model_base_path={folder}", "--max_held_mib=63"],
            "--max_held_mib: 63 is less than one message may have, --max_message_mib, 64",
        ),
        (["--model_base_path={folder}", "--max_working_mib=63"], "--max_working_mib=63"),
        (["--model_base_path={folder}", "--modelname=a"], "modelname"),
        (["{folder}"], "unexpected argument '{folder}'"),
        (["--model_config_file={folder}/none"], "--model_config_file: {folder}/none: "),
        (["--model_config_file={folder}"], "--model_config_file: {folder}: "),
        (["--model_config_file={folder}/bad.config"], "--model_config_file: {folder}/bad.config: "),
        (["--model_config_file={folder}/relative.config"], "to have an absolute path"),
        (["--model_config_file={folder}/twice.config"], "Illegal to list model a multiple times"),
        (["--model_config_file={folder}/platform.config"], "model_platform is 'caffe'"),
        (["--model_base_path={folder}/broken"], "1 servable(s) did not become available"),
        *[
            (["--model_base_path={folder}", f"--ssl_config_file={{folder}}/{file}"], words)
            for file, words in [
                ("none", "--ssl_config_file: {folder}/none: "),
                ("bad-ssl.config", "--ssl_config_file: {folder}/bad-ssl.config: "),
                ("empty-ssl.config", "--ssl_config_file: server_key must hold PEM text"),
                ("garbage-ssl.config", "are the key and certificates of --ssl_config_file wrong"),
                ("verify-ssl.config", "--ssl_config_file: client_verify needs custom_ca"),
            ]
        ],
        (
            ["--model_base_path={folder}", "--batching_parameters_file={folder}/batching.txt"],
            "--batching_parameters_file: needs --enable_batching",
        ),
        (
            [
                "--model_base_path={folder}",
                "--enable_batching",
                "--batching_parameters_file={folder}/bad-batching.txt",
            ],
            "max_batch_size is 0; at least 1 is allowed",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, command, arguments, words):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    # A port of its own, unless the test gives one: another server may run on 8500.
    ended = command(main, "--port=0", *(text.format(folder=tmp_path) for text in arguments))
    assert ended.status == 2
    (line,) = [line for line in ended.errors.splitlines() if "tfhash.serving.server: error" in line]
    assert line.startswith("tfhash.serving.server: error: ")
    assert words.format(folder=tmp_path) in line
    assert ended.errors.splitlines()[-1] == line
    assert "Traceback" not in ended.errors


@pytest.fixture
def process(tmp_path, publish, base_path, config_of) -> Iterator[subprocess.Popen]:
    """The command, which serves the one model of models.config in the test's folder."""
    publish(1)
    config = text_format.MessageToString(config_of(model=base_path))
    (tmp_path / "models.config").write_text(config)
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tfhash.serving.server",
                "--port=0",
                f"--model_config_file={tmp_path / 'models.config'}",
                "--model_config_file_poll_wait_seconds=0.02",
            ],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    ended = threading.Timer(2 * PATIENCE, process.kill)  # no test waits for a line for ever
    ended.start()
    yield process
    ended.cancel()
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_process_from_its_start_to_its_end(
    process, tmp_path, base_path, config_of, request_of, make_gate, until
):
    assert process.stdout.readline() == main.BANNER + "\n"
    words = process.stdout.readline().split()
    assert (words[:2], words[3:]) == (["gRPC", "on"], ["(no", "TLS)"])
    assert process.stdout.readline() == "model model: version 1\n"
    with grpc.insecure_channel(words[2]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.Predict(request_of(images=IMAGES), timeout=PATIENCE)
        assert list(answer.outputs["total"].int_val) == [3, 500]

        another = request_of(images=IMAGES)
        another.model_spec.name = "another"

        def code() -> grpc.StatusCode:
            return stub.Predict.future(another, timeout=PATIENCE).code()

        assert code() == grpc.StatusCode.NOT_FOUND
        new = tmp_path / "models.new"
        new.write_text(text_format.MessageToString(config_of(model=base_path, another=base_path)))
        new.rename(tmp_path / "models.config")
        until(lambda: code() == grpc.StatusCode.OK)

        gate = make_gate()
        running = stub.Predict.future(request_of("wait", **gate.inputs), timeout=PATIENCE)
        gate.running()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        until(lambda: code() == grpc.StatusCode.UNAVAILABLE)
        gate.open()
        assert list(running.result().outputs["open"].int_val) == [1]
    assert process.wait(PATIENCE) == 0
    assert "Traceback" not in (tmp_path / "errors").read_text()


def thread_of(process: subprocess.Popen) -> int:
    """A thread that is not the main one."""
    return max(int(name) for name in os.listdir(f"/proc/{process.pid}/task"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_another_thread_takes(process, number):
    """The system gives it to any thread of the process; Python's handler runs in the main one."""
    for _ in range(3):
        process.stdout.readline()
    libc = ctypes.CDLL(None, use_errno=True)
    tgkill = 234  # of x86-64
    if os.uname().machine != "x86_64":
        pytest.skip("the number of tgkill is that of x86-64")
    assert libc.syscall(tgkill, process.pid, thread_of(process), int(number)) == 0
    assert process.wait(PATIENCE) == 0
    assert process.stdout.read() == "stopping\n"


def test_work_that_outlives_the_grace(process, request_of, make_gate):
    """Its call is told to come again elsewhere, and the process ends."""
    lines = [process.stdout.readline() for _ in range(3)]
    with grpc.insecure_channel(lines[1].split()[2]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        gate = make_gate()  # which never opens
        running = stub.Predict.future(request_of("wait", **gate.inputs), timeout=3 * PATIENCE)
        gate.running()
        process.send_signal(signal.SIGTERM)
        assert running.code() == grpc.StatusCode.UNAVAILABLE
        assert running.details() == "the server is stopping"
    assert process.wait(PATIENCE) == 0
    assert process.stdout.read() == "stopping\nstopped while work was still running\n"
