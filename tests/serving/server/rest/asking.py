"""What the tests ask of a server, over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from collections.abc import Iterator

PATIENCE = 30
PREDICT = "/v1/models/model:predict"
IMAGES = {"inputs": [[1, 2], [250, 250]]}
LIMIT = 500
OPTIONS = {"rest_api_port": 0, "max_message_bytes": LIMIT}
SMUGGLED = b"GET /v1/models/model HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


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
