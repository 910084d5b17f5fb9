"""REST: what HTTP itself asks for. tests/conformance has the API."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import pytest

from tfhash.serving.server.server import Options, Server

PATIENCE = 30
PREDICT = "/v1/models/model:predict"
IMAGES = {"inputs": [[1, 2], [250, 250]]}
LIMIT = 500


OPTIONS = {"rest_api_port": 0, "max_message_bytes": LIMIT}


@pytest.fixture(scope="module")
def server(tmp_path_factory, saved_model, config_of) -> Iterator[Server]:
    base_path = tmp_path_factory.mktemp("base_path")
    shutil.copytree(saved_model, base_path / "1")
    server = Server(config_of(model=base_path), Options(port=0, **OPTIONS))
    server.start()
    yield server
    server.stop(0)


@contextlib.contextmanager
def connected(server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=PATIENCE)
    with contextlib.closing(connection):
        yield connection


def ask(connection, method: str, path: str, content=None, **headers: str) -> tuple[int, dict]:
    body = content if content is None or isinstance(content, bytes) else json.dumps(content)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    assert response.getheader("Content-Type") == "application/json"
    return response.status, json.loads(response.read())


def answers(connection) -> bool:
    """Whether the next request, on the same connection, is answered."""
    return ask(connection, "POST", PREDICT, IMAGES)[1]["outputs"]["total"] == [3, 500]


def test_predict(server):
    with connected(server) as connection:
        assert ask(connection, "POST", PREDICT, IMAGES) == (
            200,
            {
                "outputs": {
                    "total": [3, 500],
                    "half": [1.5, 250.0],
                    "images": IMAGES["inputs"],
                }
            },
        )


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", PREDICT, b"{", 400),
        ("POST", PREDICT, b"", 400),
        ("POST", PREDICT, b"\xff" * LIMIT, 400),
        ("POST", PREDICT, {"inputs": [1]}, 400),
        ("POST", PREDICT, {"inputs": [[1], [1, 2]]}, 400),
        ("POST", "/v1/models/other:predict", IMAGES, 404),
        ("POST", "/v1/models/model/versions/9:predict", IMAGES, 404),
        ("POST", "/v1/models/model/versions/99999999999999999999:predict", IMAGES, 400),
        ("POST", "/v1/models/model/versions/" + "9" * 5000 + ":predict", IMAGES, 400),
        ("POST", "/v1/models/model/labels/other:predict", IMAGES, 400),
        ("POST", "/v1/models/model:classify", IMAGES, 501),
        ("POST", "/", IMAGES, 400),
        ("GET", PREDICT, b"a body of a GET", 400),
        ("GET", "/v1/models/model/versions/9", b"", 404),
        ("GET", "/v1/models/%00%ff", b"", 404),
    ],
)
def test_the_connection_goes_on_after_an_error(server, method, path, content, status):
    with connected(server) as connection:
        answered, answer = ask(connection, method, path, content)
        assert (answered, list(answer)) == (status, ["error"])
        assert answers(connection)


def raw(server, *lines: str, body: bytes = b"") -> tuple[list[int], bytes]:
    """The HTTP statuses of what a socket gets until it is closed, and the text of it all."""
    with socket.create_connection(("127.0.0.1", server.rest_port), PATIENCE) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(4096):
                received += more
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", received)], received


SMUGGLED = b"GET /v1/models/model HTTP/1.1\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("header", "body", "status"),
    [
        (f"Content-Length: {LIMIT + 1}", SMUGGLED, 429),
        ("Content-Length: 99999999999999999999", SMUGGLED, 429),
        ("Content-Length: -1", SMUGGLED, 400),
        ("Content-Length: many", SMUGGLED, 400),
        ("Content-Length: " + "9" * 5000, SMUGGLED, 500),
        ("Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n", 400),
        (f"Transfer-Encoding: chunked\r\nContent-Length: {len(SMUGGLED)}", SMUGGLED, 400),
    ],
)
def test_a_body_that_is_not_read_is_no_request(server, header, body, status):
    statuses, received = raw(server, f"POST {PREDICT} HTTP/1.1", header, body=body)
    assert statuses == [status]
    assert b"\r\nConnection: close\r\n" in received


def test_a_post_without_a_length_has_no_body(server):
    statuses, _ = raw(server, f"POST {PREDICT} HTTP/1.1", body=SMUGGLED)
    assert statuses == [400, 200]


def test_a_body_up_to_the_limit(server):
    content = json.dumps(IMAGES).encode().ljust(LIMIT)
    with connected(server) as connection:
        assert ask(connection, "POST", PREDICT, content)[0] == 200
        assert ask(connection, "POST", PREDICT, content + b" ")[0] == 429


def test_a_client_that_waits_to_be_told_to_go_on(server):
    """curl does, with a body over 1 MB."""
    body = json.dumps(IMAGES).encode()
    statuses, received = raw(
        server,
        f"POST {PREDICT} HTTP/1.1",
        "Expect: 100-continue",
        "Connection: close",
        f"Content-Length: {len(body)}",
        body=body,
    )
    assert statuses == [100, 200]
    assert b'"total": [3, 500]' in received


def test_an_answer_does_not_wait_for_an_acknowledgement(server):
    """Else it takes the 40 ms for which Linux puts one off, but for the first few of a connection.
    A quarter of the requests, so that a busy machine does not fail this."""
    seconds = []
    with connected(server) as connection:
        for _ in range(40):
            start = time.perf_counter()
            ask(connection, "GET", "/v1/models/model")
            seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[10] < 0.03


def test_other_methods(server):
    for method in ("PUT", "HEAD", "DELETE", "OPTIONS"):
        statuses, _ = raw(server, f"{method} /v1/models/model HTTP/1.1")
        assert statuses == [501]


def listens(server) -> bool:
    with connected(server) as connection:
        try:
            connection.connect()
        except (ConnectionRefusedError, ConnectionResetError):
            return False
    return True


def wait_for_gate(server, gate) -> tuple[int, dict]:
    with connected(server) as connection:
        content = {"signature_name": "wait", "inputs": gate.texts}
        return ask(connection, "POST", PREDICT, content)


@pytest.fixture
def pool() -> Iterator[futures.ThreadPoolExecutor]:
    with futures.ThreadPoolExecutor(2) as pool:
        yield pool


def test_more_requests_at_once_than_allowed(start, publish, pool, make_gate, until):
    publish(1)
    server = start(**OPTIONS, max_concurrent_requests=1)
    gate = make_gate()
    running = pool.submit(wait_for_gate, server, gate)
    gate.running()
    statuses, received = raw(
        server, f"POST {PREDICT} HTTP/1.1", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED
    )
    assert statuses == [503]
    assert b'{"error": "1 requests are running already"}' in received
    gate.open()
    assert running.result() == (200, {"outputs": [1]})
    with connected(server) as connection:
        until(lambda: ask(connection, "GET", "/v1/models/model")[0] == 200)


def test_a_stop_lets_what_runs_finish(start, publish, pool, make_gate, until):
    publish(1)
    server = start(**OPTIONS)
    gate = make_gate()
    running = pool.submit(wait_for_gate, server, gate)
    gate.running()
    stopping = threading.Thread(target=server.stop, args=(PATIENCE,))
    stopping.start()
    until(lambda: not listens(server))
    assert stopping.is_alive()
    gate.open()
    assert running.result() == (200, {"outputs": [1]})
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    assert server.models.available() == {"model": []}


def test_a_client_that_has_gone(server, make_gate, until, capfd):
    """Its answer is dropped without a word, and the next is served."""
    gate = make_gate()
    body = json.dumps({"signature_name": "wait", "inputs": gate.texts})
    with connected(server) as connection:
        connection.request("POST", PREDICT, body)
        gate.running()
        reset = struct.pack("ii", 1, 0)  # a close that tells the server at once
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    gate.open()
    with connected(server) as connection:
        until(lambda: ask(connection, "GET", "/v1/models/model")[0] == 200)
    assert capfd.readouterr().err == ""
