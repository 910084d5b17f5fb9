"""Which versions are loaded, in which order, and what requests get meanwhile."""

from __future__ import annotations

import threading

import pytest

from tests.serving.server.models.asking import State, refused, served, spec, states


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
