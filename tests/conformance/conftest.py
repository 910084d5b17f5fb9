"""The servers under test: this repository's, in this process, and a real TF Serving if told of."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from tfhash import export
from tfhash.serving.server.batching import read_limits
from tfhash.serving.server.server import Options
from tfhash.serving.server.server import Server as EmbeddedServer
from tfhash.serving.server.versions import Retries

MODEL = "tfhash"
SIZE, CODE_LENGTH = 16, 13  # 13 bits take two bytes, three low bits unused
BATCHING_FILE = Path(__file__).parent / "tf_serving" / "batching_parameters.txt"
CALL_SECONDS = 20
LOAD_SECONDS = 60
TF_SERVING = os.environ.get("TFHASH_TF_SERVING")  # README.md tells how to start one


class Export:
    """A published encoder, and the codes that Keras computes with it."""

    def __init__(self, seed: int, export_dir: Path):
        keras.utils.set_random_seed(seed)
        self._encoder = keras.Sequential(
            [
                keras.Input((SIZE, SIZE, 3)),
                keras.layers.Rescaling(1 / 127.5, offset=-1),
                keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(CODE_LENGTH, activation="sigmoid"),
            ]
        )
        self.folder = export.save(
            self._encoder,
            code_length=CODE_LENGTH,
            image_size=SIZE,
            metadata={},
            images=None,
            export_dir=export_dir,
        )

    @property
    def fingerprint(self) -> str:
        return json.loads((self.folder / "assets.extra/tfhash.json").read_text())["fingerprint"]

    def embedding(self, images: np.ndarray) -> np.ndarray:
        return self._encoder(images.astype(np.float32), training=False).numpy()

    def code(self, images: np.ndarray) -> np.ndarray:
        embedding = self.embedding(images)
        assert np.abs(embedding - 0.5).min() > 1e-4  # else rounding might decide a bit
        return np.packbits(embedding > 0.5, axis=-1)


class Server:
    """A running server of the TF Serving API, its stubs, and the models that tests have it serve.

    name: embedded or tf_serving. rest: HOST:PORT, None where it has none. folder: where models are
    published; the server sees it under this path too.
    """

    def __init__(self, name: str, target: str, rest: str | None, folder: Path):
        self.name, self.target, self.folder, self._rest = name, target, folder, rest
        self.rest_address = rest
        self.channel = grpc.insecure_channel(target)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.configs: dict[str, model_server_config_pb2.ModelConfig] = {}

    def request(
        self,
        signature: str = "",
        *,
        model: str = MODEL,
        version: int | None = None,
        label: str | None = None,
        outputs: Sequence[str] = (),
        **inputs: Any,
    ) -> predict_pb2.PredictRequest:
        """inputs: arrays, lists of bytes, or TensorProtos as they are."""
        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        if label is not None:
            request.model_spec.version_label = label
        for name, value in inputs.items():
            if not hasattr(value, "tensor_shape"):
                value = tf.make_tensor_proto(value)
            request.inputs[name].CopyFrom(value)
        return request

    def predict(self, *arguments: Any, **inputs: Any) -> predict_pb2.PredictResponse:
        """The answer to `request` of the same arguments."""
        return self.prediction.Predict(self.request(*arguments, **inputs), timeout=CALL_SECONDS)

    def encode(self, *arguments: Any, **inputs: Any) -> dict[str, np.ndarray]:
        """The outputs of `predict`."""
        outputs = self.predict(*arguments, **inputs).outputs
        return {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}

    def rest(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """The HTTP status and the JSON of an answer. content: what is sent as JSON, or bytes."""
        if not self._rest:
            pytest.skip("this server has no REST API")
        body = content if content is None or isinstance(content, bytes) else json.dumps(content)
        connection = http.client.HTTPConnection(self._rest, timeout=CALL_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def publish(self, model: str, version: int, content: Path) -> Path:
        """A copy of a SavedModel as a version of a model, in one rename."""
        folder = self.folder / model / str(version)
        temporary = folder.with_name(f".{version}.tmp-test")
        shutil.copytree(content, temporary)
        os.rename(temporary, folder)
        return folder

    def withdraw(self, model: str, version: int) -> None:
        """Takes a version away, in one rename as well."""
        folder = self.folder / model / str(version)
        os.rename(folder, removed := folder.with_name(f".{version}.removed"))
        shutil.rmtree(removed)

    @contextlib.contextmanager
    def serving(self, model: str, versions: dict[int, Path], *, every: bool = False) -> Iterator:
        """Serves a model, its highest version or every version; inside, they are available."""
        for version, content in versions.items():
            self.publish(model, version, content)
        config = model_server_config_pb2.ModelConfig(
            name=model, base_path=str(self.folder / model), model_platform="tensorflow"
        )
        if every:
            config.model_version_policy.all.SetInParent()
        self.configs[model] = config
        self.reload()
        for version in versions if every else [max(versions)]:
            self.wait(lambda version=version: self.states(model).get(version) == "AVAILABLE")
        try:
            yield
        finally:
            del self.configs[model]
            self.reload()

    def reload(self, *configs: model_server_config_pb2.ModelConfig) -> None:
        """Serves what `configs` of this object hold, or these alone."""
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.extend(configs or self.configs.values())
        request.config.model_config_list.SetInParent()
        self.models.HandleReloadConfigRequest(request, timeout=LOAD_SECONDS)

    def statuses(self, model: str, version: int | None = None) -> list:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        return list(self.models.GetModelStatus(request, timeout=CALL_SECONDS).model_version_status)

    def states(self, model: str) -> dict[int, str]:
        state = get_model_status_pb2.ModelVersionStatus.State
        return {status.version: state.Name(status.state) for status in self.statuses(model)}

    def wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LOAD_SECONDS
        while not condition():
            assert time.monotonic() < end, "this did not come to pass"
            time.sleep(0.02)


@contextlib.contextmanager
def start_embedded(folder: Path, **options: Any) -> Iterator[Server]:
    started = EmbeddedServer(
        model_server_config_pb2.ModelServerConfig(), Options(port=0, rest_api_port=0, **options)
    )
    started.start()
    try:
        yield Server(
            "embedded", f"127.0.0.1:{started.port}", f"127.0.0.1:{started.rest_port}", folder
        )
    finally:
        started.stop(0)


@pytest.fixture(scope="session")
def peak_memory() -> Callable[[int], float]:
    """MiB that a process has held at most."""

    def peak_memory(pid: int) -> float:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    return peak_memory


@pytest.fixture(scope="session")
def embedded_process(tmp_path_factory) -> Callable[..., contextlib.AbstractContextManager]:
    """Starts an embedded server of one export in a process of its own, with these flags.

    Inside are the server and the number of its process.
    """

    @contextlib.contextmanager
    def embedded_process(export_folder: Path, *flags: str) -> Iterator[tuple[Server, int]]:
        base = tmp_path_factory.mktemp("process")
        os.symlink(export_folder, base / "1")
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        command = [sys.executable, "-m", "tfhash.serving.server", f"--model_base_path={base}"]
        with subprocess.Popen(
            [*command, "--port=0", f"--rest_api_port={port}", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as running:
            try:
                lines = [running.stdout.readline().split() for _ in range(4)]  # banner, gRPC, REST
                yield Server("embedded", lines[1][2], lines[2][2][7:], base), running.pid
            finally:
                running.kill()
                running.communicate()

    return embedded_process


@contextlib.contextmanager
def reach_tf_serving() -> Iterator[Server]:
    shared = os.environ.get("TFHASH_TF_SERVING_FOLDER")
    if not shared:
        pytest.fail("TFHASH_TF_SERVING_FOLDER is not set; tests/conformance/README.md tells more")
    folder = Path(shared, f"run-{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        server = Server("tf_serving", TF_SERVING, os.environ.get("TFHASH_TF_SERVING_REST"), folder)
        grpc.channel_ready_future(server.channel).result(timeout=CALL_SECONDS)
        yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def exports(tmp_path_factory) -> dict[int, Export]:
    """Two encoders; their codes of the same image differ."""
    folder = tmp_path_factory.mktemp("exports")
    return {version: Export(version, folder) for version in (1, 2)}


@pytest.fixture(scope="session")
def images(exports) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    assert (exports[1].code(images) != exports[2].code(images)).any(axis=1).all()
    return images


@pytest.fixture(scope="session")
def embedded(tmp_path_factory) -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Starts another embedded server, with options of its own."""
    return lambda **options: start_embedded(tmp_path_factory.mktemp("served"), **options)


