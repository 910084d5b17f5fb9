"""A training stage: networks that learn together, each optimizer under an objective of its own."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tfhash.training.optimizers import SlowTrunkOptimizer


class Stage(keras.Model, abc.ABC):
    """Networks that are trained together over one forward pass.

    A subclass says in `forward` what it computes of a batch. By default one optimizer, "hash",
    trains `hash_network` and minimises the term "loss"; a stage with several optimizers, such as
    those of a GAN, says in `variables_by_optimizer` and `objectives` who learns what.

    networks: become attributes of the stage by their names, and are built. terms: the scalars of
    `forward` that are reported, averaged over the steps between two log lines. seed: of dropout
    and of what else a step draws.
    """

    def __init__(self, networks: Mapping[str, keras.Model], terms: Sequence[str], seed: int = 0):
        super().__init__()
        for name, network in networks.items():
            setattr(self, name, network)
        self.averages = {term: keras.metrics.Mean(name=term) for term in terms}
        self.seed = seed
        self.built = True

    @abc.abstractmethod
    def forward(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The terms of a batch, scalars: means over one replica's rows, not scaled."""

    def variables_by_optimizer(self) -> dict[str, list[keras.Variable]]:
        """What each optimizer of this stage trains; the first counts the steps."""
        return {"hash": self.hash_network.trainable_variables}

    def objectives(self, terms: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What each optimizer minimises."""
        return {"hash": terms["loss"]}

    def gradients(
        self, batch: Mapping[str, tf.Tensor]
    ) -> tuple[dict[str, list[tf.Tensor]], dict[str, tf.Tensor]]:
        """One replica's gradients of a batch, by optimizer, and its terms, none of them scaled."""
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

    def compile(
        self,
        optimizers: Mapping[str, tuple[keras.optimizers.Optimizer, list[keras.Variable]]],
        jit_compile: bool = False,
        clip_norms: Mapping[str, float] | None = None,
    ) -> None:
        """Builds each optimizer over its variables. The first counts the steps of the stage.

        clip_norms: of an optimizer, by name, the most norm that its gradient has, over all of its
        variables and all replicas; a longer one is shortened to it.

        To be called under the strategy's scope: an optimizer that Keras does not know of is not
        built in time, and one in a dict is not saved under its own name.
        """
        first, *others = optimizers
        super().compile(optimizer=optimizers[first][0], jit_compile=jit_compile)
        for name in others:
            setattr(self, f"{name}_optimizer", optimizers[name][0])
        self._clip_norms = dict(clip_norms or {})
        self._trained = {}
        for name, (optimizer, variables) in optimizers.items():
            optimizer.build(variables)
            self._trained[name] = (optimizer, variables)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        # All is built. Keras would take a batch for it, which fails with a dict on several workers.
        pass

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.averages.values())

    @property
    def step(self) -> tf.Tensor:
        """How many updates were made, an int64 scalar for use in a graph."""
        return tf.cast(self.optimizer.iterations.value, tf.int64)

    def step_seed(self, salt: int) -> tf.Tensor:
        """A seed, int32 [2], that follows from the run's seed, the step and the replica."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.stack([self.seed + 1000 * salt + 10_000 * replica, tf.cast(self.step, tf.int32)])

    def ramp(self, start: int, length: int) -> tf.Tensor:
        """0 until step `start`, then rising to 1 over `length` steps: a scalar."""
        since = tf.cast(self.step, tf.float32) - start
        return tf.clip_by_value((since + 1.0) / (length + 1.0), 0.0, 1.0)

    def steps_done(self) -> int:
        """How many updates were made."""
        return int(keras.ops.convert_to_numpy(self.optimizer.iterations))

    def learning_rates(self) -> dict[str, float]:
        """The present learning rate of each optimizer."""
        return {
            f"learning_rate/{name}": float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            for name, (optimizer, _) in self._trained.items()
        }

    def train_step(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        gradients, terms = self.gradients(batch)
        # Optimizers sum over replicas, and each replica's loss is a mean over its own rows.
        strategy = tf.distribute.get_strategy()
        replicas = strategy.num_replicas_in_sync
        for name, of_variables in gradients.items():
            optimizer, variables = self._trained[name]
            shares = [gradient / replicas for gradient in of_variables]
            if isinstance(optimizer, SlowTrunkOptimizer):
                shares = optimizer.of_those_that_move(shares, variables)
            if name in self._clip_norms:
                shares = _clipped(shares, self._clip_norms[name], replicas)
            optimizer.apply(shares, variables)
        for term, average in self.averages.items():
            average.update_state(terms[term])
        results = {term: average.result() for term, average in self.averages.items()}
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras takes the mean of the workers' results over their first axis.
            return {term: tf.reshape(result, [1]) for term, result in results.items()}
        return results


def _clipped(shares: Sequence[tf.Tensor], norm: float, replicas: int) -> list[tf.Tensor]:
    """Shares of a gradient, one a replica, whose sum has at most this norm."""
    whole = list(shares)
    if replicas > 1:
        whole = tf.distribute.get_replica_context().all_reduce("SUM", whole)
    clipped, _ = tf.clip_by_global_norm(whole, norm)
    return [gradient / replicas for gradient in clipped]
