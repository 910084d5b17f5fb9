"""Checkpoints: what is saved comes back, few are kept, and neither a crash nor NaN costs one."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.training import checkpoints
from tfhash.training.checkpoints import Checkpoints, NonFiniteError
from tfhash.training.run import claim, write_text


def make_model(seed=0, build_optimizer=True):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.Adam(0.1))
    if build_optimizer:
        model.optimizer.build(model.trainable_variables)
    return model


def train(model, steps):
    for _ in range(steps):
        model.optimizer.apply([tf.ones_like(v) for v in model.trainable_variables])


def state(model):
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def assert_same_state(one, other):
    for a, b in zip(state(one), state(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_restore_gives_weights_optimizer_step_and_seconds(tmp_path):
    saved, restored = make_model(seed=0), make_model(seed=1)
    train(saved, 3)
    Checkpoints(tmp_path, "gan").save(saved, 3, 12.34)
    assert Checkpoints(tmp_path, "gan").restore(restored) == (3, 12.3)
    assert_same_state(saved, restored)
    train(saved, 1)
    train(restored, 1)
    assert_same_state(saved, restored)


def test_nothing_to_restore(tmp_path):
    model = make_model()
    before = state(model)
    assert Checkpoints(tmp_path / "none", "gan").restore(model) == (0, 0.0)
    for a, b in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_newest_are_kept_and_each_stage_has_its_own(tmp_path):
    """Of steps 0, 9, 10 and 100, the last two by number; those of another stage stay."""
    model = make_model()
    Checkpoints(tmp_path, "hash").save(model, 5, 0.0)
    gan = Checkpoints(tmp_path, "gan")
    for step in (0, 9, 10, 100):
        gan.save(model, step, 0.0)
    assert gan.steps() == [10, 100]
    assert Checkpoints(tmp_path, "hash").steps() == [5]


def test_a_file_that_a_killed_process_left_is_ignored_and_removed(tmp_path):
    gan, model = Checkpoints(tmp_path, "gan"), make_model()
    train(model, 1)
    gan.save(model, 1, 1.0)
    leftover = tmp_path / ".gan-00000002.weights.h5"
    leftover.write_bytes(b"half of a file")
    assert gan.restore(make_model(seed=1)) == (1, 1.0)
    train(model, 2)
    gan.save(model, 3, 3.0)
    assert not leftover.exists()
    assert gan.steps() == [1, 3]


def test_a_save_that_is_cut_short_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    gan, model = Checkpoints(tmp_path, "gan"), make_model()
    train(model, 1)
    gan.save(model, 1, 1.0)

    def killed(path):
        path.write_bytes(b"half of a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save_weights", killed)
    with pytest.raises(KeyboardInterrupt):
        gan.save(model, 2, 2.0)
    assert gan.restore(make_model(seed=1)) == (1, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_not_saved(tmp_path, value):
    gan, model = Checkpoints(tmp_path, "gan"), make_model()
    train(model, 1)
    gan.save(model, 1, 1.0)
    good = make_model(seed=1)
    kernel = model.trainable_variables[0]
    broken = kernel.numpy()
    broken[1, 1] = value
    kernel.assign(broken)
    with pytest.raises(NonFiniteError, match=r"kernel is NaN or infinite after step 2"):
        gan.save(model, 2, 2.0)
    assert gan.restore(good) == (1, 1.0)
    assert all(np.isfinite(weight).all() for weight in good.get_weights())


def test_only_the_process_that_writes_writes(tmp_path):
    Checkpoints(tmp_path, "gan", writes=False).save(make_model(), 0, 0.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_an_optimizer_that_was_not_built_is_refused(tmp_path):
    """Keras would leave it at step 0 and go on."""
    saved = make_model()
    train(saved, 2)
    Checkpoints(tmp_path, "gan").save(saved, 2, 0.0)
    other = make_model(build_optimizer=False)
    other.optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    with pytest.raises(RuntimeError, match="step 0 after loading"):
        Checkpoints(tmp_path, "gan").restore(other)


def test_write_text_makes_the_folder_and_leaves_one_file(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "first")
    write_text(tmp_path / "a" / "b.txt", "second")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]
    assert (tmp_path / "a" / "b.txt").read_text() == "second"


def test_write_text_that_is_cut_short_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "first")

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "second")
    assert path.read_text() == "first"


DECIDING = {"seed": 0, "margin_sr": None, "map_at": (5, 10), "flip": True}


def test_claim_accepts_the_same_values_again(tmp_path):
    """A tuple is written as a list, and is the same value all the same."""
    path = tmp_path / "run" / "config.json"
    claim(path, DECIDING)
    written = path.read_text()
    claim(path, DECIDING)
    claim(path, {**DECIDING, "map_at": [5, 10]})
    assert path.read_text() == written


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "`seed`: 1, but {run} was made with 0"),
        ({"map_at": (5,)}, "`map_at`: [5], but {run} was made with [5, 10]"),
        ({"margin_sr": 6.0}, "`margin_sr`: 6.0, but {run} was made with None"),
        ({"shift": 2}, "`shift`: 2, but {run} was made with None"),
    ],
)
def test_claim_names_the_value_that_differs(tmp_path, other, message):
    path = tmp_path / "run" / "config.json"
    claim(path, DECIDING)
    with pytest.raises(UserError) as error:
        claim(path, {**DECIDING, **other})
    assert str(error.value).startswith(message.format(run=path.parent))
    assert "\n" not in str(error.value)


def test_claim_names_a_value_that_is_asked_for_no_more(tmp_path):
    path = tmp_path / "config.json"
    claim(path, DECIDING)
    with pytest.raises(UserError, match="`seed`: None"):
        claim(path, {name: value for name, value in DECIDING.items() if name != "seed"})


def test_claim_writes_nothing_in_the_other_processes(tmp_path):
    claim(tmp_path / "config.json", DECIDING, writes=False)
    assert os.listdir(tmp_path) == []


def test_an_optimizer_that_stays_behind_is_told_of_the_newest_file(tmp_path, monkeypatch):
    """Keras loads nothing into an optimizer that was not built, without a word."""
    kept = Checkpoints(tmp_path, "hash")
    model = make_model()
    for step in (1, 2):
        train(model, 1)
        kept.save(model, step, 0.0)
    behind = make_model()
    monkeypatch.setattr(behind, "load_weights", lambda path: None)
    with pytest.raises(RuntimeError, match="hash-00000002.*: the optimizer stands at step 0"):
        kept.restore(behind)
