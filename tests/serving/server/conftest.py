"""One small SavedModel for all tests of the embedded server, and servers of it in this process."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from tfhash.serving.server.server import Options, Server

PATIENCE = 30  # seconds until a test that waits for something fails


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory) -> Path:
    """A SavedModel whose answers are known by hand.

    serving_default: images uint8 [N, M] -> total int32 [N], half float32 [N], images uint8 [N, M].
    text: image_bytes string [N] -> length int32 [N], image_bytes string [N].
    wait: started, gate string [1] -> open int32 [1]; two files: it writes `started`, and ends once
    there is `gate`.
    """
    v1 = tf.compat.v1
    define = v1.saved_model.predict_signature_def
    folder = tmp_path_factory.mktemp("model") / "saved_model"
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.uint8, None, "images")
        total = tf.reduce_sum(tf.ensure_shape(tf.cast(images, tf.int32), [None, None]), axis=1)
        strings = v1.placeholder(tf.string, None, "strings")
        started = v1.placeholder(tf.string, [1], "started")
        gate = v1.placeholder(tf.string, [1], "gate")
        with tf.control_dependencies([tf.io.write_file(started[0], "")]):
            # The pattern hangs on the loop's number, else the look for files moves out of the loop.
            (looks,) = tf.while_loop(
                lambda look: tf.equal(
                    tf.size(tf.io.matching_files(tf.strings.substr(gate, 0, 1000 + 0 * look))), 0
                ),
                lambda look: [look + 1],
                [tf.constant(0)],
            )
        with tf.control_dependencies([looks]):
            opened = tf.ones([1], tf.int32)
        signatures = {
            "serving_default": define(
                {"images": images},
                {
                    "total": total,
                    "half": tf.cast(total, tf.float32) / 2,
                    "images": tf.identity(images),
                },
            ),
            "text": define(
                {"image_bytes": strings},
                {"length": tf.strings.length(strings), "image_bytes": tf.identity(strings)},
            ),
            "wait": define({"started": started, "gate": gate}, {"open": opened}),
        }
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return folder


@pytest.fixture
def base_path(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


@pytest.fixture
def publish(saved_model, base_path) -> Callable[..., Path]:
    """Publishes the SavedModel as a version of a base path, in one rename as an export does."""

    def publish(version: int, base_path: Path = base_path, warmup: Path | None = None) -> Path:
        hidden = base_path / f".{version}.tmp-test"
        shutil.copytree(saved_model, hidden)
        if warmup:
            (hidden / "assets.extra").mkdir()
            shutil.copy(warmup, hidden / "assets.extra" / "tf_serving_warmup_requests")
        return hidden.rename(base_path / str(version))

    return publish


@pytest.fixture(scope="session")
def request_of() -> Callable[..., predict_pb2.PredictRequest]:
    """A PredictRequest; inputs are arrays, lists of bytes, or TensorProtos as they are."""

    def request_of(
        signature: str = "", outputs: tuple[str, ...] = (), **inputs: Any
    ) -> predict_pb2.PredictRequest:
        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name = "model"
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            is_proto = hasattr(value, "tensor_shape")
            request.inputs[name].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
        return request

    return request_of


@pytest.fixture(scope="session")
def write_warmup(tmp_path_factory) -> Callable[..., Path]:
    """Writes a TFRecord file of these bytes."""

    def write(*records: bytes) -> Path:
        file = tmp_path_factory.mktemp("warmup") / "records"
        with tf.io.TFRecordWriter(str(file)) as writer:
            for record in records:
                writer.write(record)
        return file

    return write


@pytest.fixture(scope="session")
def config_of() -> Callable[..., model_server_config_pb2.ModelServerConfig]:
    """A config that lists models: by name, their base paths."""

    def config_of(**base_paths: Path) -> model_server_config_pb2.ModelServerConfig:
        config = model_server_config_pb2.ModelServerConfig()
        for name, base_path in base_paths.items():
            config.model_config_list.config.add(
                name=name, base_path=str(base_path), model_platform="tensorflow"
            )
        return config

    return config_of


@pytest.fixture
def start(base_path, config_of) -> Iterator[Callable[..., Server]]:
    """Starts a server of `model`, or of a config, with these options, on free ports."""
    servers = []

    def start(
        config: model_server_config_pb2.ModelServerConfig | None = None, **options: Any
    ) -> Server:
        defaults = {"port": 0, "poll_seconds": 0.02}
        server = Server(config or config_of(model=base_path), Options(**defaults | options))
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop(0)


@pytest.fixture
def stub_of() -> Iterator[Callable[..., prediction_service_pb2_grpc.PredictionServiceStub]]:
    """A PredictionService stub of a server, over TLS where credentials are given."""
    channels = []

    def stub_of(server: Server, credentials: grpc.ChannelCredentials | None = None):
        target = f"127.0.0.1:{server.port}"
        channels.append(
            grpc.secure_channel(target, credentials)
            if credentials
            else grpc.insecure_channel(target)
        )
        return prediction_service_pb2_grpc.PredictionServiceStub(channels[-1])

    yield stub_of
    for channel in channels:
        channel.close()


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], Any]], Any]:
    """Waits until a condition is true, and answers what it was."""

    def until(condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < end, "this did not come to pass"
            time.sleep(0.005)
        return value

    return until


class Gate:
    """Inputs of the signature `wait`: a request with them runs until `open`."""

    def __init__(self, folder: Path, until: Callable):
        self._started, self._gate, self._until = folder / "started", folder / "gate", until
        self.texts = {"started": [str(self._started)], "gate": [str(self._gate)]}
        self.inputs = {name: [text.encode()] for name, (text,) in self.texts.items()}

    def running(self) -> None:
        """Waits until the request runs."""
        self._until(self._started.exists)

    def open(self) -> None:
        self._gate.touch()


@pytest.fixture
def make_gate(tmp_path, until) -> Iterator[Callable[[], Gate]]:
    numbers, gates = itertools.count(), []

    def make_gate() -> Gate:
        folder = tmp_path / f"gate-{next(numbers)}"
        folder.mkdir()
        gates.append(Gate(folder, until))
        return gates[-1]

    yield make_gate
    for gate in gates:
        gate.open()  # a request that a failed test left would run for ever
