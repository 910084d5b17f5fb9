"""AsyncHashClient: HashClient for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tfhash.serving import _channel, answers
from tfhash.serving._parts import Batch, Part
from tfhash.serving._requests import METADATA, POLL_SECONDS, PROBE_SECONDS, STATUS, Requests
from tfhash.serving.answers import Codes, Metadata
from tfhash.serving.errors import DeadlineExceeded, HashServiceError, NotFound, Unavailable


class AsyncHashClient:
    """HashClient for asyncio: the same arguments, methods and errors, each method awaited.

    Make it where an event loop runs, and use it there only.
    """

    def __init__(
        self,
        target: str,
        model: str = "tfhash",
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 30.0,
        tls: grpc.ChannelCredentials | None = None,
        max_batch: int = 32,
        in_flight: int = 4,
    ):
        self._requests = Requests(target, model, version, label, timeout, max_batch, in_flight)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, _channel.options(target))
        else:
            self._channel = grpc.aio.secure_channel(target, tls, _channel.options(target))
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    async def encode_images(
        self, images: np.ndarray, *, bits: bool = False, embedding: bool = False
    ) -> Codes:
        """HashClient.encode_images."""
        parts = self._requests.images(np.asarray(images), bits=bits, embedding=embedding)
        return await self._encode(parts)

    async def encode_bytes(
        self,
        image_bytes: list[bytes],
        *,
        on_error: str = "raise",
        bits: bool = False,
        embedding: bool = False,
    ) -> Codes:
        """HashClient.encode_bytes."""
        return await self._encode(
            self._requests.files(image_bytes, on_error=on_error, bits=bits, embedding=embedding)
        )

    async def stream(
        self,
        batches: Iterable[Batch] | AsyncIterable[Batch],
        *,
        on_error: str = "raise",
        bits: bool = False,
        embedding: bool = False,
    ) -> AsyncIterator[Codes]:
        """HashClient.stream, of what is iterated over with `for` or `async for`.

        Close it (contextlib.aclosing) where you leave it early, to cancel what is in flight.
        """

        async def parts() -> AsyncIterator[Part]:
            async for batch in _iterate(batches):
                for part in self._requests.parts(
                    batch, on_error=on_error, bits=bits, embedding=embedding
                ):
                    yield part

        async with aclosing(self._stream(parts())) as codes:
            async for one in codes:
                yield one

    async def metadata(self) -> Metadata:
        """HashClient.metadata."""
        metadata = await self._metadata()
        request = self._requests.fingerprint_request(metadata)
        if request is None:
            return metadata
        try:
            response = await self._prediction.Predict(request, timeout=self._requests.timeout)
        except grpc.RpcError as error:
            raise await self._error(METADATA, error) from error
        return self._requests.with_fingerprint(metadata, response)

    async def wait_until_ready(self, timeout: float = 60.0) -> int:
        """HashClient.wait_until_ready."""
        end = time.monotonic() + timeout
        while True:
            try:
                return await self._ready_version(max(end - time.monotonic(), POLL_SECONDS))
            except (Unavailable, NotFound, DeadlineExceeded):
                if time.monotonic() + POLL_SECONDS > end:
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """HashClient.close."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncHashClient:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.close()

    async def _encode(self, parts: Iterator[Part]) -> Codes:
        async with aclosing(self._stream(_iterate(parts))) as batches:
            return await anext(batches)

    async def _stream(self, parts: AsyncIterator[Part]) -> AsyncGenerator[Codes, None]:
        pending: deque[tuple[Part, grpc.aio.Call | None]] = deque()
        answered: list[Codes] = []

        async def fill() -> None:
            while len(pending) < self._requests.in_flight:
                part = await anext(parts, None)
                if part is None:
                    break
                pending.append((part, self._send(part)))

        try:
            await fill()
            while pending:
                part, call = pending[0]
                answered.append(await self._receive(part, call))
                pending.popleft()
                await fill()
                if part.ends_batch:
                    yield self._requests.joined(part, answered)
                    answered = []
        finally:
            for _, call in pending:
                if call:
                    call.cancel()

    def _send(self, part: Part) -> grpc.aio.Call | None:
        if not part.rows:
            return None
        request = self._requests.outgoing(part)
        return self._prediction.Predict(request, timeout=self._requests.timeout)

    async def _receive(self, part: Part, call: grpc.aio.Call | None) -> Codes:
        if call is None:
            return answers.no_codes(await self._metadata(), part.request.output_filter)
        try:
            response = await call
        except grpc.RpcError as error:
            if self._requests.to_be_sent_again(part, error):
                return await self._receive(part, self._send(part))
            raise await self._error(part.signature, error) from error
        return self._requests.codes(part, response)

    async def _metadata(self) -> Metadata:
        request = self._requests.metadata_request()
        try:
            response = await self._prediction.GetModelMetadata(
                request, timeout=self._requests.timeout
            )
        except grpc.RpcError as error:
            raise await self._error(METADATA, error) from error
        return self._requests.metadata(response)

    async def _ready_version(self, timeout: float) -> int:
        request = self._requests.status_request()
        try:
            response = await self._models.GetModelStatus(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self._requests.rpc_error(STATUS, error, timeout) from error
        return self._requests.ready_version(response)

    async def _error(self, signature: str, error: grpc.RpcError) -> HashServiceError:
        unreachable = None
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            request = self._requests.status_request()
            try:
                await self._models.GetModelStatus(request, timeout=PROBE_SECONDS)
            except grpc.RpcError as probe:
                if probe.code() is grpc.StatusCode.UNAVAILABLE:
                    unreachable = probe.details()
        return self._requests.rpc_error(signature, error, self._requests.timeout, unreachable)


async def _iterate(items: Iterable | AsyncIterable) -> AsyncIterator:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
