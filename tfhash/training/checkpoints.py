"""Checkpoints of a training stage: networks and optimizers in one file, written in one move."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tfhash.training.run import write_text

KEPT = 2


class NonFiniteError(RuntimeError):
    """A loss or a weight became NaN or infinite; the last good checkpoint is kept."""


@dataclass(frozen=True)
class Checkpoints:
    """Files STAGE-STEP.weights.h5 of one stage in one folder, the newest few of them.

    directory: None where nothing is kept. writes: False in all but the first process of several,
    which share the folder.
    """

    directory: Path | None
    stage: str
    writes: bool = True

    def steps(self) -> list[int]:
        """The steps at which there is a checkpoint, ascending."""
        if self.directory is None:
            return []
        pattern = re.compile(rf"{re.escape(self.stage)}-(\d+)\.weights\.h5")
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
                raise NonFiniteError(f"{variable.path} is NaN or infinite after step {step}")
        if not self.writes or self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(f".{self.stage}-*.weights.h5"):
            leftover.unlink()
        temporary = self.path(step).with_name(f".{self.path(step).name}")
        model.save_weights(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        write_text(self._clock, json.dumps({"step": step, "seconds": round(seconds, 1)}))
        os.replace(temporary, self.path(step))
        for old in self.steps()[:-KEPT]:
            self.path(old).unlink()

    @property
    def _clock(self) -> Path:
        assert self.directory is not None
        return self.directory / f"{self.stage}.json"

    def restore(self, model: keras.Model) -> tuple[int, float]:
        """Loads the newest checkpoint into a built model: its step, and the seconds until there.

        0, 0.0 where there is none.
        """
        steps = self.steps()
        if not steps:
            return 0, 0.0
        model.load_weights(self.path(steps[-1]))
        restored = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
        if restored != steps[-1]:
            # Keras leaves an optimizer that was not built as it is, without a word.
            raise RuntimeError(
                f"{self.path(steps[-1])}: the optimizer stands at step {restored} after loading"
            )
        return restored, json.loads(self._clock.read_text(encoding="utf-8"))["seconds"]
