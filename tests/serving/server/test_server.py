"""Server: limits, ports, warm-up and stopping, over real connections."""

from __future__ import annotations

import contextlib
import gc
import shutil
import socket
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    prediction_log_pb2,
)

from tests.serving.server.asking import IMAGES, PATIENCE, refused, serves, spec_of, state, totals
from tfhash.errors import UserError
from tfhash.serving.server.batching import BatchLimits
from tfhash.serving.server.versions import Retries


def test_a_version_is_served_once_its_folder_is_there(start, publish, until, stub_of, request_of):
    server = start()
    assert serves(server) == {"model": []}
    publish(1)
    until(lambda: serves(server) == {"model": [1]})
    assert totals(stub_of(server), request_of) == [3, 500]


def test_one_look_where_the_seconds_between_looks_are_0(start, publish, until):
    publish(1)
    server, watched = start(poll_seconds=0.0), start()
    publish(2)
    until(lambda: serves(watched) == {"model": [2]})
    assert serves(server) == {"model": [1]}


def test_more_calls_at_once_than_allowed(start, publish, make_gate, stub_of, request_of, until):
    publish(1)
    stub = stub_of(start(max_concurrent_requests=2))
    gates = [make_gate(), make_gate()]
    running = [
        stub.Predict.future(request_of("wait", **gate.inputs), timeout=PATIENCE) for gate in gates
    ]
    for gate in gates:
        gate.running()
    with refused("RESOURCE_EXHAUSTED", "2 requests are running already"):
        totals(stub, request_of)
    for gate in gates:
        gate.open()
    assert [list(call.result().outputs["open"].int_val) for call in running] == [[1], [1]]

    def answered() -> bool:  # a call counts until the server has forgotten it
        with contextlib.suppress(grpc.RpcError):
            return totals(stub, request_of) == [3, 500]

    until(answered)


def test_a_tensor_over_the_limit(start, publish, stub_of, request_of):
    publish(1)
    stub = stub_of(start(max_tensor_bytes=4))
    assert totals(stub, request_of) == [3, 500]
    with refused(
        "INVALID_ARGUMENT", "tensor parsing error: images (6 bytes; this server allows 4)"
    ):
        totals(stub, request_of, np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("rows", "words"),
    [(500, "Received message larger than max"), (200, "Sent message larger than max")],
)
def test_a_message_over_the_limit(start, publish, stub_of, request_of, rows, words):
    """A row is a byte of the request and four of the answer."""
    publish(1)
    stub = stub_of(start(max_message_bytes=500))
    with refused("RESOURCE_EXHAUSTED", words):
        request = request_of("", ("half",), images=np.zeros((rows, 1), np.uint8))
        stub.Predict(request, timeout=PATIENCE)
    assert totals(stub, request_of) == [3, 500]


def test_batching_limits(start, publish, stub_of, request_of):
    publish(1)
    stub = stub_of(start(batching=BatchLimits(max_batch_size=2)))
    assert totals(stub, request_of) == [3, 500]
    with refused("INVALID_ARGUMENT", "Task size 3 is larger than maximum input batch size 2"):
        totals(stub, request_of, np.zeros((3, 1), np.uint8))


@pytest.mark.parametrize("as_content", [True, False])
def test_both_encodings_of_answers(start, publish, stub_of, request_of, as_content):
    publish(1)
    response = stub_of(start(as_content=as_content)).Predict(
        request_of("", ("total",), images=IMAGES), timeout=PATIENCE
    )
    total = response.outputs["total"]
    values = ([], b"\x03\0\0\0\xf4\x01\0\0") if as_content else ([3, 500], b"")
    assert (list(total.int_val), total.tensor_content) == values


@pytest.mark.parametrize("health", [True, False])
def test_health(start, health):
    server = start(health=health)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        request = health_pb2.HealthCheckRequest()
        if health:
            answer = check(request, timeout=PATIENCE)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        else:
            with refused("UNIMPLEMENTED", "Method not found"):
                check(request, timeout=PATIENCE)


def warmup_of(write_warmup, request):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return write_warmup(log.SerializeToString())


