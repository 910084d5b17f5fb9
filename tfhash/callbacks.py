"""Keras callbacks: checkpoints, the stop on NaN, validation and TensorBoard while training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfhash.checkpoints import Checkpoints, NonFiniteError


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises NonFiniteError as soon as a loss term is NaN or infinite."""

    def on_train_batch_end(self, batch, logs=None):
        for term, value in (logs or {}).items():
            if not np.isfinite(value):
                raise NonFiniteError(
                    f"{term} is {value} after step {self.model.steps_done()}"
                )


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


class LogToTensorBoard(keras.callbacks.Callback):
    """Writes loss terms, learning rates, gauges and pictures at the end of each epoch.

    directory: of the event files. gauges: answers more scalars by name, e.g. the mAP on the
    validation part; they also join Keras' own log line. pictures: answers uint8 [H, W, 3] by name.
    """

    def __init__(
        self,
        directory: Path,
        gauges: Callable[[], dict[str, float]] = dict,
        pictures: Callable[[], dict[str, np.ndarray]] = dict,
    ):
        super().__init__()
        self.directory = directory
        self.gauges = gauges
        self.pictures = pictures

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(str(self.directory))

    def on_train_end(self, logs=None):
        self.writer.close()

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        logs.update(self.gauges())
        step = self.model.steps_done()
        with self.writer.as_default(step=step):
            for name, value in {**logs, **self.model.learning_rates()}.items():
                tf.summary.scalar(name, value)
            for name, picture in self.pictures().items():
                tf.summary.image(name, picture[None])
        self.writer.flush()
