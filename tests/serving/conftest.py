"""A prediction service in this process: answers like TF Serving, from a function of NumPy."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.serving import tiny_exports

CODE_LENGTH = 12
JPEG = b"\xff\xd8\xff"  # begins a file, and is passed over here
State = get_model_status_pb2.ModelVersionStatus.State


def encode(value: np.ndarray) -> dict[str, np.ndarray]:
    """12 bits of each image: its first byte and the high half of its second.

    An image is pixels or, as bytes, a file; a file of less than two bytes, but for how a JPEG
    begins, is not readable.
    """
    if value.dtype == object:
        value = [content[:5].removeprefix(JPEG) for content in value]
        valid = np.array([len(content) > 1 for content in value], bool)
        pairs = [content[:2] if len(content) > 1 else b"\0\0" for content in value]
        first = np.frombuffer(b"".join(pairs), np.uint8).reshape(-1, 2)
    else:
        valid = np.ones(len(value), bool)
        first = value.reshape(len(value), -1)[:, :2]
    code = first & np.array([0xFF, 0xF0], np.uint8)
    bits = np.unpackbits(code, axis=-1, count=CODE_LENGTH)
    embedding = bits.astype(np.float32) * 0.5 + 0.25
    embedding[~valid] = 0
    return {"code": code, "bits": bits, "embedding": embedding, "valid": valid}


class FakeService(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """What a test may look at and change while the server runs."""

    def __init__(self):
        self.version = 3
        self.fingerprint = "f3"  # "": an export of before there were fingerprints
        self.refusal = "Invalid PNG data, size 4559"  # what TensorFlow says
        self.as_content = True
        self.states = [(3, State.AVAILABLE, 0, "")]
        self.requests: list[predict_pb2.PredictRequest] = []
        self.probes: list[predict_pb2.PredictRequest] = []  # for the fingerprint alone
        self.deadlines: list[float] = []
        self.most_at_once = 0
        self.before: Callable[[int, grpc.ServicerContext], None] = lambda number, context: None
        self.after: Callable[[predict_pb2.PredictResponse], None] = lambda response: None
        self._at_once = 0
        self._number = itertools.count()
        self._lock = threading.Lock()

    def files(self) -> int:
        """How many files came here."""
        return sum(len(request.inputs["image_bytes"].string_val) for request in self.requests)

    def fail_at(self, number_of_request: int) -> None:
        """From now on, this one of all requests gets an error that nobody sends again."""

        def before(number, context):
            if number == number_of_request:
                context.abort(grpc.StatusCode.INTERNAL, "out of order")

        self.before = before

    def Predict(self, request, context):
        if list(request.output_filter) == ["fingerprint"]:
            self.probes.append(request)
            return self._answer(request, context)
        with self._lock:
            number = next(self._number)
            self.requests.append(request)
            self.deadlines.append(context.time_remaining())
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self.before(number, context)
            return self._answer(request, context)
        finally:
            with self._lock:
                self._at_once -= 1

    def _answer(self, request, context):
        ((name, proto),) = request.inputs.items()
        signature = request.model_spec.signature_name
        assert name == ("images" if signature == "encode_images" else "image_bytes")
        outputs = encode(tf.make_ndarray(proto))
        if self.fingerprint:
            rows = len(outputs["code"])
            outputs["fingerprint"] = np.array([self.fingerprint.encode()] * rows, object)
        if signature == "encode_bytes" and not outputs["valid"].all():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refusal)
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        response.model_spec.version.value = self.version
        for name in request.output_filter:
            if name not in outputs:
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"output tensor alias not found in signature: {name}",  # TF Serving's words
                )
            response.outputs[name].CopyFrom(self._tensor(outputs[name]))
        self.after(response)
        return response

    def _tensor(self, array):
        proto = tf.make_tensor_proto(array)
        if not self.as_content and array.dtype != object:
            proto.ClearField("tensor_content")
            field = {"f": "float_val", "u": "int_val", "b": "bool_val"}[array.dtype.kind]
            del getattr(proto, field)[:]
            getattr(proto, field).extend(array.ravel().tolist())
        return proto

    def GetModelMetadata(self, request, context):
        spec = request.model_spec
        if spec.name != "tfhash":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: Latest({spec.name})")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, (input_name, dtype) in {
            "encode_images": ("images", tf.uint8),
            "encode_bytes_partial": ("image_bytes", tf.string),
        }.items():
            signature = signatures.signature_def[name]
            signature.method_name = "tensorflow/serving/predict"
            signature.inputs[input_name].dtype = dtype.as_datatype_enum
            signature.inputs[input_name].tensor_shape.unknown_rank = True
            signature.outputs["bits"].dtype = tf.uint8.as_datatype_enum
            for size in (-1, CODE_LENGTH):
                signature.outputs["bits"].tensor_shape.dim.add(size=size)
            if self.fingerprint:
                signature.outputs["fingerprint"].dtype = tf.string.as_datatype_enum
        # As in every export; it cannot be called, and its dtype is none.
        initialisation = signatures.signature_def["__saved_model_init_op"]
        initialisation.outputs["__saved_model_init_op"].name = "NoOp"
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec)
        response.model_spec.version.value = self.version
        response.metadata["signature_def"].Pack(signatures)
        return response

    def GetModelStatus(self, request, context):
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state, code, message in self.states:
            status = response.model_version_status.add(version=version, state=state)
            status.status.error_code = code
            status.status.error_message = message
        return response


class FakeServer:
    """The service behind a port that stays the same over stops and starts."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None):
        self.service = FakeService()
        self._credentials = credentials
        self._server: grpc.Server | None = None
        self._port = 0
        self.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        # Without reuse of the port a second server there is an error, as it should be.
        options = [("grpc.max_receive_message_length", 2**26), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(futures.ThreadPoolExecutor(16), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            self.service, self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self.service, self._server)
        address = f"127.0.0.1:{self._port}"
        if self._credentials:
            self._port = self._server.add_secure_port(address, self._credentials)
        else:
            self._port = self._server.add_insecure_port(address)
        self._server.start()

    def stop(self) -> None:
        """Drops what is in flight, as a killed process does."""
        self._server.stop(grace=0).wait()


@pytest.fixture
def start_server() -> Iterator[Callable[..., FakeServer]]:
    servers = []

    def start(**arguments) -> FakeServer:
        servers.append(FakeServer(**arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(start_server) -> FakeServer:
    return start_server()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """Files of a certificate for 127.0.0.1, which vouches for itself, and of its key."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = "openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256"
    command += f" -subj /CN=tfhash -addext subjectAltName=IP:127.0.0.1 -out {certificate}"
    subprocess.run([*command.split(), "-keyout", key], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def tls_server(start_server, certificate) -> FakeServer:
    """A server that speaks TLS, and only with clients that show its own certificate."""
    root, key = (path.read_bytes() for path in certificate)
    credentials = grpc.ssl_server_credentials([(key, root)], root, require_client_auth=True)
    return start_server(credentials=credentials)


@pytest.fixture(scope="session")
def two_exports(tmp_path_factory) -> list[Path]:
    """Of two tiny networks, with the files of every engine there is; not to be changed."""
    folder = tmp_path_factory.mktemp("two_exports")
    return [tiny_exports.make(folder / str(seed), seed) for seed in (1, 2)]


@pytest.fixture
def export(two_exports, tmp_path) -> Path:
    """A copy of the first one that a test may spoil."""
    return shutil.copytree(two_exports[0], tmp_path / "export")
