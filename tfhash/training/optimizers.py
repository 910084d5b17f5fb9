"""The optimizers of the hash network, and Caffe's SGD, which the papers used."""

from __future__ import annotations

from typing import Any

import keras

HASH_OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine", "step")


def hash_optimizer(
    kind: str, rate: float, schedule: str, *, steps: int, decay_steps: int, weight_decay: float
) -> keras.optimizers.Optimizer:
    """The optimizer of H.

    kind: one of HASH_OPTIMIZERS. schedule: one of SCHEDULES; cosine falls to 0 after `steps`
    updates, step to a tenth of the rate after `decay_steps`.
    """
    scheduled: Any = rate
    if schedule == "cosine":
        scheduled = keras.optimizers.schedules.CosineDecay(rate, steps)
    elif schedule == "step":
        scheduled = keras.optimizers.schedules.PiecewiseConstantDecay(
            [decay_steps - 1], [rate, rate / 10]
        )
    if kind == "adamw":
        return keras.optimizers.AdamW(scheduled, weight_decay=weight_decay)
    return SGD(scheduled, weight_decay)


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
