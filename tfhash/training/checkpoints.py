"""Checkpoints of a training stage: networks and optimizers in one file, written in one move."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tfhash.errors import UserError
from tfhash.training.run import write_text

KEPT = 2  # at least two: the older one stands in where the newer one is damaged
_CHECKSUM = ".sha256"  # beside each checkpoint, as sha256sum writes it
# What Keras and h5py raise where a file of weights is damaged, or another network's.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


class NonFiniteError(RuntimeError):
    """A loss or a weight became NaN or infinite; the last good checkpoint is kept.

    checkpoints: those of its stage.
    """

    def __init__(self, message: str, checkpoints: Checkpoints):
        super().__init__(message)
        self.checkpoints = checkpoints


@dataclass(frozen=True)
class Checkpoints:
    """Files STAGE-STEP.weights.h5 of one stage in one folder, the newest few of them.

    directory: None where nothing is kept. writes: False in all but the first process of several,
    which share the folder. setting: what names the folder.
    """

    directory: Path | None
    stage: str
    writes: bool = True
    setting: str = "model_dir"

    def steps(self) -> list[int]:
        """The steps at which there is a checkpoint, ascending."""
        if self.directory is None:
            return []
        pattern = re.compile(rf"{re.escape(self.stage)}-(\d{{8,}})\.weights\.h5")
        matches = (pattern.fullmatch(path.name) for path in self.directory.glob("*.weights.h5"))
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        assert self.directory is not None
        return self.directory / f"{self.stage}-{step:08d}.weights.h5"

    def save(self, model: keras.Model, step: int, seconds: float) -> None:
        """Writes the model's state at a step, and the seconds that it took to get there.

        NonFiniteError instead where a weight is not finite.

        A process that is killed on the way leaves a hidden file, which the next save removes.
        """
        for variable in model.trainable_variables:
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                raise NonFiniteError(f"{variable.path} is NaN or infinite after step {step}", self)
        if not self.writes or self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(f".{self.stage}-*.weights.h5"):
            leftover.unlink()
        path = self.path(step)

        def before_it_appears(temporary: Path) -> None:
            write_text(_checksum_of(path), f"{_sha256(temporary)}  {path.name}\n")
            write_text(self._clock, json.dumps({"step": step, "seconds": round(seconds, 1)}))

        save_weights(model, path, before_it_appears)
        for old in self.steps()[:-KEPT]:
            self.path(old).unlink()
            _checksum_of(self.path(old)).unlink(missing_ok=True)

    @property
    def _clock(self) -> Path:
        assert self.directory is not None
        return self.directory / f"{self.stage}.json"

    def restore(self, model: keras.Model) -> tuple[int, float]:
        """Loads the newest good checkpoint into a built model: its step, the seconds until there.

        0, 0.0 where there is none. One that is damaged is named and set aside under another name.
        UserError where all are damaged: the model may hold part of one, and is not to be used.
        """
        steps = self.steps()
        for step in reversed(steps):
            reason = self._load(model, step)
            if reason is None:
                return step, self._seconds()
            self._set_aside(step, reason)
        if steps:
            raise UserError(
                f"`{self.setting}`: no checkpoint of stage {self.stage} in {self.directory} is "
                "whole; the same command begins the stage again"
            )
        return 0, 0.0

    def _load(self, model: keras.Model, step: int) -> str | None:
        """Loads a checkpoint; why it cannot be used, None where it can."""
        path = self.path(step)
        try:
            # Folders of before checksums have none: there, what can be loaded counts as whole.
            checked = _checksum_of(path).is_file()
            if checked and _checksum_of(path).read_text(encoding="ascii").split()[:1] != [
                _sha256(path)
            ]:
                return "its checksum is another"
            model.load_weights(path)
        except UNREADABLE as error:
            return " ".join(str(error).split())[:200]
        restored = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
        if restored != step:
            if not checked:
                return f"it is of step {restored}"
            # Keras leaves an optimizer that was not built as it is, without a word.
            raise RuntimeError(f"{path}: the optimizer stands at step {restored} after loading")
        return None

    def _set_aside(self, step: int, reason: str) -> None:
        path = self.path(step)
        aside = path.with_name(f"{path.name}.damaged")
        number = 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.damaged{number}")
        words = f"{path} is damaged ({reason})"
        if self.writes:
            os.replace(path, aside)
            _checksum_of(path).unlink(missing_ok=True)
            words += f"; kept as {aside.name}"
        print(words, file=sys.stderr, flush=True)

    def _seconds(self) -> float:
        try:
            return float(json.loads(self._clock.read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(
                f"{self._clock} cannot be read ({error}): the seconds of training before are not "
                "counted",
                file=sys.stderr,
                flush=True,
            )
            return 0.0


class _InMemory(io.BytesIO):
    """A file that HDF5 writes to: on a full disk, it ends the process with a segmentation fault."""

    def __str__(self) -> str:
        return "memory.weights.h5"  # Keras wants a name that ends so


def save_weights(
    model: keras.Model, path: Path, before_it_appears: Callable[[Path], None] | None = None
) -> None:
    """Writes a model's weights, and those of its optimizer, as an HDF5 file in one move.

    before_it_appears: called with the whole file while it is still hidden. OSError where there is
    no room.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        content = _InMemory()
        model.save_weights(content)
        with open(temporary, "wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if before_it_appears is not None:
            before_it_appears(temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = error.filename or os.fspath(path)
        raise


def _checksum_of(path: Path) -> Path:
    return path.with_name(path.name + _CHECKSUM)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
