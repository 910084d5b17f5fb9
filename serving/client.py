"""HashClient: codes of images from TF Serving, or a server with the same API, over gRPC."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tfhash.serving import _channel, answers
from tfhash.serving._parts import Batch, Part
from tfhash.serving._requests import METADATA, POLL_SECONDS, PROBE_SECONDS, STATUS, Requests
from tfhash.serving.answers import Codes, Metadata
from tfhash.serving.errors import DeadlineExceeded, HashServiceError, NotFound, Unavailable


class HashClient:
    """Encodes images with a served model; safe to share among threads, best kept for long.

    target: "host:port" of the server's gRPC port. model: its name there. version or label: which
    version of it; by default the newest. timeout: seconds that a request may take, with waiting
    for a server that is down and sending again where it says UNAVAILABLE; where an answer broke off
    it is asked anew, at most four times. tls: such as grpc.ssl_channel_credentials(...); None is
    plain text. max_batch: images in one request, no more than the server allows; longer batches are
    split. in_flight: requests at a time.

    Methods raise HashServiceError (see tfhash.serving.errors), and UserError, a ValueError, for
    what is wrong before anything is sent.
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
            self._channel = grpc.insecure_channel(target, _channel.options(target))
        else:
            self._channel = grpc.secure_channel(target, tls, _channel.options(target))
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def encode_images(
        self, images: np.ndarray, *, bits: bool = False, embedding: bool = False
    ) -> Codes:
        """The codes of images: RGB uint8 [n, H, W, 3], of any size; bits, embedding: those too.

        The server resizes the images. VersionChanged where it changed its model in between.
        """
        parts = self._requests.images(np.asarray(images), bits=bits, embedding=embedding)
        return self._encode(parts)

    def encode_bytes(
        self,
        image_bytes: list[bytes],
        *,
        on_error: str = "raise",
        bits: bool = False,
        embedding: bool = False,
    ) -> Codes:
        """The codes of the contents of n JPEG or PNG files.

        on_error: "raise" for InvalidInput where one cannot be read; "mask" for `valid` False and
        a code of 0 there. VersionChanged where the server changed its model in between.
        """
        return self._encode(
            self._requests.files(image_bytes, on_error=on_error, bits=bits, embedding=embedding)
        )

    def stream(
        self,
        batches: Iterable[Batch],
        *,
        on_error: str = "raise",
        bits: bool = False,
        embedding: bool = False,
    ) -> Generator[Codes, None, None]:
        """The codes of each batch, in the order of the batches.

        batches: each what encode_images or encode_bytes takes. As many are read ahead as fill
        `in_flight` requests. One that fails ends the stream after the codes of the batches before
        it; what is in flight is cancelled then, and where the generator is closed.
        """
        return self._stream(
            part
            for batch in batches
            for part in self._requests.parts(
                batch, on_error=on_error, bits=bits, embedding=embedding
            )
        )

    def metadata(self) -> Metadata:
        """Version, signatures, code length and fingerprint of the model."""
        metadata = self._metadata()
        request = self._requests.fingerprint_request(metadata)
        if request is None:
            return metadata
        try:
            response = self._prediction.Predict(request, timeout=self._requests.timeout)
        except grpc.RpcError as error:
            raise self._error(METADATA, error) from error
        return self._requests.with_fingerprint(metadata, response)

    def wait_until_ready(self, timeout: float = 60.0) -> int:
        """Waits until the model is served, and returns its version; a label is not looked at.

        After `timeout` seconds raises what stood in the way (Unavailable, NotFound or
        DeadlineExceeded); at once, where no waiting helps, LoadFailed and others.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                return self._ready_version(max(end - time.monotonic(), POLL_SECONDS))
            except (Unavailable, NotFound, DeadlineExceeded):
                if time.monotonic() + POLL_SECONDS > end:
                    raise
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Closes the connection; what is in flight is cancelled."""
        self._channel.close()

    def __enter__(self) -> HashClient:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def _encode(self, parts: Iterator[Part]) -> Codes:
        first = next(parts)
        if first.rows and first.ends_batch:  # a blocking call takes 0.2 ms less than a future
            return self._call(first)
        with closing(self._stream(chain([first], parts))) as batches:
            return next(batches)

    def _stream(self, parts: Iterator[Part]) -> Generator[Codes, None, None]:
        pending: deque[tuple[Part, grpc.Future | None]] = deque()
        answered: list[Codes] = []

        def fill() -> None:
            for part in islice(parts, self._requests.in_flight - len(pending)):
                pending.append((part, self._send(part)))

        try:
            fill()
            while pending:
                part, call = pending[0]
                answered.append(self._receive(part, call))
                pending.popleft()
                fill()
                if part.ends_batch:
                    yield self._requests.joined(part, answered)
                    answered = []
        finally:
            for _, call in pending:
                if call:
                    call.cancel()

    def _call(self, part: Part) -> Codes:
        request = self._requests.outgoing(part)
        try:
            response = self._prediction.Predict(request, timeout=self._requests.timeout)
        except grpc.RpcError as error:
            if self._requests.to_be_sent_again(part, error):
                return self._call(part)
            raise self._error(part.signature, error) from error
        return self._requests.codes(part, response)

    def _send(self, part: Part) -> grpc.Future | None:
        if not part.rows:
            return None
        request = self._requests.outgoing(part)
        return self._prediction.Predict.future(request, timeout=self._requests.timeout)

    def _receive(self, part: Part, call: grpc.Future | None) -> Codes:
        if call is None:
            return answers.no_codes(self._metadata(), part.request.output_filter)
        try:
            response = call.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if self._requests.to_be_sent_again(part, call):
                return self._call(part)
            raise self._error(part.signature, call) from error
        return self._requests.codes(part, response)

    def _metadata(self) -> Metadata:
        """Without the fingerprint, which takes a second call."""
        request = self._requests.metadata_request()
        try:
            response = self._prediction.GetModelMetadata(request, timeout=self._requests.timeout)
        except grpc.RpcError as error:
            raise self._error(METADATA, error) from error
        return self._requests.metadata(response)

    def _ready_version(self, timeout: float) -> int:
        request = self._requests.status_request()
        try:
            response = self._models.GetModelStatus(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self._requests.rpc_error(STATUS, error, timeout) from error
        return self._requests.ready_version(response)

    def _error(self, signature: str, error: grpc.RpcError) -> HashServiceError:
        """What a failed call means; one that ran out of time may never have left this machine."""
        unreachable = None
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            # Unlike Predict this call does not wait for a server that is down, but tells why.
            try:
                self._models.GetModelStatus(self._requests.status_request(), timeout=PROBE_SECONDS)
            except grpc.RpcError as probe:
                if probe.code() is grpc.StatusCode.UNAVAILABLE:
                    unreachable = probe.details()
        return self._requests.rpc_error(signature, error, self._requests.timeout, unreachable)
