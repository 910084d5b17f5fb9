"""Models: which versions are loaded, in which order, and what requests get meanwhile.

The loader is a fake, which answers objects that know whether they are closed.
"""

from __future__ import annotations

import contextlib
import threading
import types
from pathlib import Path

import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config import model_server_config_pb2

from tfhash.serving.server import versions
from tfhash.serving.server.models import Models
from tfhash.serving.server.status import RequestError
from tfhash.serving.server.versions import Retries

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


def test_the_new_version_is_loaded_before_the_old_is_dropped(make_models, folders, config, loader):
    models = make_models()
    folders(1)
    models.configure([config()])
    assert served(models) == 1
    folders(1, 2)
    models.poll()
    assert loader.new_events() == ["load model 1", "load model 2", "close model 1"]
    assert served(models) == 2
    assert states(models) == {2: "AVAILABLE", 1: "END"}
    models.poll()
    assert loader.new_events() == []


def test_the_highest_integer_is_the_latest(make_models, folders, config):
    models = make_models()
    folders(9, 10, ".11.tmp-x", "12x", "-13", "latest", str(2**63))
    models.configure([config()])
    assert served(models) == 10
    assert states(models) == {10: "AVAILABLE"}


def test_a_file_is_no_version(make_models, folders, config, base_path):
    models = make_models()
    folders(1)
    (base_path / "2").touch()
    models.configure([config()])
    assert states(models) == {1: "AVAILABLE"}


def test_a_removed_version_gives_way_to_the_one_before(make_models, folders, config, loader):
    models = make_models()
    folders(1, 2)
    models.configure([config()])
    folders(1)
    models.poll()
    assert loader.new_events() == ["load model 2", "load model 1", "close model 2"]
    assert served(models) == 1


def test_a_folder_removed_and_put_back_is_loaded_again(make_models, folders, config, loader):
    models = make_models()
    folders(1)
    models.configure([config()])
    folders()
    models.poll()
    with refused("NOT_FOUND", "Servable not found for request: Latest(model)"):
        served(models)
    folders(1)
    models.poll()
    assert served(models) == 1
    assert loader.new_events() == ["load model 1", "close model 1", "load model 1"]


def test_a_base_path_that_vanishes_leaves_what_is_served(
    make_models, folders, config, loader, base_path
):
    """As in TF Serving: a file system may be away for a while."""
    models = make_models()
    folders(1)
    models.configure([config()])
    away = base_path.rename(base_path.with_name("away"))
    models.poll()
    assert served(models) == 1
    away.rename(base_path)
    folders(2)
    models.poll()
    assert served(models) == 2
    assert loader.new_events() == ["load model 1", "load model 2", "close model 1"]


def test_a_base_path_that_comes_later(make_models, folders, config, base_path):
    models = make_models()
    base_path.rmdir()
    models.configure([config()])
    assert models.available() == {"model": []}
    with refused("NOT_FOUND", "Could not find any versions of model model"):
        states(models)
    base_path.mkdir()
    folders(1)
    models.poll()
    assert served(models) == 1


def test_a_version_that_does_not_load_is_tried_again(make_models, folders, config, loader, clock):
    """Two retries, 60 s apart; the old version serves on, through all of it and afterwards."""
    models = make_models(count=2, interval=60.0)
    folders(1)
    models.configure([config()])
    folders(1, 2)
    loader.broken = {2}
    tries = ["load model 2"]
    loader.new_events()
    for seconds, events, state in [
        (0.0, tries, "LOADING"),
        (59.0, [], "LOADING"),
        (1.0, tries, "LOADING"),
        (59.0, [], "LOADING"),
        (1.0, tries, "END"),
        (3600.0, [], "END"),
    ]:
        clock.now += seconds
        models.poll()
        assert loader.new_events() == events
        assert states(models) == {2: state, 1: "AVAILABLE"}
        (version,) = models.statuses(spec(version=2))
        assert version.error == "version 2 is broken"
        assert served(models) == 1
    folders(1)
    models.poll()
    folders(1, 2)
    loader.broken = set()
    models.poll()
    assert served(models) == 2


def test_a_retry_that_succeeds_forgets_the_error(make_models, folders, config, loader, clock):
    models = make_models(count=1, interval=1.0)
    folders(1)
    models.configure([config()])
    folders(2)
    loader.broken = {2}
    models.poll()
    loader.broken = set()
    clock.now += 1.0
    models.poll()
    (version,) = models.statuses(spec(version=2))
    assert (version.state, version.error) == (State.AVAILABLE, "")
    assert served(models) == 2


