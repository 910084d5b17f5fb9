"""encode against servers that fail or are not there; interrupted, killed, and asked wrongly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import grpc
import pytest

from tfhash import npz


def test_a_server_that_fails_midway(encode, server, tmp_path, codes_of):
    server.service.fail_at(3)
    ended = encode(in_flight=1)
    assert ended.status == 1
    assert "INTERNAL: out of order; " in ended.errors and len(ended.errors.splitlines()) == 1
    assert not (tmp_path / "codes.npz").exists()
    server.service.requests.clear()
    assert encode().status == 0
    assert server.service.files() == 6  # three batches of two were done
    output = npz.read(tmp_path / "codes.npz")
    assert output["codes"].tolist() == codes_of(output["paths"]) and len(output["paths"]) == 12


def test_a_busy_server_is_asked_again(encode, server, tmp_path, codes_of):
    def before(number, context):
        if number == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "queue full")

    server.service.before = before
    assert encode(in_flight=1).status == 0
    assert server.service.files() == 14  # the third batch twice
    output = npz.read(tmp_path / "codes.npz")
    assert output["codes"].tolist() == codes_of(output["paths"]) and len(output["paths"]) == 12


def test_an_interrupted_command_says_how_to_go_on(encode, server, tmp_path):
    part = tmp_path / "codes.npz.part"

    def interrupt(number, context):
        if number == 3:
            while part.read_text().count(".jpg") < 6:  # rows of the three batches before
                time.sleep(0.01)
            time.sleep(0.2)  # until the command waits for this answer
            os.kill(os.getpid(), signal.SIGINT)
            while context.is_active():
                time.sleep(0.01)

    server.service.before = interrupt
    ended = encode(in_flight=1)
    assert ended.status == 130
    assert ended.errors == (
        f"tfhash.serving.encode: error: interrupted; {tmp_path}/codes.npz.part keeps what was "
        "encoded, the same command goes on from there\n"
    )
    assert not (tmp_path / "codes.npz").exists()
    server.service.requests.clear()
    assert encode().status == 0
    assert server.service.files() == 6


def test_a_killed_process_goes_on(encode, server, photos, tmp_path, codes_of):
    """A process of its own, killed while the fourth of six batches hangs."""
    part = tmp_path / "codes.npz.part"

    def hang(number, context):
        while number >= 3 and context.is_active():
            time.sleep(0.01)

    server.service.before = hang
    arguments = f"--target={server.target} --images={photos}/**/*.jpg --batch=2 --in_flight=1"
    process = subprocess.Popen(
        [sys.executable, "-m", "tfhash.serving.encode", *arguments.split()]
        + [f"--output={tmp_path}/codes.npz"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        for _ in range(600):
            if part.exists() and part.read_text().count(".jpg") == 6:
                break
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "codes.npz").exists()
    with part.open("a") as file:
        file.write('["half a li')  # as a kill may leave it
    server.service.before = lambda number, context: None
    server.service.requests.clear()
    assert encode().status == 0
    assert server.service.files() == 6
    output = npz.read(tmp_path / "codes.npz")
    assert output["codes"].tolist() == codes_of(output["paths"]) and len(output["paths"]) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "/nowhere/*.jpg"}, "--images: '/nowhere/*.jpg': No such file or directory"),
        ({"target": "http://localhost:1"}, "target: expected HOST:PORT"),
        ({"tls_ca_file": "/nowhere/ca.pem"}, "--tls_ca_file: cannot read /nowhere/ca.pem"),
        ({"tls_ca_file": __file__}, f"--tls_ca_file: expected PEM, {__file__} holds none"),
        ({"tls_key_file": "key.pem"}, "--tls_cert_file, --tls_key_file: expected both or neither"),
        ({"batch": 0}, "flag --batch=0"),
        ({"output": "/dev/null/codes.npz"}, "--output: cannot write /dev/null/codes.npz.lock"),
    ],
)
def test_mistakes_of_the_user(encode, changes, message):
    ended = encode(**changes)
    assert ended.status == 2
    assert message in ended.errors and len(ended.errors.splitlines()) == 1


def test_no_server_and_no_model(encode, tmp_path):
    ended = encode(target="127.0.0.1:1", timeout=0.3)
    assert ended.status == 1
    assert "not reachable within 0.3 s" in ended.errors and "nothing was encoded" in ended.errors
    ended = encode(model="other")
    assert ended.status == 1 and "NOT_FOUND" in ended.errors
    assert list(tmp_path.glob("codes*")) == []


def test_mutual_tls(encode, tls_server, certificate):
    certificate_file, key_file = certificate
    ended = encode(
        target=tls_server.target,
        tls_ca_file=certificate_file,
        tls_cert_file=certificate_file,
        tls_key_file=key_file,
    )
    assert (ended.status, tls_server.service.files()) == (0, 12)
