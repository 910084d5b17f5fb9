"""The limits of TF Serving's batch scheduler: size of a task, length of the queue, threads.

Requests are not merged: on a CPU that gains little, and a client that sends batches gains it all.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grpc
import numpy as np

from tfhash.errors import UserError
from tfhash.serving.server import text_protos
from tfhash.serving.server.status import RequestError, invalid

_DEFAULT_BATCH_SIZE = 1000
_DEFAULT_ENQUEUED = 10


@dataclass(frozen=True)
class BatchLimits:
    """max_batch_size rows a request; threads run at once, max_enqueued requests wait."""

    max_batch_size: int = _DEFAULT_BATCH_SIZE
    max_enqueued: int = _DEFAULT_ENQUEUED
    threads: int = os.cpu_count() or 1


def read_limits(path: str | None) -> BatchLimits:
    """The limits in a batching_parameters_file, TF Serving's defaults where none is given."""
    if not path:
        return BatchLimits()
    flag = "batching_parameters_file"
    parameters = text_protos.read(flag, path, text_protos.BatchingParameters)
    defaults = BatchLimits()

    def value(name: str, default: int) -> int:
        number = getattr(parameters, name).value if parameters.HasField(name) else default
        if number < 1:
            raise UserError(f"--{flag}: {path}: {name} is {number}; at least 1 is allowed")
        return number

    limits = BatchLimits(
        value("max_batch_size", defaults.max_batch_size),
        value("max_enqueued_batches", defaults.max_enqueued),
        value("num_batch_threads", defaults.threads),
    )
    sizes = list(parameters.allowed_batch_sizes)
    if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != limits.max_batch_size):
        raise UserError(
            f"--{flag}: {path}: allowed_batch_sizes is {sizes}; allowed: increasing, and the last "
            f"is max_batch_size, {limits.max_batch_size}"
        )
    return limits


class BatchQueue:
    """Lets the requests of a version run within the limits; versions share the threads."""

    def __init__(self, limits: BatchLimits, threads: threading.Semaphore):
        self._limits = limits
        self._places = threading.BoundedSemaphore(limits.threads + limits.max_enqueued)
        self._threads = threads

    @contextlib.contextmanager
    def task(self, inputs: Mapping[str, np.ndarray]) -> Iterator[None]:
        """Waits for a thread. RequestError for too many rows, and where the queue is full."""
        for array in inputs.values():
            # Of a scalar the model itself complains, in words that name the input.
            rows = len(array) if array.ndim else 0
            if rows > self._limits.max_batch_size:
                raise invalid(
                    f"Task size {rows} is larger than maximum input batch size "
                    f"{self._limits.max_batch_size}"
                )
        if not self._places.acquire(blocking=False):
            raise RequestError(
                grpc.StatusCode.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; "
                f"{self._limits.max_enqueued} tasks wait already",
            )
        try:
            with self._threads:
                yield
        finally:
            self._places.release()