def test_a_newer_version_ends_the_retries_of_a_broken_one(
    make_models, folders, config, loader, clock
):
    models = make_models(count=5, interval=1.0)
    folders(1)
    models.configure([config()])
    loader.broken = {2}
    folders(1, 2)
    models.poll()
    folders(1, 2, 3)
    models.poll()
    clock.now += 10.0
    models.poll()
    assert loader.new_events() == ["load model 1", "load model 2", "load model 3", "close model 1"]
    assert states(models) == {3: "AVAILABLE", 2: "END", 1: "END"}


def test_a_version_in_use_is_closed_after_its_last_user(make_models, folders, config, loader):
    models = make_models()
    folders(1)
    models.configure([config()])
    loader.new_events()
    with models.use(spec()) as first:
        with models.use(spec()) as second:
            assert first is second
            folders(2)
            models.poll()
            assert states(models) == {2: "AVAILABLE", 1: "UNLOADING"}
            with refused("NOT_FOUND", "Servable not found for request: Specific(model, 1)"):
                served(models, version=1)
            assert served(models) == 2
        assert not first.closed
    assert first.closed
    assert states(models) == {2: "AVAILABLE", 1: "END"}
    assert loader.new_events() == ["load model 2", "close model 1"]


def test_a_user_that_fails_lets_go_too(make_models, folders, config):
    models = make_models()
    folders(1)
    models.configure([config()])
    with pytest.raises(KeyError), models.use(spec()) as servable:
        folders(2)
        models.poll()
        raise KeyError
    assert servable.closed


def test_a_folder_put_back_while_its_version_is_unloading(make_models, folders, config, loader):
    models = make_models()
    folders(1)
    models.configure([config()])
    with models.use(spec()) as old:
        folders()
        models.poll()
        folders(1)
        models.poll()
        assert states(models) == {1: "UNLOADING"}
    models.poll()
    assert old.closed
    assert served(models) == 1
    assert loader.new_events() == ["load model 1", "close model 1", "load model 1"]


@pytest.mark.parametrize(
    ("policy", "loaded"),
    [
        ({}, [4]),
        ({"latest": {}}, [4]),
        ({"latest": {"num_versions": 2}}, [3, 4]),
        ({"latest": {"num_versions": 9}}, [1, 2, 3, 4]),
        ({"all": {}}, [1, 2, 3, 4]),
        ({"specific": {"versions": [1, 3, 9]}}, [1, 3]),
    ],
)
def test_version_policies(make_models, folders, config, policy, loaded):
    models = make_models()
    folders(1, 2, 3, 4)
    models.configure([config(model_version_policy=policy)])
    assert models.available() == {"model": loaded}
    assert served(models) == loaded[-1]
    for version in loaded:
        assert served(models, version=version) == version
    with refused("NOT_FOUND", "Servable not found for request: Specific(model, 9)"):
        served(models, version=9)


def test_latest_of_two_moves_on(make_models, folders, config, loader):
    models = make_models()
    folders(1, 2)
    models.configure([config(model_version_policy={"latest": {"num_versions": 2}})])
    folders(1, 2, 3)
    models.poll()
    assert models.available() == {"model": [2, 3]}
    assert loader.new_events()[2:] == ["load model 3", "close model 1"]


def test_a_policy_that_changes(make_models, folders, config, loader):
    models = make_models()
    folders(1, 2, 3)
    models.configure([config()])
    models.configure([config(model_version_policy={"specific": {"versions": [1]}})])
    assert loader.new_events() == ["load model 3", "load model 1", "close model 3"]
    assert served(models) == 1


def test_labels(make_models, folders, config):
    models = make_models()
    folders(1, 2)
    every = {"model_version_policy": {"all": {}}}
    models.configure([config(version_labels={"stable": 1, "canary": 2}, **every)])
    assert (served(models, label="stable"), served(models, label="canary")) == (1, 2)
    with refused("INVALID_ARGUMENT", "Unrecognized servable version label: other"):
        served(models, label="other")
    models.configure([config(version_labels={"stable": 2}, **every)])
    assert served(models, label="stable") == 2
    with refused("INVALID_ARGUMENT", "Unrecognized servable version label: canary"):
        served(models, label="canary")
    folders(1)
    models.poll()
    with refused("NOT_FOUND", "Servable not found for request: Specific(model, 2)"):
        served(models, label="stable")


UNAVAILABLE = (
    "Request to assign label to version 9 of model model, which is not currently available for "
    "inference"
)


