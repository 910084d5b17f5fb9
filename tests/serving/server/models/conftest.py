"""A loader that is a fake, its folders, and a clock."""

from __future__ import annotations

import types

import pytest
from tensorflow_serving.config import model_server_config_pb2

from tests.serving.server.models.asking import Loader
from tfhash.serving.server import versions
from tfhash.serving.server.models import Models
from tfhash.serving.server.versions import Retries


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def make_models(loader):
    def make_models(count: int = 0, interval: float = 0.0, **options) -> Models:
        return Models(loader, Retries(count, interval), **options)

    return make_models


@pytest.fixture
def clock(monkeypatch) -> types.SimpleNamespace:
    """The time that models.py sees is `clock.now`."""
    clock = types.SimpleNamespace(now=100.0)
    fake = types.SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(versions, "time", fake)
    return clock


@pytest.fixture
def folders(base_path):
    """folders(1, 2) makes the version folders of the base path be these."""

    def folders(*versions: int | str) -> None:
        names = set(map(str, versions))
        for path in base_path.iterdir():
            if path.name not in names:
                path.rmdir()
        for name in names:
            (base_path / name).mkdir(exist_ok=True)

    return folders


@pytest.fixture
def config(base_path):
    """A ModelConfig of the base path."""

    def config(name: str = "model", **fields) -> model_server_config_pb2.ModelConfig:
        fields = {"base_path": str(base_path), "model_platform": "tensorflow"} | fields
        return model_server_config_pb2.ModelConfig(name=name, **fields)

    return config
