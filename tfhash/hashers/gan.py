"""What methods with a GAN share: a first stage trains G and D, a second one the hash network H."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from tfhash.data.learning import LearningData
from tfhash.data.pipeline import random_view
from tfhash.data.splits import RetrievalSplits, learnable
from tfhash.hashers.backbone_settings import BackboneSettings
from tfhash.hashers.deep import Gauge, HashNetworkHasher, Pace, of_round
from tfhash.hashers.deep_settings import HashConfig
from tfhash.hashers.gan_features import GANTrunk, make_gan_space
from tfhash.hashers.gan_settings import GANConfig
from tfhash.hashers.gan_spaces import GANSpace
from tfhash.hashers.kept_stages import kept_checkpoints, kept_seconds
from tfhash.networks.features import weights_digest
from tfhash.networks.hash_layer import HashNetwork
from tfhash.training.callbacks import LogToTensorBoard
from tfhash.training.checkpoints import Checkpoints
from tfhash.training.run import Run
from tfhash.training.stage import Stage

# What decides which labelled images a batch holds, in which views.
_OF_BATCHES = (
    *("batch_size", "groups", "triplets", "triplets_per_query"),
    *("flip", "shift", "shift_fill", "mixed_bfloat16"),
)


class GANHasher(HashNetworkHasher):
    """A HashNetworkHasher whose hash network learns from what a GAN makes.

    stage0_flags, stage1_flags: fields of its Config, beside those of all GANs, that a kept stage 0
    and a kept stage 1 must agree in.
    """

    config: GANConfig
    space: GANSpace
    stage0_flags: ClassVar[tuple[str, ...]] = ()
    stage1_flags: ClassVar[tuple[str, ...]] = ()
    _gan_inputs: np.ndarray | None = None

    def make_space(self) -> GANSpace:
        config = self.config
        return make_gan_space(
            "trunk" if config.gan_space == "trunk" else config.space,
            self.settings,
            self.image_size,
            config.gan_size,
            config.gan_width,
            self.seed,
        )

    def build(self, image_size: int) -> None:
        super().build(image_size)
        # Taken now, for H learns in stage 0; a kept one was of the same first weights.
        self._first_weights = ""
        if self.config.stage0_steps:
            on_features = self.hash_network.backbone is None
            trunk = self.space.backbone if on_features else self.hash_network.backbone  # type: ignore[attr-defined]
            self._first_weights = weights_digest(trunk)

    @property
    def has_gan(self) -> bool:
        """Whether G and D are there at all, or H learns without them."""
        return True

    @property
    def rounds(self) -> int:
        """How often the stages after stage 0 are run: G and D, where there are any, then H."""
        return 1

    @property
    def steps(self) -> int:
        """The updates of H, in all stages."""
        return self.config.stage0_steps + self.rounds * self.settings.steps

    def stages(self) -> int:
        """How many stages there are, for the titles of their progress bars."""
        return self._stages_until(self.rounds)

    def _stages_until(self, number: int) -> int:
        """How many stages there are until H has learned in this round."""
        return bool(self.config.stage0_steps) + number * (self.has_gan + 1)

    def train_alone(
        self, stage: Stage, data: LearningData, run: Run, network: HashNetwork | None = None
    ) -> dict[str, float]:
        """Stage 0, H on labelled images alone, or what an earlier run left of it; its seconds.

        stage: not compiled. network: the one that learns in it, by default H.
        """
        steps = self.config.stage0_steps
        network = network or self.hash_network
        log = LogToTensorBoard(run.logs("alone"), lambda: self.validate(data, network))
        title = f"stage 1 of {self.stages()} (hash network alone)"
        batches = dataclasses.replace(self.make_batches(data, 2), unlabelled_size=0, noise_size=0)
        deciding = self._deciding_for_stage_0(data, network.code_length)
        with self._kept("alone", "stage0_dir", steps, deciding, run) as checkpoints:
            stage = self.compile(stage, Pace(steps, self._stage0_rate))
            seconds = self.train(stage, batches, steps, run, checkpoints, log, title)
        return {"stage0_seconds": seconds}

    @property
    def _stage0_rate(self) -> float:
        rate = self.config.stage0_learning_rate
        return self.config.hash_learning_rate if rate is None else rate

    def add_gan_inputs(
        self,
        images: np.ndarray,
        data: LearningData,
        run: Run,
        facts: dict[str, Any],
        number: int = 1,
    ) -> LearningData:
        """The data with what G and D are given of the images, where that is not what H is given.

        With `gan_space`=trunk those are features of the backbone as it is now. They are kept where
        stage 0 is, and facts get the seconds that they took, also where an earlier run spent them.
        In a later round they are this run's own.
        """
        self._gan_inputs = data.inputs
        if not isinstance(self.space, GANTrunk):
            return data
        kept = self.config.stage0_dir if number == 1 else None
        folder = run.folder("features") if kept is None else Path(kept) / "features"
        folder = None if run.follows else folder  # the first of several workers writes them
        start = time.perf_counter()
        self._gan_inputs = self.space.look(images, learnable(data.splits), folder)
        seconds = time.perf_counter() - start
        seconds = kept_seconds(folder, self.space.digest(), seconds, run.writes)
        facts[fact_of_round("features_seconds", number)] = seconds
        return dataclasses.replace(data, gan_inputs=self._gan_inputs)

    def gan_inputs(self, images: np.ndarray, splits: RetrievalSplits) -> np.ndarray:
        """What G and D were given of the images when they learned, [n, views, ...], for `draw`.

        RuntimeError where they learned in another process from features of H as it was then.
        """
        if self._gan_inputs is not None:
            return self._gan_inputs
        if isinstance(self.space, GANTrunk):
            raise RuntimeError("draw: expected `learn` first, for G and D know features of its H")
        return self.space.inputs(images, learnable(splits))

    def train_gan(
        self,
        stage: Stage,
        data: LearningData,
        run: Run,
        gauges: Gauge,
        pictures: Gauge,
        number: int = 1,
    ) -> float:
        """Trains stage 1, or takes what an earlier run left in stage1_dir; the seconds it took.

        number: of its round. Only the first one is kept for other runs.
        """
        name = of_round("gan", number)
        log = LogToTensorBoard(run.logs(name), gauges, pictures)
        batches = self.make_batches(data, 0).of_round(number)
        if data.gan_inputs is not None:
            batches = dataclasses.replace(batches, inputs=data.gan_inputs, augment=random_view)
        title = f"stage {self._stages_until(number) - 1} of {self.stages()} (G and D)"
        steps = self.config.gan_steps
        if number > 1:
            own = Checkpoints(run.folder("checkpoints"), name, run.writes)
            return self.train(stage, batches, steps, run, own, log, title)
        deciding = self._deciding_for_stage_1(data)
        with self._kept(name, "stage1_dir", steps, deciding, run) as checkpoints:
            return self.train(stage, batches, steps, run, checkpoints, log, title)

    def train_last(
        self,
        stage: Stage,
        data: LearningData,
        run: Run,
        gauges: Gauge,
        pictures: Gauge,
        *,
        goes_on: bool,
        number: int = 1,
    ) -> float:
        """Trains the last stage of a round, that of H; the seconds it took.

        stage: not compiled. goes_on: whether the hash layer is that of the stage before.
        """
        pace = Pace(self.settings.steps, self.config.hash_learning_rate, first=not goes_on)
        title = f"stage {self._stages_until(number)} of {self.stages()} (hash network)"
        stage = self.compile(stage, pace)
        return self.train_hash(stage, data, run, gauges, pictures, title, number)

    def _kept(
        self, name: str, setting: str, steps: int, deciding: dict[str, Any], run: Run
    ) -> contextlib.AbstractContextManager[Checkpoints]:
        """The checkpoints of a stage before the last; setting: stage0_dir or stage1_dir."""
        return kept_checkpoints(name, setting, getattr(self.config, setting), steps, deciding, run)

    def make_optimizer(self, name: str, all_names: list[str]) -> keras.optimizers.Optimizer:
        """Adam for G and D, that of H else.

        Adam also for G in the second stage, for which DSH-GANs may mean SGD (section 4.2).
        """
        if name == "hash":
            return super().make_optimizer(name, all_names)
        rate = self.config.gan_learning_rate
        if "hash" in all_names:
            rate *= self.config.stage2_gan_rate
        return keras.optimizers.Adam(rate, beta_1=self.config.gan_beta_1)

    def _deciding_for_stage_1(self, data: LearningData) -> dict[str, Any]:
        """What a kept stage 1 must agree in with a run that uses it; neither bits nor seed."""
        config = dataclasses.asdict(self.config) | dataclasses.asdict(self.settings)
        names = [name for name in config if name.startswith(("gan_", "discriminator"))]
        names.remove("gan_space")
        names += ["space", "noise_size", "minimax", *self.stage1_flags]
        names += [*_OF_BATCHES, "unlabelled_batch_size"]
        if self.config.space == "features":
            names += ["backbone", "backbone_size", "feature_layers", "feature_components"]
        chosen = {name: config[name] for name in names}
        if self.config.space == "features":
            chosen["backbone_weights"] = weights_digest(self.space.backbone)  # type: ignore[attr-defined]
        if isinstance(self.space, GANTrunk):
            chosen |= {"gan_space": "trunk", "backbone_weights": self.space.digest()}
        return self._of_data(data) | chosen

    def _deciding_for_stage_0(self, data: LearningData, bits: int) -> dict[str, Any]:
        """What a kept stage 0 must agree in with a run that uses it; bits: those of H in it."""
        config, settings = self.config, self.settings
        names = [field.name for field in dataclasses.fields(BackboneSettings)]
        names += ["frozen_through", "standardise_features", "trunk_rate", "trunk_from"]
        names += ["warmup_steps", "clip_norm", "view", *_OF_BATCHES]
        if settings.view == "strong":
            names += ["strength", "cut_out"]
        # Weights are in first_weights.
        elsewhere = ("cache_dir", "images_in", "allow_pickle_weights", "weights")
        of_settings = {name: getattr(settings, name) for name in names if name not in elsewhere}
        of_hash = [field.name for field in dataclasses.fields(HashConfig)]
        of_hash.remove("hash_learning_rate")
        of_config = {name: getattr(config, name) for name in (*of_hash, *self.stage0_flags)}
        return {
            **self._of_data(data),
            **of_settings,
            **of_config,
            "stage0_steps": config.stage0_steps,
            "stage0_learning_rate": self._stage0_rate,
            "seed": self.seed,
            "code_length": bits,
            "first_weights": self._first_weights,
        }

    def _of_data(self, data: LearningData) -> dict[str, Any]:
        """What images and triplets both stages learn from."""
        listed = data.listed
        return {
            "split_fingerprint": data.splits.fingerprint,
            "image_size": self.image_size,
            "triplets_csv": None
            if listed is None
            else hashlib.sha256(listed.data).hexdigest()[:16],
        }


def fact_of_round(fact: str, number: int) -> str:
    """What a fact of metrics.json is called, of the first round and of later ones."""
    return fact if number == 1 else f"round{number}_{fact}"


def samples(splits: RetrievalSplits, count: int) -> np.ndarray:
    """Positions of `count` unlabelled images, labelled ones where there are none."""
    pool = splits.unlabelled if len(splits.unlabelled) else splits.labelled
    return pool[np.linspace(0, len(pool) - 1, min(count, len(pool))).astype(int)]