@pytest.mark.parametrize("allowed", [False, True])
def test_labels_of_unavailable_versions(make_models, folders, config, allowed):
    """With the flag a new label may name one; a label that is in use never moves to one."""
    models = make_models(labels_for_unavailable=allowed)
    folders(1)
    models.configure([config(version_labels={"stable": 1})])
    if allowed:
        models.configure([config(version_labels={"stable": 1, "canary": 9})])
        with refused("NOT_FOUND", "Servable not found for request: Specific(model, 9)"):
            served(models, label="canary")
    else:
        with refused("FAILED_PRECONDITION", UNAVAILABLE):
            models.configure([config(version_labels={"stable": 1, "canary": 9})])
    with refused("FAILED_PRECONDITION", UNAVAILABLE):
        models.configure([config(version_labels={"stable": 9})])
    assert served(models, label="stable") == 1


def test_configure_adds_and_removes_models(make_models, folders, config, loader):
    models = make_models()
    folders(1)
    models.configure([config("a"), config("b")])
    with models.use(spec("a")) as old:
        models.configure([config("b"), config("c")])
        assert models.available() == {"b": [1], "c": [1]}
        with refused("NOT_FOUND", "Servable not found for request: Latest(a)"):
            served(models, name="a")
        with refused("NOT_FOUND", "Could not find any versions of model a"):
            models.statuses(spec("a"))
        assert not old.closed
    assert old.closed
    assert loader.new_events() == ["load a 1", "load b 1", "load c 1", "close a 1"]
    models.configure([])
    assert models.available() == {}
    assert loader.new_events() == ["close b 1", "close c 1"]


def test_a_new_model_that_does_not_load(make_models, folders, config, loader, clock):
    """The error says why; what was served is served on, and the retries go on."""
    models = make_models(count=1, interval=1.0)
    folders(1)
    models.configure([config("old")])
    loader.broken = {1}
    message = (
        "1 servable(s) did not become available: {name: new version: 1} due to error: "
        "version 1 is broken"
    )
    with refused("UNKNOWN", message):
        models.configure([config("old"), config("new")])
    assert served(models, name="old") == 1
    loader.broken = set()
    clock.now += 1.0
    models.poll()
    assert served(models, name="new") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{}, {}], "Illegal to list model model multiple times in config list"),
        ([{"name": ""}], "a model of the config list has no name"),
        (
            [{"base_path": "relative/path"}],
            "Expected model model to have an absolute path or URI; got base_path()=relative/path",
        ),
        (
            [{"base_path": ""}],
            "Expected model model to have an absolute path or URI; got base_path()=",
        ),
        (
            [{"model_platform": "other"}],
            "model model: model_platform is 'other'; allowed: tensorflow",
        ),
        ([{"model_platform": ""}], "model model: model_platform is ''; allowed: tensorflow"),
    ],
)
def test_configs_that_are_refused_change_nothing(make_models, folders, config, changes, message):
    models = make_models()
    folders(1)
    models.configure([config("served")])
    with refused("INVALID_ARGUMENT", message):
        models.configure([config(**change) for change in changes])
    assert models.available() == {"served": [1]}


def test_the_old_model_type(make_models, folders, config):
    models = make_models()
    folders(1)
    models.configure([config(model_platform="", model_type="TENSORFLOW")])
    assert served(models) == 1


def test_a_request_that_names_no_model(make_models):
    with refused("INVALID_ARGUMENT", "ModelSpec has no name specified."):
        served(make_models(), name="")


def test_status_of_a_version(make_models, folders, config):
    models = make_models()
    folders(1, 2)
    models.configure([config()])
    assert [v.number for v in models.statuses(spec(version=2))] == [2]
    with refused("NOT_FOUND", "Could not find version 1 of model model"):
        models.statuses(spec(version=1))


def test_close(make_models, folders, config, loader):
    models = make_models()
    folders(1)
    models.configure([config("a"), config("b")])
    with models.use(spec("a")):
        models.close()
        assert loader.new_events()[2:] == ["close b 1"]
    assert loader.new_events() == ["close a 1"]
    with refused("NOT_FOUND", "Servable not found for request: Latest(b)"):
        served(models, name="b")


def test_requests_while_versions_come_and_go(make_models, folders, config):
    """Every request gets a version, and none is closed before its users are done with it."""
    models = make_models()
    folders(1)
    models.configure([config()])
    changed, seen, failures = threading.Event(), set(), []

    def use() -> None:
        try:
            while not changed.is_set():
                with models.use(spec()) as servable:
                    assert not servable.closed
                    models.statuses(spec())
                    models.available()
                    assert not servable.closed
                seen.add(servable.version)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(40):
        folders(step + 3 * (step % 2))  # three up and two down, in turns
        models.poll()
    changed.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(seen) > 10
    assert models.available() == {"model": [42]}