def test_a_failing_warm_up_blocks_its_version(start, publish, write_warmup, request_of, until):
    bad = warmup_of(write_warmup, request_of(images=IMAGES[0]))
    publish(1)
    server = start(retries=Retries(0, 0.0))
    careless = start(warm_up=False)
    publish(2, warmup=bad)
    until(lambda: serves(careless) == {"model": [2]})
    until(lambda: state(server, 2) == "END")
    assert "Shape of tensor" in server.models.statuses(spec_of(2))[0].error
    assert serves(server) == {"model": [1]}
    publish(3, warmup=warmup_of(write_warmup, request_of(images=IMAGES)))
    until(lambda: serves(server) == {"model": [3]})


def test_a_warm_up_does_not_take_part_in_a_full_queue(
    start, publish, write_warmup, request_of, make_gate, stub_of, until
):
    publish(1)
    limits = BatchLimits(max_enqueued=1, threads=2)
    server = start(batching=limits, retries=Retries(0, 0.0), threads=8)
    stub = stub_of(server)
    gates = [make_gate() for _ in range(2)]
    running = [
        stub.Predict.future(request_of("wait", **gate.inputs), timeout=PATIENCE) for gate in gates
    ]
    for gate in gates:
        gate.running()
    # Of three more one waits; it is known to wait once the two others are refused.
    others = [stub.Predict.future(request_of(images=IMAGES), timeout=PATIENCE) for _ in range(3)]
    until(lambda: sum(call.done() for call in others) == 2)
    publish(2, warmup=warmup_of(write_warmup, request_of(images=IMAGES)))
    until(lambda: state(server, 2))
    for gate, call in zip(gates, running, strict=True):
        gate.open()
        call.result()
    until(lambda: state(server, 2) == "AVAILABLE")
    codes = sorted(call.code().name for call in others)
    assert codes == ["OK", "UNAVAILABLE", "UNAVAILABLE"]


def test_a_server_does_not_start_without_its_model(start, base_path):
    (base_path / "1").mkdir()
    with pytest.raises(UserError, match=r"1 servable\(s\) did not become available: {name: model"):
        start()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": "taken"}, "--port: cannot listen on 127.0.0.1:{port}; is it taken?"),
        ({"rest_api_port": "taken"}, "--rest_api_port: cannot listen on 127.0.0.1:{port}: "),
        ({"host": "no.such.host.invalid"}, "--port: cannot listen on no.such.host.invalid:0; "),
    ],
)
def test_a_port_that_cannot_be_had(start, options, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = {name: port if value == "taken" else value for name, value in options.items()}
        with pytest.raises(UserError) as raised:
            start(**options)
    assert str(raised.value).startswith(message.format(port=port))


def test_two_servers_do_not_share_a_port(start, caplog):
    with pytest.raises(UserError, match="is it taken"):
        start(port=start().port)
    gc.collect()  # a task that still waits is told then
    assert not caplog.records


def test_a_stop_lets_what_runs_finish(start, publish, make_gate, stub_of, request_of, until):
    publish(1)
    server = start()
    stub, gate = stub_of(server), make_gate()
    running = stub.Predict.future(request_of("wait", **gate.inputs), timeout=PATIENCE)
    gate.running()
    stopping = threading.Thread(target=server.stop, args=(PATIENCE,))
    stopping.start()

    def stopped() -> bool:
        try:
            totals(stub, request_of)
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.UNAVAILABLE

    until(stopped)
    assert stopping.is_alive()
    gate.open()
    assert list(running.result().outputs["open"].int_val) == [1]
    stopping.join(PATIENCE)
    assert serves(server) == {"model": []}
    server.stop(0)  # once more is no error


def test_requests_over_hot_reloads(start, publish, base_path, stub_of, request_of):
    """Published, published again and removed: every answer is right."""
    publish(1)
    server = start(poll_seconds=0.005)
    stub, changed = stub_of(server), threading.Event()

    def ask() -> int:
        count = 0
        while not changed.is_set():
            assert totals(stub, request_of) == [3, 500]
            count += 1
        return count

    with futures.ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            for version in range(2, 8):
                publish(version)
                while serves(server) != {"model": [version]}:
                    assert not any(one.done() for one in asking), asking
                shutil.rmtree(base_path / str(version - 1))
        finally:
            changed.set()
        assert all(one.result() > 0 for one in asking)
