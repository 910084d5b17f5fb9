"""The optimizers of the hash network, and Caffe's SGD, which the papers used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

HASH_OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine", "step")


@dataclass(frozen=True)
class SlowTrunk:
    """The backbone under H learns more slowly than what is above it, and later.

    variables: those of the backbone. factor: of their learning rate and weight decay. first_step:
    the update from which on they move, counted from 0.
    """

    variables: Sequence[keras.Variable]
    factor: float = 1.0
    first_step: int = 0

    def changes_anything(self) -> bool:
        return bool(self.variables) and (self.factor != 1 or self.first_step > 0)


def hash_optimizer(
    kind: str,
    rate: float,
    schedule: str,
    *,
    steps: int,
    decay_steps: int,
    weight_decay: float,
    warmup_steps: int = 0,
    trunk: SlowTrunk | None = None,
) -> keras.optimizers.Optimizer:
    """The optimizer of H.

    kind: one of HASH_OPTIMIZERS. schedule: one of SCHEDULES; cosine falls to 0 after `steps`
    updates, step to a tenth of the rate after `decay_steps`. warmup_steps: the rate first rises
    from 0 in as many updates, which are part of `steps`. trunk: what of H is slower.
    """
    scheduled: Any = rate
    if schedule == "cosine":
        scheduled = keras.optimizers.schedules.CosineDecay(rate, steps)
    elif schedule == "step":
        scheduled = keras.optimizers.schedules.PiecewiseConstantDecay(
            [decay_steps - 1], [rate, rate / 10]
        )
    if warmup_steps:
        scheduled = WarmUp(scheduled, warmup_steps)
    slow = trunk if trunk and trunk.changes_anything() else None
    if kind == "adamw":
        if slow:
            return SlowTrunkAdamW(scheduled, weight_decay, slow)
        return keras.optimizers.AdamW(scheduled, weight_decay=weight_decay)
    return SlowTrunkSGD(scheduled, weight_decay, slow) if slow else SGD(scheduled, weight_decay)


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A rate, or a schedule of it, times (step + 1) / (steps + 1) in the first `steps` updates."""

    def __init__(self, rate: Any, steps: int):
        self.rate = rate
        self.steps = steps

    def __call__(self, step):
        rate = self.rate(step) if callable(self.rate) else self.rate
        share = (ops.cast(step, "float32") + 1.0) / (self.steps + 1.0)
        return rate * ops.minimum(share, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "steps": self.steps}


class SGD(keras.optimizers.SGD):
    """Momentum .9 and weight decay as Caffe has them, which the papers used.

    decay * w is part of the gradient, and so of the momentum. Keras' own decay is not, and is
    thereby some ten times weaker.
    """

    def __init__(self, learning_rate: Any, decay: float):
        super().__init__(learning_rate, momentum=0.9, name="SGD")
        self.decay = decay

    def update_step(self, gradient, variable, learning_rate):
        if self.decay:
            gradient = gradient + self.decay * keras.ops.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)


class SlowTrunkOptimizer(keras.optimizers.Optimizer):
    """An optimizer for which the trunk has a smaller rate, and none before its first step."""

    trunk: SlowTrunk

    def of_those_that_move(
        self, gradients: Sequence[Any], variables: Sequence[keras.Variable]
    ) -> list[Any]:
        """The gradients, 0 where a variable waits: it has no part in their norm, nor a momentum."""
        of_trunk = {id(variable) for variable in self.trunk.variables}
        moves = ops.cast(self.iterations >= self.trunk.first_step, "float32")
        return [
            gradient * ops.cast(moves, gradient.dtype) if id(variable) in of_trunk else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]

    def build(self, variables) -> None:
        of_trunk = {id(variable) for variable in self.trunk.variables}
        self._is_of_trunk = [id(variable) in of_trunk for variable in variables]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        if self._is_of_trunk[self._get_variable_index(variable)]:
            moves = ops.cast(self.iterations >= self.trunk.first_step, learning_rate.dtype)
            learning_rate = learning_rate * self.trunk.factor * moves
            self.decay_trunk(variable, learning_rate)
            learning_rate = learning_rate * self.of_a_later_start(learning_rate.dtype)
        super().update_step(gradient, variable, learning_rate)

    def of_a_later_start(self, dtype) -> Any:
        """The factor that makes a step of the trunk what it is where steps count from its first."""
        return 1.0

    def decay_trunk(self, variable, learning_rate) -> None:
        """The weight decay of a variable of the trunk, where `update_step` does not have it."""


class SlowTrunkSGD(SlowTrunkOptimizer, SGD):
    """SGD, with a trunk that is slower."""

    def __init__(self, learning_rate: Any, decay: float, trunk: SlowTrunk):
        super().__init__(learning_rate, decay)
        self.trunk = trunk


class SlowTrunkAdamW(SlowTrunkOptimizer, keras.optimizers.AdamW):
    """Keras' AdamW, with a trunk that is slower; its weight decay goes with its own rate."""

    def __init__(self, learning_rate: Any, decay: float, trunk: SlowTrunk):
        super().__init__(learning_rate, weight_decay=decay)
        self.trunk = trunk
        self.exclude_from_weight_decay(var_list=list(trunk.variables))

    def of_a_later_start(self, dtype) -> Any:
        """Adam divides its means, which begin at 0, by what they lack after all steps so far.

        Those of the trunk lack more, for they were 0 until its first step: undivided for that, the
        mean of the squares is too small, and steps are up to several times too large.
        """
        done = ops.cast(self.iterations + 1, dtype)
        own = ops.maximum(done - self.trunk.first_step, 1.0)

        def correction(steps):
            lacking = (1.0 - ops.power(ops.cast(beta, dtype), steps) for beta in betas)
            of_mean, of_squares = lacking
            return ops.sqrt(of_squares) / of_mean

        betas = (self.beta_1, self.beta_2)
        return correction(own) / correction(done)

    def decay_trunk(self, variable, learning_rate) -> None:
        self.assign_sub(variable, variable * self.weight_decay * learning_rate)
