"""Server: limits, ports, a config that changes, and stopping, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import shutil
import socket
import threading
import urllib.request
from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    prediction_log_pb2,
)

from tfhash.errors import UserError
from tfhash.serving.server.batching import BatchLimits
from tfhash.serving.server.status import RequestError
from tfhash.serving.server.versions import Retries

PATIENCE = 30
State = get_model_status_pb2.ModelVersionStatus.State
IMAGES = np.array([[1, 2], [250, 250]], np.uint8)  # sums 3 and 500


@contextlib.contextmanager
def refused(code: str, words: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as raised:
        yield
    assert (raised.value.code().name, words in raised.value.details()) == (code, True), raised.value


def totals(stub, request_of, images: np.ndarray = IMAGES) -> list[int]:
    request = request_of("", ("total",), images=images)
    return list(stub.Predict(request, timeout=PATIENCE).outputs["total"].int_val)


def serves(server) -> dict[str, list[int]]:
    return server.models.available()


def spec_of(version: int) -> model_pb2.ModelSpec:
    return model_pb2.ModelSpec(name="model", version={"value": version})


def state(server, version: int) -> str | None:
    """The state of a version of `model`, None of one that has not been seen."""
    with contextlib.suppress(RequestError):
        (status,) = server.models.statuses(spec_of(version))
        return State.Name(status.state)


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


class ConfigFile:
    def __init__(self, path):
        self.path = str(path)
        self._path = path

    def write(self, text: str) -> None:
        """In one rename, as an operator should."""
        new = self._path.with_suffix(".new")
        new.write_text(text)
        new.rename(self._path)


@pytest.fixture
def config_file(tmp_path) -> ConfigFile:
    return ConfigFile(tmp_path / "models.config")


def test_a_config_file_that_changes(
    start, publish, base_path, config_of, config_file, until, caplog
):
    publish(1)
    one, two = config_of(a=base_path), config_of(a=base_path, b=base_path)
    config_file.write(text_format.MessageToString(one))
    with caplog.at_level(logging.ERROR):
        server = start(one, model_config_file=config_file.path, config_poll_seconds=0.02)
        config_file.write(text_format.MessageToString(two))
        until(lambda: serves(server) == {"a": [1], "b": [1]})
        assert not caplog.records
        config_file.write("model_config_list { oh dear")
        until(lambda: "--model_config_file" in caplog.text)
        assert serves(server) == {"a": [1], "b": [1]}
        config_file.write("model_config_list {}")
        until(lambda: serves(server) == {})


def test_a_config_file_that_changed_while_the_server_started(
    start, publish, base_path, config_of, config_file, until
):
    publish(1)
    config_file.write(text_format.MessageToString(config_of(a=base_path, b=base_path)))
    server = start(
        config_of(a=base_path), model_config_file=config_file.path, config_poll_seconds=0.02
    )
    until(lambda: serves(server) == {"a": [1], "b": [1]})


def test_a_label_may_wait_in_the_config_file_for_its_version(
    start, publish, base_path, config_of, config_file, until, stub_of, request_of, caplog
):
    publish(1)
    config = config_of(model=base_path)
    config_file.write(text_format.MessageToString(config))
    with caplog.at_level(logging.ERROR):
        server = start(config, model_config_file=config_file.path, config_poll_seconds=0.02)
        labelled = config_of(model=base_path)
        labelled.model_config_list.config[0].version_labels["next"] = 2
        config_file.write(text_format.MessageToString(labelled))
        until(lambda: "Request to assign label to version 2 of model model" in caplog.text)
    publish(2)
    request = request_of("", ("total",), images=IMAGES)
    request.model_spec.version_label = "next"

    def answered() -> bool:
        with contextlib.suppress(grpc.RpcError):
            response = stub_of(server).Predict(request, timeout=PATIENCE)
            return response.model_spec.version.value == 2

    until(answered)


def test_an_unchanged_config_file_leaves_what_a_client_configured(
    start, publish, base_path, config_of, config_file
):
    publish(1)
    config = config_of(a=base_path)
    config_file.write(text_format.MessageToString(config))
    server = start(config, model_config_file=config_file.path, config_poll_seconds=3600.0)
    server.models.configure(config_of(b=base_path).model_config_list.config)
    server._reread()
    assert serves(server) == {"b": [1]}


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
