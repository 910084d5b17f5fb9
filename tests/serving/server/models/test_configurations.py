"""Version policies, labels, and configurations that come and go."""

from __future__ import annotations

import pytest

from tests.serving.server.models.asking import refused, served, spec


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
