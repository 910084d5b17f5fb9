"""Deep hashing: a hash network under an optimizer, trained in stages with checkpoints.

What a supervised deep method needs stands here; `hashers.gan` adds G and D.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np

from tfhash import codes
from tfhash.data.learning import LearningData, listed_triplets
from tfhash.data.pipeline import TrainingBatches
from tfhash.data.samplers import Sampler
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits, learnable
from tfhash.errors import UserError
from tfhash.evaluation.validation import validation_maps
from tfhash.hashers import backbone_settings
from tfhash.hashers.base import Hasher
from tfhash.hashers.deep_settings import DeepSettings, HashConfig
from tfhash.hashers.spaces import Space, make_space
from tfhash.networks.hash_layer import HashNetwork
from tfhash.training.callbacks import LogToTensorBoard, Progress, SaveCheckpoint, StopOnNonFinite
from tfhash.training.checkpoints import Checkpoints, save_weights
from tfhash.training.optimizers import SlowTrunk, hash_optimizer
from tfhash.training.run import Run
from tfhash.training.stage import Stage
from tfhash.training.strategies import make_strategy, precision, start_strategy
from tfhash.training.workers import check_same, together

WEIGHTS = "encoder.weights.h5"
_BATCH = 256
_AT_ONCE = 8  # batches that are gathered before they are encoded
# Of the settings of all methods those that no paper of theirs has: a row tells them.
ADDED = (
    "view",
    "unlabelled_view",
    "standardise_features",
    "trunk_rate",
    "trunk_from",
    "warmup_steps",
    "clip_norm",
    "mirrored_codes",
)

Gauge = Callable[[], dict[str, Any]]


def of_round(name: str, number: int) -> str:
    """What a stage is called in its first round, 1, and in later ones."""
    return name if number == 1 else f"{name}-{number}"


class Pace(NamedTuple):
    """How H learns in a stage: its updates, its learning rate, and whether it is H's first stage.

    Only in the first one the backbone waits for the hash layer (`trunk_from`).
    """

    steps: int
    rate: float
    first: bool = True


class HashNetworkHasher(Hasher):
    """A Hasher that trains a hash network H in stages, under a tf.distribute strategy.

    A method with one stage says in `make_stage` what H minimises, and in `make_sampler` what a
    batch is made of. One with more stages overrides `train_stages`.

    networks: by name, those of the method; space: where H works; see `spaces.Space`.
    takes_triplets: whether a user's own triplets will do in place of labels. keeps_rows: whether
    its stage keeps something of each labelled image, and has to know which a batch holds.
    """

    Settings = DeepSettings
    saves_backbone = True
    takes_triplets: ClassVar[bool] = True
    keeps_rows: ClassVar[bool] = False
    settings: DeepSettings
    config: HashConfig

    def build(self, image_size: int) -> None:
        super().build(image_size)
        settings = self.settings
        self.strategy = make_strategy(settings.strategy)
        if settings.groups % self.strategy.num_replicas_in_sync:
            raise UserError(
                f"`groups`: {settings.groups}; allowed with `strategy`={settings.strategy} here: "
                f"multiples of {self.strategy.num_replicas_in_sync}, the number of replicas"
            )
        with precision(settings.policy), self.strategy.scope():
            self.space = self.make_space()
            self.hash_network = self.space.hash_network(
                self.code_length, self.hidden_widths(), self.config.dropout, self.hash_network_kind
            )
            self._encoder = self.space.encoder(self.hash_network)
        self.networks: dict[str, keras.Model] = {"hash_network": self.hash_network}

    def hidden_widths(self) -> tuple[int, ...]:
        """The units of each hidden layer of H."""
        units = self.config.hidden_units
        return (units,) if units else ()

    @property
    def hash_network_kind(self) -> Callable[..., HashNetwork]:
        """What H is made by, of code_length, backbone, hidden_units and dropout."""
        return HashNetwork

    def make_space(self) -> Space:
        """Where H works."""
        return make_space(self.config.space, self.settings, self.image_size, self.seed)

    def _make_encoder(self) -> keras.Model:
        return self._encoder

    @classmethod
    def not_as_published(cls, settings: DeepSettings, config: HashConfig) -> dict[str, Any]:
        of_network = backbone_settings.not_as_published(settings, cls.paper_backbones)
        plain = DeepSettings()
        of_training = {
            name: getattr(settings, name)
            for name in ADDED
            if getattr(settings, name) != getattr(plain, name)
        }
        return of_network | of_training | super().not_as_published(settings, config)

    @classmethod
    def start(cls, settings: DeepSettings) -> None:
        start_strategy(settings.strategy, settings.worker_wait)

    @classmethod
    def end(cls, settings: DeepSettings) -> None:
        # Who left before the first worker has written all would not be there for another try.
        strategy = make_strategy(settings.strategy)
        with together(strategy):
            check_same(strategy, "what they did", "all")

    @classmethod
    def lasting(cls, settings: DeepSettings) -> tuple:
        return settings.strategy, settings.xla

    @classmethod
    def is_repeatable(cls, settings: DeepSettings) -> bool:
        return not settings.xla

    @property
    def steps(self) -> int:
        return self.settings.steps

    def save_weights(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_weights(self._encoder, directory / WEIGHTS)

    def _load_weights(self, directory: Path) -> None:
        path = directory / WEIGHTS
        if not path.is_file():
            raise UserError(f"`model_dir`: no {path}; is the run finished?")
        self._encoder.load_weights(path)

    def _embed(self, images: np.ndarray) -> np.ndarray:
        with together(self.strategy):
            return self.space.embed(self.hash_network, images)

    def _learn(self, image_set: ImageSet, splits: RetrievalSplits, run: Run) -> dict[str, Any]:
        with precision(self.settings.policy), together(self.strategy):
            asked = {**self._deciding(), "split_fingerprint": splits.fingerprint}
            check_same(self.strategy, "flags or data", asked)
            return self.train_stages(image_set, splits, run)

    def train_stages(
        self, image_set: ImageSet, splits: RetrievalSplits, run: Run
    ) -> dict[str, Any]:
        """Trains all stages, here the one of H; facts for metrics.json."""
        data = self.learning_data(image_set, splits)
        with self.strategy.scope():
            stage = self.make_stage(data)
        return {"hash_seconds": self.train_hash(self.compile(stage), data, run)}

    def learning_data(self, image_set: ImageSet, splits: RetrievalSplits) -> LearningData:
        """The images as the networks see them. UserError where a method has nothing to learn."""
        if image_set.triplets is not None and not self.takes_triplets:
            raise UserError(
                f"`triplets_csv`: not with `method`={self.method()}, which learns from labels"
            )
        if not len(splits.labelled) and image_set.triplets is None:
            raise UserError(f"labels: none; {type(self).__name__} learns from labelled images")
        inputs = self.space.inputs(image_set.images, learnable(splits))
        listed = listed_triplets(image_set, splits)
        data = LearningData(inputs, image_set.labels, splits, listed)
        self.start_scores(data)
        return data

    def start_scores(self, data: LearningData, network: HashNetwork | None = None) -> None:
        """Centres the scores that H starts with, where `centred_start` asks for it.

        To be called before anything is made of H. A checkpoint that is restored goes before.
        network: another one in the place of H.
        """
        network = network or self.hash_network
        if self.config.centred_start:
            images = data.splits.labelled
            if not len(images):  # triplets alone: their images, but no query
                images = learnable(data.splits)[: 4 * _BATCH]
            bias = network.hash_layer.bias
            bias.assign(bias - self.scores_of(data, images, network).mean(axis=0))

    def make_stage(self, data: LearningData) -> Stage:
        """The stage in which H learns, not compiled; called under the strategy's scope."""
        raise NotImplementedError(f"{type(self).__name__} has neither make_stage nor train_stages")

    def make_sampler(self, data: LearningData) -> Sampler:
        """What draws the groups of a batch: here triplets of labelled images."""
        settings = self.settings
        return data.triplets(settings.triplets, settings.group_size, settings.triplets_per_query)

    def make_batches(self, data: LearningData, stage: int) -> TrainingBatches:
        """What a stage learns from: 0 the one before H's, if there is any, 1 that of H."""
        return TrainingBatches(
            data.inputs,
            labelled=data.labelled,
            unlabelled=data.splits.unlabelled,
            sampler=self.make_sampler(data),
            groups=self.settings.groups,
            augment=self.space.augment,
            unlabelled_augment=self.space.unlabelled_augment,
            seed=(self.seed, stage),
            labels=data.labels,
            places=self.keeps_rows,
        )

    def compile(self, stage: Stage, pace: Pace | None = None) -> Stage:
        """Gives the stage an optimizer for each of its groups of variables.

        pace: that of H, by default as the flags have it.
        """
        self._pace = pace or Pace(self.settings.steps, self.config.hash_learning_rate)
        with self.strategy.scope():
            variables = stage.variables_by_optimizer()
            optimizers = {
                name: (self.make_optimizer(name, list(variables)), of_optimizer)
                for name, of_optimizer in variables.items()
            }
            clip_norms = {"hash": self.settings.clip_norm} if self.settings.clip_norm else {}
            stage.compile(optimizers, jit_compile=self.settings.xla, clip_norms=clip_norms)
        return stage

    def make_optimizer(self, name: str, all_names: list[str]) -> keras.optimizers.Optimizer:
        """The optimizer of a name; all_names: those of its stage. Here that of H."""
        del name, all_names
        config = self.config
        backbone, pace = self.hash_network.backbone, self._pace
        of_trunk = backbone.trainable_variables if backbone else []
        trunk_from = self.settings.trunk_from if pace.first else 0
        return hash_optimizer(
            config.hash_optimizer,
            pace.rate,
            config.hash_schedule,
            steps=pace.steps,
            decay_steps=config.hash_decay_steps,
            weight_decay=config.weight_decay,
            warmup_steps=self.settings.warmup_steps,
            trunk=SlowTrunk(of_trunk, self.settings.trunk_rate, trunk_from),
        )

    def train_hash(
        self,
        stage: Stage,
        data: LearningData,
        run: Run,
        gauges: Gauge = dict,
        pictures: Gauge = dict,
        title: str = "stage 1 of 1 (hash network)",
        number: int = 1,
    ) -> float:
        """Trains the stage of H, watched by the mAP of the validation part; the seconds it took.

        number: of its round, where it has several; each has draws of its own.
        """
        name = of_round("hash", number)
        log = LogToTensorBoard(run.logs(name), lambda: gauges() | self.validate(data), pictures)
        checkpoints = Checkpoints(run.folder("checkpoints"), name, run.writes)
        batches = self.make_batches(data, 1).of_round(number)
        return self.train(stage, batches, self.settings.steps, run, checkpoints, log, title)

    def train(
        self,
        stage: Stage,
        batches: TrainingBatches,
        steps: int,
        run: Run,
        checkpoints: Checkpoints,
        log: keras.callbacks.Callback,
        title: str,
    ) -> float:
        """Trains a compiled stage from its newest checkpoint on until it has made `steps` updates.

        Answers the seconds that this took, those before an interruption included. Raises
        NonFiniteError where a loss or a weight is NaN or infinite.
        """
        every = self.settings.checkpoint_every
        done, seconds = checkpoints.restore(stage)
        # Only when all have read does the first one write again.
        check_same(self.strategy, f"the checkpoint to go on from, here that of step {done}", done)
        save = SaveCheckpoint(checkpoints, seconds)
        title = f"{type(self).__name__}, {title}"
        shown = [] if run.follows else [Progress(title, done, steps)]
        if done == 0:
            checkpoints.save(stage, 0, 0.0)
        while done < steps:
            # Whole epochs in one call, and a shorter last one so that the stage ends at `steps`.
            epochs = (steps - done) // every
            per_epoch = every if epochs else steps - done
            first, count = done // every, max(epochs, 1)
            logged = stage.fit(
                batches.dataset(done, done + count * per_epoch),
                initial_epoch=first,
                epochs=first + count,
                steps_per_epoch=per_epoch,
                callbacks=[StopOnNonFinite(checkpoints), log, *self.callbacks, save, *shown],
                shuffle=False,
                verbose=0,
            )
            history = self.history.setdefault(checkpoints.stage, {})
            for term, values in logged.history.items():
                history.setdefault(term, []).extend(values)
            if stage.stop_training:  # one of the user's callbacks asked for it
                break
            done += count * per_epoch
        return save.seconds

    def validate(self, data: LearningData, network: HashNetwork | None = None) -> dict[str, float]:
        """The mAPs of the validation part, as `evaluation.validation` has them.

        network: another one in the place of H.
        """
        network = network or self.hash_network
        validation, labelled = data.splits.validation, data.splits.labelled
        if not len(validation):
            return {}
        return validation_maps(
            self._codes_of(data, validation, network),
            self._codes_of(data, labelled, network),
            data.labels[validation],
            data.labels[labelled],
            network.code_length,
        )

    def scores_of(
        self, data: LearningData, positions: np.ndarray, network: HashNetwork | None = None
    ) -> np.ndarray:
        """What the sigmoid of H, or of another network, is taken of, of items as they are.

        float32 [n, k].
        """
        network = network or self.hash_network
        batches = np.split(positions, range(_BATCH, len(positions), _BATCH))
        scores = [network.scores(data.inputs[batch, 0]) for batch in batches]
        return np.concatenate([keras.ops.convert_to_numpy(of_batch) for of_batch in scores])

    def _codes_of(
        self, data: LearningData, positions: np.ndarray, network: HashNetwork
    ) -> np.ndarray:
        """Packed codes of items of the data as they are, without augmentation."""
        packed = []
        for start in range(0, len(positions), _AT_ONCE * _BATCH):
            items = data.inputs[positions[start : start + _AT_ONCE * _BATCH], 0]
            activations = network.predict(items, batch_size=_BATCH, verbose=0)
            packed.append(codes.pack(codes.binarize(activations)))
        return np.concatenate(packed)
