"""Callbacks on a stand-in for a stage, without a training."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfhash.training import callbacks
from tfhash.training.callbacks import LogToTensorBoard, SaveCheckpoint, StopOnNonFinite
from tfhash.training.checkpoints import NonFiniteError


class StageStandIn:
    """What the callbacks ask of a `deep.Stage`; `step` is set by the test."""

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


def test_finite_terms_pass():
    stop = StopOnNonFinite()
    stop.set_model(StageStandIn(7))
    assert stop.on_train_batch_end(0, {"sr": 0.0, "ar": -1e30}) is None
    assert stop.on_train_batch_end(1, None) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32("nan")])
def test_a_term_that_is_not_finite_stops_the_training(value):
    stop = StopOnNonFinite()
    stop.set_model(StageStandIn(7))
    with pytest.raises(NonFiniteError, match=rf"ar is {value} after step 7"):
        stop.on_train_batch_end(0, {"sr": 0.0, "ar": value})


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
    """deep.DeepHasher.train calls fit again for the steps that fill no epoch."""
    stage, log = StageStandIn(), LogToTensorBoard(tmp_path)
    log.set_model(stage)
    for step in (4, 6):
        stage.step = step
        log.on_train_begin()
        log.on_epoch_end(0, {"sr": 2.0})
        log.on_train_end()
    files = sorted(tmp_path.iterdir())
    assert sorted(s for f in files for s in scalars(logged(f), "sr")) == [(4, 2.0), (6, 2.0)]
