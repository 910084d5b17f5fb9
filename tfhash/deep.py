"""Deep hashing: training stages of several networks with one optimizer each."""

from __future__ import annotations

import abc
import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash import config_values
from tfhash.backbone_settings import BackboneSettings
from tfhash.callbacks import SaveCheckpoint, StopOnNonFinite
from tfhash.checkpoints import Checkpoints
from tfhash.data.pipeline import TrainingBatches
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.data.triplets import (
    InBatchTriplets,
    ListedTriplets,
    SampledTriplets,
    TripletSampler,
)
from tfhash.errors import UserError
from tfhash.hasher import Hasher, Run, setting

STRATEGIES = ("one_device", "mirrored", "multi_worker")
TRIPLETS = ("in_batch", "sampled")


@dataclass(frozen=True)
class DeepSettings(BackboneSettings):
    """What the deep methods share."""

    frozen_through: str | None = setting(None, "last layer of the backbone that is not trained")
    steps: int = setting(2000, "updates of the hash network")
    batch_size: int = setting(64, "labelled images a batch")
    unlabelled_batch_size: int = setting(64, "unlabelled images a batch")
    groups: int = setting(
        1, "parts of a batch that form triplets among themselves; a multiple of the replicas"
    )
    triplets: str = setting(
        "in_batch",
        "in_batch: an image stands in many triplets; sampled: each triplet brings its own images",
    )
    triplets_per_query: int = setting(8, "triplets of which an image is the query (in_batch)")
    flip: bool = setting(False, "augmentation: random horizontal flips")
    shift: int = setting(1, "augmentation: random shifts by up to this many px")
    checkpoint_every: int = setting(200, "steps between checkpoints, log lines and validations")
    strategy: str = setting("one_device", "one_device, mirrored or multi_worker")
    mixed_bfloat16: bool = setting(False, "compute in bfloat16, keep weights and heads in float32")
    xla: bool = setting(False, "compile the training step with XLA (one_device only)")

    def __post_init__(self) -> None:
        positive = ("steps", "groups", "triplets_per_query", "checkpoint_every")
        positive += ("backbone_size", "feature_components")
        config_values.check(
            self,
            choices={"strategy": STRATEGIES, "triplets": TRIPLETS},
            least={
                **dict.fromkeys(positive, 1),
                "batch_size": 3 * self.groups,  # of fewer images a group there is no triplet
                "unlabelled_batch_size": 0,
                "shift": 0,
            },
        )
        for name in ("batch_size", "unlabelled_batch_size"):
            if getattr(self, name) % self.groups:
                raise UserError(
                    f"--{name}: {getattr(self, name)}; allowed: multiples of --groups={self.groups}"
                )
        if self.xla and self.strategy != "one_device":
            raise UserError(f"--xla: not with --strategy={self.strategy}; allowed: one_device")


@functools.cache
def make_strategy(name: str) -> tf.distribute.Strategy:
    """The tf.distribute strategy of a name; multi_worker reads TF_CONFIG, as TensorFlow does."""
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


class Stage(keras.Model, abc.ABC):
    """Networks that are trained together, each group of variables by its own optimizer.

    networks: become attributes of the stage by their names, and are built. terms: the scalars that
    `gradients` reports, averaged over the steps between two log lines.
    """

    def __init__(self, networks: Mapping[str, keras.Model], terms: Sequence[str]):
        super().__init__()
        for name, network in networks.items():
            setattr(self, name, network)
        self.averages = {term: keras.metrics.Mean(name=term) for term in terms}
        self.built = True

    @abc.abstractmethod
    def gradients(
        self, batch: Mapping[str, tf.Tensor]
    ) -> tuple[dict[str, list[tf.Tensor]], dict[str, tf.Tensor]]:
        """One replica's gradients of a batch, by optimizer, and its terms, none of them scaled."""

    def compile(
        self,
        optimizers: Mapping[str, tuple[keras.optimizers.Optimizer, list[keras.Variable]]],
        jit_compile: bool = False,
    ) -> None:
        """Builds each optimizer over its variables. The first counts the steps of the stage.

        To be called under the strategy's scope: an optimizer that Keras does not know of is not
        built in time, and one in a dict is not saved under its own name.
        """
        first, *others = optimizers
        super().compile(optimizer=optimizers[first][0], jit_compile=jit_compile)
        for name in others:
            setattr(self, f"{name}_optimizer", optimizers[name][0])
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
            optimizer.apply([gradient / replicas for gradient in of_variables], variables)
        for term, average in self.averages.items():
            average.update_state(terms[term])
        results = {term: average.result() for term, average in self.averages.items()}
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            # Keras takes the mean of the workers' results over their first axis.
            return {term: tf.reshape(result, [1]) for term, result in results.items()}
        return results


