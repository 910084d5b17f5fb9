"""Keras callbacks: checkpoints, the stop on NaN, validation and TensorBoard while training."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfhash.training.checkpoints import Checkpoints, NonFiniteError


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises NonFiniteError as soon as a loss term is NaN or infinite."""

    def __init__(self, checkpoints: Checkpoints):
        super().__init__()
        self.checkpoints = checkpoints

    def on_train_batch_end(self, batch, logs=None):
        for term, value in (logs or {}).items():
            if not np.isfinite(value):
                line = f"{term} is {value} after step {self.model.steps_done()}"
                raise NonFiniteError(line, self.checkpoints)


class SaveCheckpoint(keras.callbacks.Callback):
    """Saves the stage at the end of each epoch, under the step that it has reached.

    seconds: what the stage had taken before this process; grows while it trains.
    """

    def __init__(self, checkpoints: Checkpoints, seconds: float):
        super().__init__()
        self.checkpoints = checkpoints
        self.seconds = seconds

    def on_train_begin(self, logs=None):
        self.started = time.monotonic() - self.seconds

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.monotonic() - self.started
        self.checkpoints.save(self.model, self.model.steps_done(), self.seconds)


class Progress(keras.callbacks.Callback):
    """A line at the end of each epoch: what is trained, how far it is, how long it still takes.

    title: of the stage; done, steps: updates made before, and in all. On a terminal, the line grows
    while the epoch lasts. The terms of a stage are explained in docs/training.md.
    """

    def __init__(self, title: str, done: int, steps: int):
        super().__init__()
        self.title, self.begun_at, self.total = title, done, steps

    def on_train_begin(self, logs=None):
        if not hasattr(self, "started"):
            self.started = self.shown = time.monotonic()
            since = f", from step {self.begun_at:,} on" if self.begun_at else ""
            print(f"{self.title}: {self.total:,} updates{since}", flush=True)

    def on_train_batch_end(self, batch, logs=None):
        if sys.stdout.isatty() and time.monotonic() - self.shown > 1:
            self.shown = time.monotonic()
            print(f"\r{self._so_far()}\x1b[K", end="", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        terms = " · ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())
        start = "\r" if sys.stdout.isatty() else ""
        print(f"{start}{self._so_far()}; {terms}", flush=True)

    def _so_far(self) -> str:
        done = self.model.steps_done()
        passed = time.monotonic() - self.started
        left = passed / max(done - self.begun_at, 1) * (self.total - done)
        rest = f", about {duration(left)} left" if done < self.total else ""
        return f"{self.title}: step {done:,} of {self.total:,}, {duration(passed)}{rest}"


def duration(seconds: float) -> str:
    """A duration as people say it: 42 s, 3 min, 1.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class LogToTensorBoard(keras.callbacks.Callback):
    """Writes loss terms, learning rates, gauges and pictures at the end of each epoch.

    directory: of the event files; None: none are written. gauges: answers more scalars by name,
    e.g. the mAP on the validation part; they also join Keras' own log line. pictures: answers uint8
    [H, W, 3] by name.
    """

    def __init__(
        self,
        directory: Path | None,
        gauges: Callable[[], dict[str, float]] = dict,
        pictures: Callable[[], dict[str, np.ndarray]] = dict,
    ):
        super().__init__()
        self.directory = directory
        self.gauges = gauges
        self.pictures = pictures

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_noop_writer()
        if self.directory is not None:
            self.writer = tf.summary.create_file_writer(os.fsencode(self.directory))

    def on_train_end(self, logs=None):
        self.writer.close()

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        logs.update(self.gauges())
        step = self.model.steps_done()
        with self.writer.as_default(step=step):
            for name, value in {**logs, **self.model.learning_rates()}.items():
                tf.summary.scalar(name, value)
            pictures = {} if self.directory is None else self.pictures()
            for name, picture in pictures.items():
                tf.summary.image(name, picture[None])
        self.writer.flush()
