"""A fake loader, and what the tests ask of Models."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from tfhash.serving.server.models import Models
from tfhash.serving.server.status import RequestError

State = get_model_status_pb2.ModelVersionStatus.State


class FakeServable:
    def __init__(self, loader: Loader, name: str, version: int, folder: Path):
        self.name, self.version, self.folder = name, version, folder
        self.closed = False
        self._loader = loader

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        self._loader.events.append(("close", self.name, self.version))


class Loader:
    """Loads every folder but those of the `broken` versions; `events` lists what happened."""

    def __init__(self):
        self.events: list[tuple[str, str, int]] = []
        self.broken: set[int] = set()

    def __call__(self, name: str, version: int, folder: Path) -> FakeServable:
        self.events.append(("load", name, version))
        if version in self.broken:
            raise ValueError(f"version {version}\nis broken")
        return FakeServable(self, name, version, folder)

    def new_events(self) -> list[str]:
        """What happened since the last time: `load model 1`."""
        events, self.events = self.events, []
        return [" ".join(map(str, event)) for event in events]


def spec(name: str = "model", version: int | None = None, label: str | None = None):
    spec = model_pb2.ModelSpec(name=name)
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
    return spec


def served(models: Models, **asked) -> int:
    """The version that answers."""
    with models.use(spec(**asked)) as servable:
        assert not servable.closed
        return servable.version


def states(models: Models) -> dict[int, str]:
    return {v.number: State.Name(v.state) for v in models.statuses(spec())}


@contextlib.contextmanager
def refused(code: str, message: str):
    with pytest.raises(RequestError) as raised:
        yield
    assert (raised.value.code.name, raised.value.message) == (code, message)
