"""REST: more requests than it takes at once, and clients that are slow or have gone."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import struct
import subprocess
import threading

import pytest

from tests.serving.server.rest.asking import (
    IMAGES,
    OPTIONS,
    PATIENCE,
    PREDICT,
    SMUGGLED,
    ask,
    connected,
    raw,
)
from tfhash.serving.server.server import Server


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


SECONDS = 1.0  # for a message to come: a busy machine may let a client wait for its turn


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
    body = json.dumps({"inputs": [[7] * 10] * 100_000})  # before the server begins to wait for it
    with connected(impatient) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.request("POST", PREDICT, body)
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