@pytest.fixture(scope="session", params=["embedded", *(["tf_serving"] if TF_SERVING else [])])
def server(request, exports, embedded) -> Iterator[Server]:
    """Serves both encoders as versions 1, label `stable`, and 2, label `newest`, of one model."""
    if request.param == "tf_serving":
        running = reach_tf_serving()
    else:
        running = embedded(
            threads=16,
            batching=read_limits(str(BATCHING_FILE)),
            retries=Retries(0, 0.0),
            poll_seconds=0.1,
        )
    folders = {version: of_version.folder for version, of_version in exports.items()}
    with running as server, server.serving(MODEL, folders, every=True):
        # Later, because TF Serving gives no label to a version that is not available yet.
        server.configs[MODEL].version_labels.update(stable=1, newest=2)
        server.reload()
        yield server


@pytest.fixture
def refused() -> Callable[..., contextlib.AbstractContextManager]:
    """refused(code, *messages): a call inside ends so, with the start of one of the messages, in
    which … stands for anything."""

    @contextlib.contextmanager
    def refused(code: grpc.StatusCode, *messages: str) -> Iterator[None]:
        with pytest.raises(grpc.RpcError) as raised:
            yield
        error = raised.value
        assert error.code() == code, error.details()
        pattern = "|".join(".*".join(map(re.escape, message.split("…"))) for message in messages)
        assert re.match(pattern, error.details(), re.DOTALL), error.details()

    return refused
