"""Server: calls that do not end, and callers that have gone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import urllib.request
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
)

from tests.serving.server.asking import IMAGES, PATIENCE, refused, totals

SECONDS = 0.3  # for a message to come


def never() -> Iterator[bytes]:
    """The messages of a call that sends none, until the test is over."""
    threading.Event().wait(PATIENCE)
    yield from ()


PREDICT = "/tensorflow.serving.PredictionService/Predict"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
CHECK = "/grpc.health.v1.Health/Check"


@pytest.mark.parametrize("method", [PREDICT, STATUS, METADATA, CHECK])
def test_a_message_that_does_not_come(start, publish, method):
    """The server ends the call, though the client would wait for ever."""
    publish(1)
    server = start(receive_seconds=SECONDS)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.stream_unary(method).future(never())
        assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert call.details() == "the client took too long over a message"


def test_calls_without_messages_keep_nobody_waiting(start, publish, stub_of, request_of):
    """More of each kind than there are threads, and memory for: status, health, predictions."""
    publish(1)
    server = start(threads=2, max_held_bytes=256 * 2**20)
    with contextlib.ExitStack() as opened:
        channels = [
            opened.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}"))
            for _ in range(4)
        ]
        for channel in channels:
            for method in (PREDICT, STATUS, METADATA, CHECK):
                call = channel.stream_unary(method).future(never())
                opened.callback(call.cancel)
        models = model_service_pb2_grpc.ModelServiceStub(channels[0])
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "model"})
        assert models.GetModelStatus(request, timeout=PATIENCE).model_version_status
        health = health_pb2_grpc.HealthStub(channels[0])
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == 1
        assert totals(stub_of(server), request_of) == [3, 500]


def test_predictions_that_run_keep_no_status_waiting(
    start, publish, make_gate, stub_of, request_of
):
    """As many as there are threads, and more that wait for one."""
    publish(1)
    server = start(threads=2, rest_api_port=0)
    stub = stub_of(server)
    gates = [make_gate() for _ in range(2)]
    running = [
        stub.Predict.future(request_of("wait", **gate.inputs), timeout=PATIENCE) for gate in gates
    ]
    for gate in gates:
        gate.running()
    waiting = [stub.Predict.future(request_of(images=IMAGES), timeout=PATIENCE) for _ in range(20)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "model"})
        assert models.GetModelStatus(request, timeout=PATIENCE).model_version_status
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == 1
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/model"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert answer.status == 200
    assert not any(call.done() for call in waiting)
    for gate in gates:
        gate.open()
    assert {call.code() for call in [*running, *waiting]} == {grpc.StatusCode.OK}


def test_health_that_is_watched(start):
    server = start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answers = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert next(answers).status == health_pb2.HealthCheckResponse.SERVING
        unknown = health_pb2.HealthCheckRequest(service="other")
        with refused("NOT_FOUND", ""):
            stub.Check(unknown, timeout=PATIENCE)
        others = stub.Watch(unknown, timeout=PATIENCE)
        assert next(others).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        server.stop(0)
        assert next(answers).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_client_that_does_not_read_its_answer(start, publish, request_of, until, capfd):
    """It counts no longer; the memory is free once the connection is gone."""
    publish(1)
    server = start(receive_seconds=SECONDS)
    working = server._calls._working
    before = tasks(server)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.http2.bdp_probe", 0)]) as one:
        request = request_of(images=np.zeros((1000, 1000), np.uint8))
        call = one.unary_stream(PREDICT)(request.SerializeToString())
        until(lambda: working._free < working.total)
        until(lambda: not server._calls._clients)
        assert working._free < working.total  # it is still in use
        call.cancel()  # whose answers were never asked for
    until(lambda: working._free == working.total)
    until(lambda: tasks(server) <= before)
    assert "Traceback" not in capfd.readouterr().err


def tasks(server) -> int:
    return len(asyncio.all_tasks(server._loop))


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_deadline_ends_what_waits(start, publish, make_gate, stub_of, request_of, until, side):
    """That of the client or of the server; a request that waits for a thread never runs."""
    publish(1)
    server = start(threads=1, request_seconds=2 * SECONDS if side == "server" else PATIENCE)
    stub, gate = stub_of(server), make_gate()
    timeout = SECONDS if side == "client" else PATIENCE
    running = stub.Predict.future(request_of("wait", **gate.inputs), timeout=timeout)
    gate.running()
    waiting = make_gate()
    call = stub.Predict.future(request_of("wait", **waiting.inputs), timeout=timeout)
    for one in (running, call):
        assert one.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    gate.open()
    until(lambda: not server._calls._at_work)
    assert not (waiting._started).exists()
    assert server._calls._held._free == server._calls._held.total
    assert server._calls._working._free == server._calls._working.total
    assert totals(stub, request_of) == [3, 500]


def test_a_request_that_waits_for_memory(start, publish, stub_of, request_of, until):
    """It gets it once another is done, or is told that there is none."""
    publish(1)
    server = start(max_working_bytes=2**20, threads=4)
    stub = stub_of(server)
    most = server._calls._working.take(2**20, 0)
    patient = stub.Predict.future(request_of(images=IMAGES), timeout=PATIENCE)
    until(lambda: server._calls._working.contested)
    with refused("DEADLINE_EXCEEDED", ""):
        stub.Predict(request_of(images=IMAGES), timeout=SECONDS)
    most.release()
    assert list(patient.result().outputs["total"].int_val) == [3, 500]
    with refused("RESOURCE_EXHAUSTED", "the server has 1.0 MiB for all requests together"):
        totals(stub, request_of, np.zeros((1000, 1000), np.uint8))


def test_a_call_without_a_message(start):
    server = start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for method in (PREDICT, STATUS):
            with refused("INVALID_ARGUMENT", "a call without a message"):
                channel.stream_unary(method)(iter(()), timeout=PATIENCE)


@pytest.mark.parametrize("method", [PREDICT, STATUS, METADATA, CHECK])
def test_a_message_that_is_none(start, method):
    server = start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with refused("INTERNAL", "Exception deserializing request!"):
            channel.unary_unary(method)(b"\xff" * 100, timeout=PATIENCE)
        if method != PREDICT:
            with refused("RESOURCE_EXHAUSTED", "Received message larger than max"):
                channel.unary_unary(method)(bytes(2**20 + 1), timeout=PATIENCE)
