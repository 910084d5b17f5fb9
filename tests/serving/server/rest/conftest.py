"""A server with a small limit on messages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent import futures

import pytest

from tests.serving.server.rest.asking import OPTIONS
from tfhash.serving.server.server import Options, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory, saved_model, config_of) -> Iterator[Server]:
    base_path = tmp_path_factory.mktemp("base_path")
    shutil.copytree(saved_model, base_path / "1")
    server = Server(config_of(model=base_path), Options(port=0, **OPTIONS))
    server.start()
    yield server
    server.stop(0)


@pytest.fixture
def pool() -> Iterator[futures.ThreadPoolExecutor]:
    with futures.ThreadPoolExecutor(2) as pool:
        yield pool
