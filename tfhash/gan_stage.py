"""A training stage in which networks play against each other, and its groups of items."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tfhash.deep import Stage


class GANStage(Stage):
    """A Stage whose optimizers have objectives of their own over one forward pass.

    networks, terms: as for `Stage`. seed: of dropout and of what else a step draws.
    """

    def __init__(self, networks: Mapping[str, keras.Model], terms: Sequence[str], seed: int):
        super().__init__(networks, terms)
        self.seed = seed

    @abc.abstractmethod
    def variables_by_optimizer(self) -> dict[str, list[keras.Variable]]:
        """What each optimizer of this stage trains; the first counts the steps."""

    @abc.abstractmethod
    def forward(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The terms of a batch, scalars."""

    @abc.abstractmethod
    def objectives(self, terms: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What each optimizer minimises."""

    def gradients(self, batch):
        variables = {
            name: [variable.value for variable in of_optimizer]
            for name, of_optimizer in self.variables_by_optimizer().items()
        }
        with contextlib.ExitStack() as stack:
            # A tape watches one optimizer's variables alone: its objective passes through the
            # other networks on the way to these without a gradient for their weights.
            tapes = {}
            for name, watched in variables.items():
                tapes[name] = stack.enter_context(tf.GradientTape(watch_accessed_variables=False))
                tapes[name].watch(watched)
            terms = self.forward(batch)
            objectives = self.objectives(terms)
        return {
            name: tape.gradient(objectives[name], variables[name]) for name, tape in tapes.items()
        }, terms

    def step_seed(self, salt: int) -> tf.Tensor:
        """A seed, int32 [2], that follows from the run's seed, the step and the replica."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.stack(
            [self.seed + 1000 * salt + 10_000 * replica, tf.cast(self.step, tf.int32)]
        )


def items_of(batch: Mapping[str, tf.Tensor], *names: str) -> tf.Tensor:
    """The labelled and the unlabelled items of a batch, float32 [B, m + u, ...]."""
    return tf.cast(tf.concat([batch[name] for name in names], axis=1), tf.float32)


def ungrouped(groups: tf.Tensor) -> tf.Tensor:
    """[B, j, ...] -> [B j, ...]."""
    return tf.reshape(groups, [-1, *groups.shape[2:]])


def grouped(items: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """[B j, ...] -> [B, j, ...], with the j of `like`."""
    return tf.reshape(items, [-1, like.shape[1], *items.shape[1:]])


def share(true: tf.Tensor) -> tf.Tensor:
    """How many of them are true, in [0, 1]."""
    return tf.reduce_mean(tf.cast(true, tf.float32))
