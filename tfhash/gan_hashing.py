"""What methods with a GAN share: a first stage trains G and D, a second one the hash network H."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from tfhash import codes, config_values, retrieval
from tfhash.callbacks import LogToTensorBoard
from tfhash.checkpoints import Checkpoints, claim
from tfhash.data.pipeline import TrainingBatches
from tfhash.data.splits import RetrievalSplits
from tfhash.deep import DeepHasher, LearningData
from tfhash.errors import UserError
from tfhash.gan_stage import GANStage
from tfhash.hasher import Run, setting
from tfhash.networks.features import weights_digest
from tfhash.networks.generators import IMAGE_SIZES
from tfhash.spaces import SPACES

Gauge = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class GANConfig:
    """Hyperparameters of G, D and H; defaults are the papers', or DCGAN's where they are silent.

    prefix: of the flags, as messages name them.
    """

    prefix: ClassVar[str]

    space: str = setting(
        "pixels", "pixels; or features: G, D and H work on those of the frozen backbone"
    )
    minimax: bool = setting(
        False, "G minimises the negative of what D minimises, as the paper has it; not -log D"
    )
    gan_steps: int = setting(20000, "updates of stage 1, G and D alone")
    gan_learning_rate: float = setting(2e-4, "Adam's rate for G and D")
    stage2_gan_rate: float = setting(1.0, "factor of that rate in stage 2")
    gan_beta_1: float = setting(0.5, "Adam's beta_1 for G and D")
    gan_size: int = setting(32, "side in px of the images of G and D: 16, 32 or 64")
    gan_width: int = setting(64, "filters (units) of the narrowest layer of G and D")
    noise_size: int = setting(100, "length of the noise z")
    discriminator_batch_norm: bool = setting(True, "batch normalisation in D (pixels)")
    discriminator_dropout: float = setting(0.0, "dropout in D, on what its trunk answers")
    hash_optimizer: str = setting("sgd", "optimizer of H: sgd (momentum .9) or adamw")
    hash_learning_rate: float = setting(1e-4, "learning rate of H")
    hash_schedule: str = setting(
        "constant", "constant; cosine: the rate falls to 0; step: to a tenth after hash_decay_steps"
    )
    hash_decay_steps: int = setting(10000, "updates at the full learning rate of H (step)")
    weight_decay: float = setting(0.0, "weight decay of H")
    hidden_units: int = setting(0, "units of a ReLU layer before the hash layer; 0 for none")
    dropout: float = setting(0.0, "dropout in H before the hash layer")
    stage1_dir: str | None = setting(
        None, "folder that keeps stage 1 for other runs on the same split", decides=False
    )

    def __post_init__(self) -> None:
        least = dict.fromkeys(("gan_width", "hash_decay_steps"), 1)
        least |= dict.fromkeys(("noise_size", "hidden_units", "gan_steps", "weight_decay"), 0)
        least |= dict.fromkeys(("hash_learning_rate", "gan_learning_rate", "stage2_gan_rate"), 0)
        least |= dict.fromkeys(("gan_beta_1", "dropout", "discriminator_dropout"), 0)
        config_values.check(
            self,
            self.prefix,
            choices={
                "space": tuple(SPACES),
                "hash_optimizer": ("sgd", "adamw"),
                "hash_schedule": ("constant", "cosine", "step"),
                "gan_size": IMAGE_SIZES,
            },
            least=least,
        )
        self.below_1("gan_beta_1", "dropout", "discriminator_dropout")

    def below_1(self, *names: str) -> None:
        """UserError for the first of these fields that is 1 or more."""
        for name in names:
            if getattr(self, name) >= 1:
                raise UserError(f"--{self.prefix}{name}: {getattr(self, name)}; allowed: below 1")


class GANHasher(DeepHasher):
    """A DeepHasher whose hash network H learns from what a GAN makes.

    networks: by name, those of the method; stage1_flags: fields of its Config, beside those of all
    GANs, that a kept stage 1 must agree in.
    """

    config: GANConfig
    stage1_flags: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        config = self.config
        with self.strategy.scope():
            self.space = SPACES[config.space](
                self.settings, self.image_size, config.gan_size, config.gan_width, self.seed
            )
            hidden = (config.hidden_units,) if config.hidden_units else ()
            self.hash_network = self.space.hash_network(self.code_length, hidden, config.dropout)
            self.encoder = self.space.encoder(self.hash_network)
        self.networks: dict[str, keras.Model] = {"hash_network": self.hash_network}

    def embed(self, images: np.ndarray) -> np.ndarray:
        return self.space.embed(self.hash_network, images)

    @abc.abstractmethod
    def make_batches(self, data: LearningData, stage: int) -> TrainingBatches:
        """What stage 0 (the GAN's) or 1 (H's) learns from."""

    def train_gan(
        self,
        stage: GANStage,
        data: LearningData,
        gauges: Gauge,
        pictures: Gauge,
        run: Run,
    ) -> float:
        """Trains stage 1, or takes what an earlier run left in stage1_dir; the seconds it took."""
        directory = Path(self.config.stage1_dir or run.directory / "checkpoints")
        claim(directory / "stage1.json", self._deciding_for_stage_1(data), run.writes)
        log = LogToTensorBoard(run.directory / "logs" / "gan", gauges, pictures)
        checkpoints = Checkpoints(directory, "gan", run.writes)
        batches = self.make_batches(data, 0)
        return self.train(stage, batches, self.config.gan_steps, run, checkpoints, [log])

    def train_hash(
        self, stage: GANStage, data: LearningData, gauges: Gauge, pictures: Gauge, run: Run
    ) -> float:
        """Trains stage 2; the seconds it took."""
        log = LogToTensorBoard(
            run.directory / "logs" / "hash", lambda: gauges() | self._validate(data), pictures
        )
        checkpoints = Checkpoints(run.directory / "checkpoints", "hash", run.writes)
        batches = self.make_batches(data, 1)
        return self.train(stage, batches, self.settings.steps, run, checkpoints, [log])

    def compile(self, stage: GANStage) -> GANStage:
        """Gives the stage its optimizers: SGD or AdamW for "hash", Adam for each other one.

        Adam also for G in the second stage, for which DSH-GANs may mean SGD (section 4.2).
        """
        config = self.config
        with self.strategy.scope():
            optimizers = {}
            variables_of = stage.variables_by_optimizer()
            for name, variables in variables_of.items():
                if name == "hash":
                    optimizer = self._hash_optimizer()
                else:
                    rate = config.gan_learning_rate
                    if "hash" in variables_of:
                        rate *= config.stage2_gan_rate
                    optimizer = keras.optimizers.Adam(rate, beta_1=config.gan_beta_1)
                optimizers[name] = (optimizer, variables)
            stage.compile(optimizers, jit_compile=self.settings.xla)
        return stage

    def _hash_optimizer(self) -> keras.optimizers.Optimizer:
        config = self.config
        rate = config.hash_learning_rate
        if config.hash_schedule == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(rate, self.settings.steps)
        elif config.hash_schedule == "step":
            rate = keras.optimizers.schedules.PiecewiseConstantDecay(
                [config.hash_decay_steps - 1], [rate, rate / 10]
            )
        if config.hash_optimizer == "adamw":
            return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
        return SGD(rate, config.weight_decay)

    def _deciding_for_stage_1(self, data: LearningData) -> dict[str, Any]:
        """What a kept stage 1 must agree in with a run that uses it; neither bits nor seed."""
        config = dataclasses.asdict(self.config) | dataclasses.asdict(self.settings)
        names = [name for name in config if name.startswith(("gan_", "discriminator"))]
        names += ["space", "noise_size", "minimax", *self.stage1_flags]
        names += ["batch_size", "unlabelled_batch_size", "groups", "triplets"]
        names += ["triplets_per_query", "flip", "shift", "mixed_bfloat16"]
        if self.config.space == "features":
            names += ["backbone", "backbone_size", "feature_layers", "feature_components"]
        chosen = {name: config[name] for name in names}
        if self.config.space == "features":
            chosen["backbone_weights"] = weights_digest(self.space.backbone)
        listed = data.listed
        return {
            "split_fingerprint": data.splits.fingerprint,
            "image_size": self.image_size,
            "triplets_csv": listed if listed is None else hashlib.sha256(listed).hexdigest()[:16],
            **chosen,
        }

    def _validate(self, data: LearningData) -> dict[str, float]:
        """mAP of the validation part as queries against the labelled images."""
        parts = (data.splits.validation, data.splits.labelled)
        if not len(parts[0]):
            return {}
        activations = (
            self.hash_network.predict(data.inputs[part, 0], batch_size=256, verbose=0)
            for part in parts
        )
        metrics = retrieval.evaluate(
            *(codes.pack(codes.binarize(of_part)) for of_part in activations),
            *(data.labels[part] for part in parts),
            code_length=self.code_length,
        )
        return {"validation_map": metrics.map[None]}


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


def samples(splits: RetrievalSplits, count: int) -> np.ndarray:
    """Positions of `count` unlabelled images, labelled ones where there are none."""
    pool = splits.unlabelled if len(splits.unlabelled) else splits.labelled
    return pool[np.linspace(0, len(pool) - 1, min(count, len(pool))).astype(int)]
