"""What the tests ask of a server, over real connections."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
)

from tfhash.serving.server.status import RequestError

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
