"""Checkpoints: what is saved comes back, few are kept, and neither a crash nor NaN costs one."""

from __future__ import annotations

import errno
import hashlib
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

    def killed(file):
        file.write(b"half of a file")
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
        ({"shift": 2}, "`shift`: 2, but {run} was made without it; allowed: another folder"),
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


def two_steps(directory, **options):
    """Checkpoints of steps 1 and 2, and the state of step 1."""
    kept, model = Checkpoints(directory, "gan", **options), make_model()
    train(model, 1)
    kept.save(model, 1, 1.0)
    first = make_model(seed=1)
    kept.restore(first)
    train(model, 1)
    kept.save(model, 2, 2.0)
    return kept, first


def foreign(path):
    """A checkpoint of another network under the name of this one."""
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    other.compile(optimizer=keras.optimizers.Adam(0.1))
    other.optimizer.build(other.trainable_variables)
    other.save_weights(path)


def flipped(path):
    """One bit of one weight, which HDF5 does not notice."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "random": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "foreign": foreign,
    "flipped": flipped,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_is_used(
    tmp_path, capsys, damage
):
    kept, first = two_steps(tmp_path)
    DAMAGES[damage](kept.path(2))
    damaged = kept.path(2).read_bytes()
    restored = make_model(seed=5)
    step, _ = Checkpoints(tmp_path, "gan").restore(restored)
    assert step == 1
    assert_same_state(restored, first)
    aside = tmp_path / "gan-00000002.weights.h5.damaged"
    assert aside.read_bytes() == damaged and kept.steps() == [1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{kept.path(2)} is damaged") and aside.name in line


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
@pytest.mark.parametrize("damage", sorted(set(DAMAGES) - {"flipped"}))
def test_a_folder_of_before_checksums_goes_on_and_what_cannot_be_loaded_is_set_aside(
    tmp_path, damage
):
    kept, first = two_steps(tmp_path)
    for checksum in tmp_path.glob("*.sha256"):
        checksum.unlink()
    newest = make_model(seed=5)
    assert kept.restore(newest) == (2, 2.0)
    DAMAGES[damage](kept.path(2))
    restored = make_model(seed=6)
    assert kept.restore(restored)[0] == 1
    assert_same_state(restored, first)


def test_a_checksum_is_what_sha256sum_writes(tmp_path):
    kept, _ = two_steps(tmp_path)
    for step in (1, 2):
        path = kept.path(step)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        text = path.with_name(f"{path.name}.sha256").read_text()
        assert text == f"{digest}  {path.name}\n"


def test_checksums_go_with_their_checkpoints(tmp_path):
    kept, model = Checkpoints(tmp_path, "gan"), make_model()
    for step in (0, 1, 2, 3):
        kept.save(model, step, 0.0)
    assert sorted(path.name for path in tmp_path.glob("gan-*")) == [
        f"gan-0000000{step}.weights.h5{end}" for step in (2, 3) for end in ("", ".sha256")
    ]


def test_where_all_are_damaged_the_stage_begins_again_only_when_asked(tmp_path):
    """The model may hold half of a checkpoint then, and is not to be trained."""
    kept, _ = two_steps(tmp_path)
    for step in (1, 2):
        DAMAGES["empty"](kept.path(step))
    with pytest.raises(UserError, match="no checkpoint of stage gan .* is whole"):
        kept.restore(make_model())
    assert kept.restore(make_model()) == (0, 0.0)
    assert len(list(tmp_path.glob("*.damaged"))) == 2


def test_one_more_damaged_checkpoint_of_a_step_replaces_none(tmp_path):
    for content in (b"first", b"second", b"third"):
        kept, _ = two_steps(tmp_path)
        kept.path(2).write_bytes(content)
        kept.restore(make_model())
    found = sorted(path.read_bytes() for path in tmp_path.glob("*.damaged*"))
    assert found == [b"first", b"second", b"third"]


def test_a_process_that_does_not_write_passes_a_damaged_checkpoint_over(tmp_path):
    two_steps(tmp_path)
    second = Checkpoints(tmp_path, "gan", writes=False)
    DAMAGES["empty"](second.path(2))
    assert second.restore(make_model())[0] == 1
    assert second.path(2).is_file()


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"step": 2}', '{"seconds": "x"}'])
def test_seconds_that_cannot_be_read_cost_no_checkpoint(tmp_path, capsys, content):
    kept, _ = two_steps(tmp_path)
    clock = tmp_path / "gan.json"
    clock.unlink() if content is None else clock.write_text(content)
    assert kept.restore(make_model()) == (2, 0.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{clock} cannot be read")


def test_without_room_nothing_is_begun_and_nothing_lost(tmp_path, file_size_limit):
    """As on a full disk; HDF5 itself would leave half a file, and may end the process."""
    kept, model = Checkpoints(tmp_path, "gan"), make_model()
    train(model, 1)
    kept.save(model, 1, 1.0)
    before = sorted(path.name for path in tmp_path.iterdir())
    train(model, 1)
    with file_size_limit(4096), pytest.raises(OSError, match="File too large") as error:
        kept.save(model, 2, 2.0)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(kept.path(2)))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert kept.restore(make_model()) == (1, 1.0)


@pytest.mark.parametrize("content", [None, "", "{", "[]", b"\xff"])
@pytest.mark.parametrize("setting", ["model_dir", "stage1_dir"])
def test_work_whose_values_cannot_be_read_is_not_gone_on_with(tmp_path, content, setting):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"`{setting}`: {path} tells .* cannot be read") as error:
        claim(path, DECIDING, True, setting, begun=True)
    assert "\n" not in str(error.value)
