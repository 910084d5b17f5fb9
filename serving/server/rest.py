"""The REST API of TF Serving: /v1/models/NAME[/versions/N|/labels/L][:predict|/metadata]."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import urllib.parse
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf import json_format, message
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from tfhash.serving.server import json_tensors, operations
from tfhash.serving.server.calls import Busy, Calls, internal
from tfhash.serving.server.models import Models
from tfhash.serving.server.servable import DEFAULT_SIGNATURE
from tfhash.serving.server.status import RequestError, invalid
from tfhash.serving.server.turn import Answer, Turn

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
_GZIP = 16 + zlib.MAX_WBITS

log = logging.getLogger(__name__)


class RestApi:
    """The ASGI application. `abort` drops the connection of a client that takes no answer."""

    def __init__(self, calls: Calls, models: Models):
        self._calls = calls
        self._models = models

    async def __call__(
        self, scope: dict, receive: Callable, send: Callable, abort: Callable[[], None]
    ) -> None:
        body = _Body(receive, scope["headers"])
        try:
            await self._respond(scope, body, partial(_send, send, body))
        except Busy as error:
            await _send(send, body, _error(error.message), 503)
        except _Unsent:
            abort()
        except RequestError as error:
            await _send(send, body, _error(error.message), _HTTP.get(error.code, 500))
        except Exception:
            log.exception("%s %s", scope["method"], scope["path"])
            await _send(send, body, _error(internal().message), 500, close=True)

    async def _respond(
        self, scope: dict, body: _Body, send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        # Only the parts that have been found are decoded: %2F is no separator.
        method, path = scope["method"], scope["raw_path"].decode("ascii")
        if method not in ("GET", "POST"):
            raise RequestError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported method {method}")
        if method == "POST" and (match := _POST.fullmatch(path)):
            if match["method"].lower() != "predict":
                raise RequestError(grpc.StatusCode.UNIMPLEMENTED, "only :predict is implemented")
            await self._predict(_spec(match), body, scope, send)
        elif method == "GET" and (match := _GET.fullmatch(path)):
            await send(await self._calls.small_work(_describe, self._models, match))
        else:
            raise invalid(f"Malformed request: {method} {path}")

    async def _predict(
        self, spec: model_pb2.ModelSpec, body: _Body, scope: dict, send: Callable
    ) -> None:
        client = scope["client"]
        with self._calls.admitted(client[0] if client else ""):
            limit = self._calls.limits.max_message_bytes
            answer = await self._calls.predict(
                partial(body.read, limit), body.most(limit), partial(_predicted, self._models, spec)
            )
            try:
                await self._calls.sent(answer, send)
            except RequestError:
                raise _Unsent from None


class _Unsent(Exception):
    """An answer that a client does not take."""


class _Body:
    """The body of a request: how large it may become, and its bytes, unpacked."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], headers: list[tuple[bytes, bytes]]):
        self._receive = receive
        of = dict(headers)
        self._coding = of.get(b"content-encoding", b"identity").strip().lower()
        self._length = int(of[b"content-length"]) if b"content-length" in of else None
        # Without either header there is none: what follows is the next request.
        self.is_read = self._length == 0 or (
            self._length is None and b"transfer-encoding" not in of
        )

    def most(self, limit: int) -> int:
        """Bytes of memory to hold for it. RequestError where it is over the limit."""
        if self._coding not in (b"identity", b"gzip"):
            raise invalid(f"Content-Encoding {self._coding.decode('latin-1')}; allowed: gzip")
        if self._length is None or self._coding == b"gzip":
            return limit
        if self._length > limit:
            raise _too_large(self._length, limit)
        return self._length

    async def read(self, limit: int) -> bytes:
        content = bytearray()
        unpack = _Gunzip(limit) if self._coding == b"gzip" else None
        received = 0
        more = True
        while more:
            event = await self._receive()
            if event["type"] != "http.request":
                raise RequestError(grpc.StatusCode.CANCELLED, "the client has gone")
            received += len(event["body"])
            content += unpack(event["body"]) if unpack else event["body"]
            if max(received, len(content)) > limit:
                raise _too_large(max(received, len(content)), limit)
            more = event["more_body"]
        self.is_read = True
        if unpack:
            unpack.finish()
        return bytes(content)


class _Gunzip:
    """Unpacks gzip piece by piece, never to more than a byte over the limit."""

    def __init__(self, limit: int):
        self._left = limit + 1
        self._member = zlib.decompressobj(_GZIP)

    def __call__(self, packed: bytes) -> bytes:
        pieces = []
        while packed and self._left > 0:
            if self._member.eof:  # a file may have several members
                self._member = zlib.decompressobj(_GZIP)
            try:
                piece = self._member.decompress(packed, self._left)
            except zlib.error as error:
                raise invalid(f"gzip: {error}") from None
            self._left -= len(piece)
            pieces.append(piece)
            packed = self._member.unused_data
        return b"".join(pieces)

    def finish(self) -> None:
        if not self._member.eof:
            raise invalid("gzip: the body is cut off")


def _too_large(size: int, limit: int) -> RequestError:
    return RequestError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, f"Received message larger than max ({size} vs. {limit})"
    )


def _predicted(models: Models, spec: model_pb2.ModelSpec, turn: Turn) -> Answer:
    with contextlib.ExitStack() as using:
        with turn.parsing():
            servable = using.enter_context(models.use(spec))
            content = json_tensors.parse(turn.message, turn.most_parsed)
            by_rows = "instances" in content
            name = content.get("signature_name") or DEFAULT_SIGNATURE
            if name not in servable.signatures:  # not TF Serving's code and words over gRPC
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            signature = servable.signature(name)
            arrays = json_tensors.inputs(content, signature, servable.max_tensor_bytes)
            del content
            job = servable.prepare(name, arrays, most=turn.working.total)
            del arrays
            hold = using.enter_context(turn.take(job.size))
        text = json_tensors.answer(by_rows, job.run(turn))
        return Answer(text, hold.handed_over(len(text)))


def _describe(models: Models, match: re.Match) -> bytes:
    spec = _spec(match)
    if match["metadata"]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[operations.SIGNATURE_DEF]
        )
        return _to_json(operations.metadata(models, request))
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    return _to_json(operations.status(models, request))


def _spec(match: re.Match) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=_decoded(match["name"]))
    if match["version"]:
        try:
            spec.version.value = int(match["version"])
        except ValueError:  # more than 64 bits
            raise invalid(f"Failed to convert version: {match['version']} to numeric.") from None
    elif match["label"]:
        spec.version_label = _decoded(match["label"])
    return spec


def _decoded(text: str) -> str:
    return urllib.parse.unquote(text, errors="replace")


def _to_json(answer: message.Message) -> bytes:
    return json_format.MessageToJson(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    ).encode()


def _error(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


async def _send(
    send: Callable, body: _Body, content: bytes, status: int = 200, *, close: bool = False
) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    if close or not body.is_read:
        headers.append((b"connection", b"close"))  # the rest of the body is not waited for
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