class DeepHasher(Hasher):
    """A Hasher that trains networks in stages under a tf.distribute strategy.

    A subclass sets `encoder`: RGB images float32 [n, S, S, 3] in [0, 255] -> float32 [n, k].
    """

    encoder: keras.Model

    Settings = DeepSettings
    settings: DeepSettings

    def __init__(self, config: Any, settings: DeepSettings, **kwargs: Any):
        super().__init__(config, settings, **kwargs)
        keras.config.set_dtype_policy("mixed_bfloat16" if settings.mixed_bfloat16 else "float32")
        self.strategy = make_strategy(settings.strategy)
        if settings.groups % self.strategy.num_replicas_in_sync:
            raise UserError(
                f"--groups: {settings.groups}; allowed with --strategy={settings.strategy} here: "
                f"multiples of {self.strategy.num_replicas_in_sync}, the number of replicas"
            )

    @classmethod
    def start(cls, settings: DeepSettings) -> None:
        make_strategy(settings.strategy)  # workers have to meet before the first operation

    @property
    def steps(self) -> int:
        return self.settings.steps

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.encoder.save_weights(directory / "encoder.weights.h5")

    def load(self, directory: Path) -> None:
        path = directory / "encoder.weights.h5"
        if not path.is_file():
            raise UserError(f"--model_dir: no {path}; is the run finished?")
        self.encoder.load_weights(path)

    def train(
        self,
        stage: Stage,
        batches: TrainingBatches,
        steps: int,
        run: Run,
        checkpoints: Checkpoints,
        callbacks: Iterable[keras.callbacks.Callback] = (),
    ) -> float:
        """Trains a compiled stage from its newest checkpoint on until it has made `steps` updates.

        Answers the seconds that this took, those before an interruption included. Raises
        NonFiniteError where a loss or a weight is NaN or infinite.
        """
        every = self.settings.checkpoint_every
        done, seconds = checkpoints.restore(stage)
        save = SaveCheckpoint(checkpoints, seconds)
        if done == 0:
            checkpoints.save(stage, 0, 0.0)
        while done < steps:
            # Whole epochs in one call, and a shorter last one so that the stage ends at `steps`.
            epochs = (steps - done) // every
            per_epoch = every if epochs else steps - done
            first, count = done // every, max(epochs, 1)
            print(f"stage {checkpoints.stage}: step {done} of {steps}", flush=True)
            stage.fit(
                batches.dataset(done, done + count * per_epoch),
                initial_epoch=first,
                epochs=first + count,
                steps_per_epoch=per_epoch,
                callbacks=[StopOnNonFinite(), *callbacks, save],
                shuffle=False,
                verbose=(1 if sys.stdout.isatty() else 2) if run.writes else 0,
            )
            done += count * per_epoch
        return save.seconds


@dataclass(frozen=True)
class LearningData:
    """What the stages learn from.

    inputs: [n, views, ...] of all images of the set, as the networks see them; labels: multi-hot
    [n, C]; listed: int64 [T, 3], a user's own triplets as positions in inputs, or None.
    """

    inputs: np.ndarray
    labels: np.ndarray
    splits: RetrievalSplits
    listed: np.ndarray | None = None

    @property
    def labelled(self) -> np.ndarray:
        """The images that triplets are made of: positions in inputs."""
        return self.splits.labelled if self.listed is None else np.arange(len(self.inputs))

    def sampler(self, settings: DeepSettings) -> TripletSampler:
        """The sampler that the settings ask for; its members are positions in `labelled`."""
        size = settings.batch_size // settings.groups
        if self.listed is not None:
            return ListedTriplets(self.listed, max(size // 3, 1))
        labels = self.labels[self.labelled]
        if settings.triplets == "sampled":
            return SampledTriplets(labels, max(size // 3, 1))
        return InBatchTriplets(labels, size, settings.triplets_per_query)


def listed_triplets(image_set: ImageSet, splits: RetrievalSplits) -> np.ndarray | None:
    """The user's own triplets, int64 [T, 3], without those that hold a query image; None of none.

    Says how many were left out. UserError where none is left.
    """
    listed = image_set.triplets
    if listed is None:
        return None
    clean = ~np.isin(listed, splits.query).any(axis=1)
    if not clean.all():
        print(f"{(~clean).sum()} of {len(listed)} triplets hold a query image: left out")
    if not clean.any():
        raise UserError("--triplets_csv: each triplet in it holds a query image")
    return listed[clean]
