"""The REST API of TF Serving: /v1/models/NAME[/versions/N|/labels/L][:predict|/metadata]."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import json_format, message
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from tfhash.serving.server import json_tensors, operations
from tfhash.serving.server.models import Models
from tfhash.serving.server.servable import DEFAULT_SIGNATURE
from tfhash.serving.server.status import RequestError, invalid

_IDLE_SECONDS = 60
_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_GET = re.compile(_MODEL + r"(?P<metadata>/metadata)?", re.IGNORECASE)
_POST = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)

_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}

log = logging.getLogger(__name__)


class RestServer(ThreadingHTTPServer):
    """Listens once it is made, answers once it is started. OSError where the port cannot be had."""

    def __init__(
        self, host: str, port: int, models: Models, *, max_body_bytes: int, max_concurrent: int
    ):
        self.models = models
        self.max_body_bytes = max_body_bytes
        self.max_concurrent = max_concurrent
        self.running = threading.BoundedSemaphore(max_concurrent)
        super().__init__((host, port), _Handler)

    def drain(self, grace: float) -> None:
        """Refuses new requests on open connections, gives those that run `grace` seconds."""
        end = time.monotonic() + grace
        for _ in range(self.max_concurrent):
            if not self.running.acquire(timeout=max(0.0, end - time.monotonic())):
                return

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("%s: connection lost", client_address, exc_info=True)


def respond(models: Models, command: str, path: str, body: bytes) -> tuple[int, str]:
    """HTTP status and JSON text."""
    try:
        if command == "POST" and (match := _POST.fullmatch(path)):
            if match["method"].lower() != "predict":
                raise RequestError(grpc.StatusCode.UNIMPLEMENTED, "only :predict is implemented")
            return 200, json.dumps(_predict(models, _spec(match), body))
        if command == "GET" and (match := _GET.fullmatch(path)):
            return 200, _to_json(_describe(models, match))
        raise invalid(f"Malformed request: {command} {path}")
    except RequestError as error:
        return _HTTP.get(error.code, 500), _error(error.message)


def _predict(models: Models, spec: model_pb2.ModelSpec, body: bytes) -> dict:
    content = json_tensors.parse(body)
    name = content.get("signature_name") or DEFAULT_SIGNATURE
    with models.use(spec) as servable:
        if name not in servable.signatures:  # not TF Serving's code and words over gRPC
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        arrays = json_tensors.inputs(content, servable.signature(name))
        return json_tensors.answer(content, servable.run(name, arrays))


def _describe(models: Models, match: re.Match) -> message.Message:
    spec = _spec(match)
    if match["metadata"]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[operations.SIGNATURE_DEF]
        )
        return operations.metadata(models, request)
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    return operations.status(models, request)


def _spec(match: re.Match) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=match["name"])
    if match["version"]:
        try:
            spec.version.value = int(match["version"])
        except ValueError:  # more than 64 bits
            raise invalid(f"Failed to convert version: {match['version']} to numeric.") from None
    elif match["label"]:
        spec.version_label = match["label"]
    return spec


def _to_json(answer: message.Message) -> str:
    return json_format.MessageToJson(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _error(text: str) -> str:
    return json.dumps({"error": text})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True  # else an answer waits 40 ms between its header and its body
    server: RestServer

    def _body(self) -> bytes:
        limit = self.server.max_body_bytes
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise invalid("a Content-Length is needed")
        if int(length) > limit:
            self.close_connection = True  # what is not read would be taken for the next request
            raise RequestError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Received message larger than max ({length} vs. {limit})",
            )
        return self.rfile.read(int(length))

    def _handle(self) -> None:
        server = self.server
        if not server.running.acquire(blocking=False):
            self.close_connection = True  # the body is not read
            self._send(503, _error(f"{server.max_concurrent} requests are running already"))
            return
        try:
            self._send(*self._answer())
        finally:
            server.running.release()

    def _answer(self) -> tuple[int, str]:
        try:
            return respond(self.server.models, self.command, self.path, self._body())
        except RequestError as error:
            return _HTTP.get(error.code, 500), _error(error.message)
        except Exception:
            log.exception("%s %s", self.command, self.path)
            self.close_connection = True
            return 500, _error("internal error; the server's log tells more")

    def _send(self, status: int, text: str) -> None:
        payload = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = _handle

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug(format, *arguments)
