"""Callbacks on a stand-in for a stage, without a training."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfhash.training import callbacks
from tfhash.training.callbacks import (
    LogToTensorBoard,
    Progress,
    SaveCheckpoint,
    StopOnNonFinite,
    duration,
)
from tfhash.training.checkpoints import Checkpoints, NonFiniteError


class StageStandIn:
    """What the callbacks ask of a `Stage`; `step` is set by the test."""

    def __init__(self, step: int = 0):
        self.step = step

    def steps_done(self) -> int:
        return self.step

    def learning_rates(self) -> dict[str, float]:
        return {"learning_rate/hash": 0.5 / self.step}


class RecordingCheckpoints:
    def __init__(self):
        self.saved = []

    def save(self, model, step, seconds):
        self.saved.append((model, step, seconds))


KEPT = Checkpoints(None, "hash")


def test_finite_terms_pass():
    stop = StopOnNonFinite(KEPT)
    stop.set_model(StageStandIn(7))
    assert stop.on_train_batch_end(0, {"sr": 0.0, "ar": -1e30}) is None
    assert stop.on_train_batch_end(1, None) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32("nan")])
def test_a_term_that_is_not_finite_stops_the_training(value):
    stop = StopOnNonFinite(KEPT)
    stop.set_model(StageStandIn(7))
    with pytest.raises(NonFiniteError, match=rf"ar is {value} after step 7") as error:
        stop.on_train_batch_end(0, {"sr": 0.0, "ar": value})
    assert error.value.checkpoints is KEPT


def test_a_checkpoint_has_the_step_and_the_seconds_of_training(monkeypatch):
    """10 s before this process, 3 s and 2.5 s in it; the pause between two fits does not count."""
    now = {"time": 0.0}
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now["time"])
    stage, checkpoints = StageStandIn(), RecordingCheckpoints()
    save = SaveCheckpoint(checkpoints, 10.0)
    save.set_model(stage)

    now["time"] = 100.0
    save.on_train_begin()
    now["time"], stage.step = 103.0, 50
    save.on_epoch_end(0)
    now["time"] = 500.0
    save.on_train_begin()
    now["time"], stage.step = 502.5, 60
    save.on_epoch_end(1)

    assert checkpoints.saved == [(stage, 50, 13.0), (stage, 60, 15.5)]
    assert save.seconds == 15.5


def logged(directory) -> EventAccumulator:
    # 0: all of them; by default TensorBoard takes a sample.
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    return events


def scalars(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]


def test_terms_rates_gauges_and_pictures_are_logged_at_their_steps(tmp_path):
    stage = StageStandIn()
    picture = np.zeros((3, 5, 3), np.uint8)
    picture[1, 4] = (10, 20, 30)
    log = LogToTensorBoard(
        tmp_path, lambda: {"validation_map": stage.step / 64}, lambda: {"grid": picture}
    )
    log.set_model(stage)
    log.on_train_begin()
    for epoch, step in enumerate((8, 16)):
        stage.step = step
        logs = {"sr": 1.0 / step}
        log.on_epoch_end(epoch, logs)
        assert logs == {"sr": 1.0 / step, "validation_map": step / 64}  # for Keras' own line
    log.on_train_end()

    events = logged(tmp_path)
    assert set(events.Tags()["tensors"]) == {"sr", "validation_map", "learning_rate/hash", "grid"}
    assert scalars(events, "sr") == [(8, 1 / 8), (16, 1 / 16)]
    assert scalars(events, "validation_map") == [(8, 1 / 8), (16, 1 / 4)]
    assert scalars(events, "learning_rate/hash") == [(8, 0.5 / 8), (16, 0.5 / 16)]
    width, height, png = events.Tensors("grid")[0].tensor_proto.string_val
    assert (width, height) == (b"5", b"3")
    np.testing.assert_array_equal(tf.io.decode_png(png).numpy(), picture)


def test_a_second_fit_goes_on_in_the_same_folder(tmp_path):
    """HashNetworkHasher.train calls fit again for the steps that fill no epoch."""
    stage, log = StageStandIn(), LogToTensorBoard(tmp_path)
    log.set_model(stage)
    for step in (4, 6):
        stage.step = step
        log.on_train_begin()
        log.on_epoch_end(0, {"sr": 2.0})
        log.on_train_end()
    files = sorted(tmp_path.iterdir())
    assert sorted(s for f in files for s in scalars(logged(f), "sr")) == [(4, 2.0), (6, 2.0)]


def test_without_a_folder_nothing_is_written_and_gauges_still_join_the_log(tmp_path, monkeypatch):
    """Pictures, which take a while to draw, are not asked for."""
    monkeypatch.chdir(tmp_path)

    def no_pictures():
        raise AssertionError("pictures were drawn")

    log = LogToTensorBoard(None, lambda: {"validation_map": 0.5}, no_pictures)
    log.set_model(StageStandIn(4))
    log.on_train_begin()
    logs = {"sr": 2.0}
    log.on_epoch_end(0, logs)
    log.on_train_end()
    assert logs == {"sr": 2.0, "validation_map": 0.5}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (41.6, "42 s"),
        (99.4, "99 s"),
        (100.0, "2 min"),  # 1.67
        (180.0, "3 min"),
        (5999.0, "100 min"),
        (6000.0, "1.7 h"),
        (5400 * 4.0, "6.0 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.fixture
def clock(monkeypatch):
    """What time.monotonic answers, as a dict whose "time" a test sets."""
    now = {"time": 1000.0}
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now["time"])
    return now


def watched(done, steps):
    """A Progress on a stage that has made `done` updates, after its first line."""
    stage, progress = StageStandIn(done), Progress("SSGAH, stage 2 of 2", done, steps)
    progress.set_model(stage)
    progress.on_train_begin()
    return stage, progress


def test_progress_tells_title_step_time_and_terms(clock, capsys):
    """500 of 2,000 steps in 60 s: another 1,500 take 180 s."""
    stage, progress = watched(0, 2000)
    assert capsys.readouterr().out == "SSGAH, stage 2 of 2: 2,000 updates\n"
    clock["time"], stage.step = 1060.0, 500
    progress.on_epoch_end(0, {"sr": 1.25, "ar": 0.000123456})
    assert capsys.readouterr().out == (
        "SSGAH, stage 2 of 2: step 500 of 2,000, 60 s, about 3 min left; sr 1.25 · ar 0.0001235\n"
    )


def test_at_the_end_there_is_no_time_left(clock, capsys):
    stage, progress = watched(0, 10)
    capsys.readouterr()
    clock["time"], stage.step = 1003.0, 10
    progress.on_epoch_end(0, {"sr": 1.0})
    assert capsys.readouterr().out == "SSGAH, stage 2 of 2: step 10 of 10, 3 s; sr 1\n"


def test_after_an_interruption_the_time_left_is_that_of_the_steps_of_this_process(clock, capsys):
    """From step 600 on: 100 steps in 20 s, so 300 more of 1,000 take 60 s."""
    stage, progress = watched(600, 1000)
    first_line = "SSGAH, stage 2 of 2: 1,000 updates, from step 600 on\n"
    assert capsys.readouterr().out == first_line
    clock["time"], stage.step = 1020.0, 700
    progress.on_epoch_end(3, {})
    line = "SSGAH, stage 2 of 2: step 700 of 1,000, 20 s, about 60 s left; \n"
    assert capsys.readouterr().out == line


def test_the_fit_of_the_rest_is_the_same_stage_to_progress(clock, capsys):
    """HashNetworkHasher.train calls fit again: no second title, and the time goes on."""
    stage, progress = watched(0, 10)
    clock["time"], stage.step = 1008.0, 8
    progress.on_train_begin()
    clock["time"], stage.step = 1010.0, 10
    progress.on_epoch_end(1, {})
    title, line = capsys.readouterr().out.splitlines()
    assert title.endswith(": 10 updates") and "step 10 of 10, 10 s" in line


class Terminal:
    """Standard output that says it is a terminal."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_on_a_terminal_the_line_grows_once_a_second(clock, monkeypatch):
    stage, progress = watched(0, 100)
    terminal = Terminal()
    monkeypatch.setattr(callbacks.sys, "stdout", terminal)
    for time, step in ((1000.5, 1), (1002.0, 4), (1002.5, 5), (1004.0, 8)):
        clock["time"], stage.step = time, step
        progress.on_train_batch_end(step, {})
    assert re.findall(r"\rSSGAH, .*? step (\d+) of 100", terminal.text) == ["4", "8"]
    assert "\n" not in terminal.text
    progress.on_epoch_end(0, {"sr": 1.0})
    assert terminal.text.endswith("sr 1\n")


def test_elsewhere_there_is_a_line_an_epoch(clock, capsys):
    stage, progress = watched(0, 100)
    capsys.readouterr()
    clock["time"], stage.step = 1005.0, 5
    progress.on_train_batch_end(5, {})
    assert capsys.readouterr().out == ""
