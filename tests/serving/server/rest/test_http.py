"""REST: what HTTP itself asks for. tests/conformance has the API."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import time

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tests.serving.server.rest.asking import (
    IMAGES,
    LIMIT,
    PATIENCE,
    PREDICT,
    SMUGGLED,
    answers,
    ask,
    connected,
    raw,
)


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
