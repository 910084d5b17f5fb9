"""REST: what HTTP itself asks for. tests/conformance has the API."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

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
        request, *headers = lines
        client.sendall("\r\n".join([request, "Host: a", *headers, "", ""]).encode() + body)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(4096):
                received += more
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", received)], received


SMUGGLED = b"GET /v1/models/model HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("header", "body", "status"),
    [
        (f"Content-Length: {LIMIT + 1}", SMUGGLED, 429),
        ("Content-Length: 99999999999999999999", SMUGGLED, 429),
        ("Content-Length: -1", SMUGGLED, 400),
        ("Content-Length: many", SMUGGLED, 400),
        ("Content-Length: " + "9" * 5000, SMUGGLED, 400),
        # A proxy and this server might each take another of two lengths, or one of them none.
        ("Content-Length: 5\r\nContent-Length: 6", b"{}   " + SMUGGLED, 400),
        ("Content-Length: 0\r\nContent-Length: 5", SMUGGLED, 400),
        ("Content-Length : 5", SMUGGLED, 400),
        ("Transfer-Encoding : chunked", SMUGGLED, 400),
        ("Transfer-Encoding: identity", SMUGGLED, 400),
        (f"Transfer-Encoding: chunked\r\nContent-Length: {len(SMUGGLED)}", SMUGGLED, 400),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_is_not_read_is_no_request(server, header, body, status):
    statuses, received = raw(server, f"POST {PREDICT} HTTP/1.1", header, body=body)
    assert statuses == [status]
    assert b"\r\nconnection: close\r\n" in received.lower()
    assert b'{"error": ' in received


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
        statuses, _ = raw(server, f"{method} /v1/models/model HTTP/1.1", "Connection: close")
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


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_chunked_body(server, pieces):
    body = json.dumps(IMAGES).encode()
    step = -(-len(body) // pieces)
    with connected(server) as connection:
        for _ in range(2):
            chunks = (body[at : at + step] for at in range(0, len(body), step))
            connection.request("POST", PREDICT, chunks, encode_chunked=True,
                               headers={"Transfer-Encoding": "chunked"})  # fmt: skip
            response = connection.getresponse()
            assert response.status == 200
            assert json.loads(response.read())["outputs"]["total"] == [3, 500]


def test_a_chunked_body_over_the_limit(server):
    with connected(server) as connection:
        connection.request("POST", PREDICT, iter([b" " * 400] * 2), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        assert connection.getresponse().status == 429


def packed(content: bytes, members: int = 1) -> bytes:
    step = -(-len(content) // members)
    return b"".join(
        gzip.compress(content[at : at + step], mtime=0) for at in range(0, len(content), step)
    )


@pytest.mark.parametrize("members", [1, 3])
def test_a_gzip_body(server, members):
    body = packed(json.dumps(IMAGES).encode(), members)
    with connected(server) as connection:
        for coding in ("gzip", "GZIP"):
            status, answer = ask(connection, "POST", PREDICT, body, **{"Content-Encoding": coding})
            assert (status, answer["outputs"]["total"]) == (200, [3, 500])


@pytest.mark.parametrize(
    ("body", "coding", "status", "words"),
    [
        (gzip.compress(b" " * 10**7, mtime=0), "gzip", 429, "Received message larger than max"),
        (gzip.compress(b"{}", mtime=0)[:-9], "gzip", 400, "gzip: the body is cut off"),
        (b"{}", "gzip", 400, "gzip: "),
        (b"", "gzip", 400, "gzip: the body is cut off"),
        (b"{}", "br", 400, "Content-Encoding br; allowed: gzip"),
    ],
)
def test_a_coded_body_that_is_none(start, publish, body, coding, status, words):
    publish(1)
    server = start(rest_api_port=0, max_message_bytes=20_000)
    with connected(server) as connection:
        answered, answer = ask(connection, "POST", PREDICT, body, **{"Content-Encoding": coding})
        assert answered == status
        assert answer["error"].startswith(words)


def test_percent_signs_in_names(start, publish, base_path, config_of):
    """Decoded once the parts of the path are known."""
    publish(1)
    server = start(config_of(**{"my model": base_path, "a/b": base_path}), rest_api_port=0)
    with connected(server) as connection:
        for name in ("my%20model", "my%20mode%6C", "a%2Fb"):
            assert ask(connection, "GET", f"/v1/models/{name}")[0] == 200
            assert ask(connection, "POST", f"/v1/models/{name}:predict", IMAGES)[0] == 200
        for name in ("my+model", "a/b", "my%2520model"):
            assert ask(connection, "GET", f"/v1/models/{name}")[0] in (400, 404)


def test_an_ipv6_host(start, publish, stub_of, request_of):
    publish(1)
    server = start(host="::1", rest_api_port=0)
    connection = http.client.HTTPConnection("::1", server.rest_port, timeout=PATIENCE)
    with contextlib.closing(connection):
        assert answers(connection)
    with grpc.insecure_channel(f"[::1]:{server.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.Predict(request_of(images=np.uint8([[1, 2]])), timeout=PATIENCE)
        assert list(answer.outputs["total"].int_val) == [3]


def test_no_header_names_the_software(server):
    for lines in (["GET /v1/models/model HTTP/1.1", "Connection: close"], ["nonsense"]):
        _, received = raw(server, *lines)
        for word in (b"server:", b"python", b"uvicorn"):
            assert word not in received.lower()


SECONDS = 0.3  # for a message to come


@pytest.fixture
def impatient(start, publish) -> Server:
    publish(1)
    return start(rest_api_port=0, receive_seconds=SECONDS)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"GET /v1/models/model HTTP/1.1\r\nHost: a\r\nX: ", []),
        (f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n{{".encode(), [504]),
        (
            f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
            [504],
        ),
    ],
    ids=["nothing", "half a head", "half a body", "half a chunked body"],
)
def test_a_request_that_does_not_come_to_its_end(impatient, sent, statuses):
    """However much of it comes now and then."""
    received = b""
    with socket.create_connection(("127.0.0.1", impatient.rest_port), PATIENCE) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(sent)
            client.settimeout(SECONDS / 10)
            for _ in range(100 * PATIENCE):
                try:
                    if not (more := client.recv(4096)):
                        break
                    received += more
                except TimeoutError:
                    client.sendall(b"1" if sent else b"")
            else:
                pytest.fail("it waits for ever")
    assert [int(one) for one in re.findall(rb"HTTP/1.1 (\d+) ", received)] == statuses


def test_a_client_that_does_not_read_its_answer(impatient, until):
    """Its connection is dropped, and the memory of the answer is free again."""
    working = impatient._calls._working
    with connected(impatient) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.request("POST", PREDICT, json.dumps({"inputs": [[7] * 10] * 100_000}))
        until(lambda: working._free < working.total)
        until(lambda: working._free == working.total)
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse().read()


def test_more_requests_of_one_client_than_allowed(start, publish, pool, make_gate, until):
    publish(1)
    server = start(rest_api_port=0, max_requests_per_client=1)
    gate = make_gate()
    running = pool.submit(wait_for_gate, server, gate)
    gate.running()
    with connected(server) as connection:
        status, answer = ask(connection, "POST", PREDICT, IMAGES)
        assert (status, answer) == (503, {"error": "1 requests of this client are running already"})
        assert ask(connection, "GET", "/v1/models/model")[0] == 200
    gate.open()
    assert running.result()[0] == 200


def test_a_request_that_comes_while_the_server_stops(start, publish, pool, make_gate, until):
    """On a connection that was open before: it is told so, or the connection is closed."""
    publish(1)
    server = start(rest_api_port=0)
    gate = make_gate()
    running = pool.submit(wait_for_gate, server, gate)
    gate.running()
    with connected(server) as connection:
        connection.putrequest("POST", PREDICT)
        connection.putheader("Content-Length", "2")
        connection.endheaders()  # its request has begun
        until(lambda: server._calls._clients.total() == 2)
        stopping = threading.Thread(target=server.stop, args=(PATIENCE,))
        stopping.start()
        until(lambda: server._calls._stopping)
        with connected(server) as other:
            with contextlib.suppress(OSError):
                status, answer = ask(other, "POST", PREDICT, IMAGES)
                assert (status, answer) == (503, {"error": "the server is stopping"})
        connection.send(b"{}")
        assert connection.getresponse().status == 400
    gate.open()
    assert running.result() == (200, {"outputs": [1]})
    stopping.join(PATIENCE)


def test_a_thousand_connections_at_once(server):
    """All are there before the first is answered; each is."""
    with contextlib.ExitStack() as opened:
        clients = []
        for _ in range(1000):
            clients.append(opened.enter_context(socket.socket()))
            clients[-1].setblocking(False)
            clients[-1].connect_ex(("127.0.0.1", server.rest_port))
        for client in clients:
            client.settimeout(PATIENCE)
            client.sendall(b"GET /v1/models/model HTTP/1.1\r\nHost: a\r\n\r\n")
        assert {client.recv(12) for client in clients} == {b"HTTP/1.1 200"}


def test_a_queue_of_connections_that_fits(server):
    """Linux tells of a listening socket how many may wait, as Send-Q."""
    table = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=False).stdout
    waiting = [line.split()[2] for line in table.splitlines() if f":{server.rest_port} " in line]
    if not waiting:
        pytest.skip("ss, of iproute2, is not here")
    assert int(waiting[0]) >= 1024
