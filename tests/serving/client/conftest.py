"""A client of the fake server."""

from __future__ import annotations

import pytest

from tfhash.serving import HashClient


@pytest.fixture
def client(server):
    with HashClient(server.target, timeout=10, max_batch=4, in_flight=3) as client:
        yield client
