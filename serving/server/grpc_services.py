"""PredictionService, ModelService and health, as handlers of a grpc.aio server.

A message is read by the handler itself, as bytes: only so can it take its time and memory into
account. To gRPC these are streams, of which a call with one message is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import urllib.parse
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf import message
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
)

from tfhash.serving.server import operations
from tfhash.serving.server.calls import Calls, internal
from tfhash.serving.server.models import Models
from tfhash.serving.server.status import RequestError, invalid

_MOST_SMALL_BYTES = 2**20  # of a message that is no prediction
_MOST_WATCHES = 64
_NOT_IMPLEMENTED = ("Classify", "Regress", "MultiInference")

log = logging.getLogger(__name__)


def handlers(
    calls: Calls, models: Models, *, as_content: bool, health: bool
) -> list[grpc.GenericRpcHandler]:
    """PredictionService, ModelService, and grpc.health.v1 where asked for."""

    async def predict(_: object, context: grpc.aio.ServicerContext) -> None:
        with calls.admitted(_client(context)):
            answer = await calls.predict(
                partial(_message, context),
                calls.limits.max_message_bytes,
                partial(operations.predict, models, as_content=as_content),
                context.time_remaining(),
            )
            await calls.sent(answer, context.write)

    def small(kind: type[message.Message], work: Callable, *, long: bool = False) -> Callable:
        async def call(_: object, context: grpc.aio.ServicerContext) -> None:
            request = _parsed(kind, await calls.small(partial(_message, context)))
            # What takes as long as a model takes to load must not keep the others waiting.
            run = asyncio.to_thread if long else calls.small_work
            answer = await run(work, models, request)
            await context.write(answer.SerializeToString())

        return call

    services = {
        "tensorflow.serving.PredictionService": {
            "Predict": predict,
            "GetModelMetadata": small(
                get_model_metadata_pb2.GetModelMetadataRequest, operations.metadata
            ),
            **dict.fromkeys(_NOT_IMPLEMENTED, _not_implemented),
        },
        "tensorflow.serving.ModelService": {
            "GetModelStatus": small(get_model_status_pb2.GetModelStatusRequest, operations.status),
            "HandleReloadConfigRequest": small(
                model_management_pb2.ReloadConfigRequest, operations.reload_config, long=True
            ),
        },
    }
    if health:
        services["grpc.health.v1.Health"] = _health(calls)
    return [
        grpc.method_handlers_generic_handler(
            service,
            {
                name: grpc.stream_stream_rpc_method_handler(_answering(method))
                for name, method in methods.items()
            },
        )
        for service, methods in services.items()
    ]


def _health(calls: Calls) -> dict[str, Callable]:
    """Of the server itself, whose name is empty: it serves until it ends."""
    watches = asyncio.Semaphore(_MOST_WATCHES)
    kind = health_pb2.HealthCheckResponse

    async def service(context: grpc.aio.ServicerContext) -> str:
        content = await calls.small(partial(_message, context))
        return _parsed(health_pb2.HealthCheckRequest, content).service

    async def check(_: object, context: grpc.aio.ServicerContext) -> None:
        if await service(context):
            raise RequestError(grpc.StatusCode.NOT_FOUND, "")
        await context.write(kind(status=kind.SERVING).SerializeToString())

    async def watch(_: object, context: grpc.aio.ServicerContext) -> None:
        known = not await service(context)
        if watches.locked():
            raise RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already")
        async with watches:
            status = kind.SERVING if known else kind.SERVICE_UNKNOWN
            await context.write(kind(status=status).SerializeToString())
            await calls.over()
            await context.write(kind(status=kind.NOT_SERVING).SerializeToString())

    return {"Check": check, "Watch": watch}


async def _not_implemented(_: object, context: grpc.aio.ServicerContext) -> None:
    raise RequestError(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")


def _answering(method: Callable[..., Awaitable[None]]) -> Callable:
    """Ends the call with the status of a RequestError raised inside."""

    async def call(request: object, context: grpc.aio.ServicerContext) -> None:
        try:
            await method(request, context)
        except RequestError as error:
            # It cannot be where an answer is still on its way, to a client that does not take it.
            with contextlib.suppress(grpc.aio.InternalError, grpc.aio.UsageError):
                await context.abort(error.code, error.message)
        except (grpc.RpcError, grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("gRPC")
            await context.abort(internal().code, internal().message)

    return call


async def _message(context: grpc.aio.ServicerContext) -> bytes:
    content: Any = await context.read()
    if content is grpc.aio.EOF:
        raise invalid("a call without a message")
    return content


def _parsed(kind: type[message.Message], content: bytes) -> Any:
    if len(content) > _MOST_SMALL_BYTES:
        raise RequestError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"Received message larger than max ({len(content)} vs. {_MOST_SMALL_BYTES})",
        )
    try:
        return kind.FromString(content)
    except message.DecodeError:
        raise RequestError(grpc.StatusCode.INTERNAL, "Exception deserializing request!") from None


def _client(context: grpc.aio.ServicerContext) -> str:
    """The address alone, as REST has it: of ipv6:%5B::1%5D:40000 it is ::1."""
    _, _, address = urllib.parse.unquote(context.peer()).partition(":")
    return address.rpartition(":")[0].strip("[]")
