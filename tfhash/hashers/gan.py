"""What methods with a GAN share: a first stage trains G and D, a second one the hash network H."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from tfhash.data.learning import LearningData
from tfhash.data.splits import RetrievalSplits
from tfhash.hashers.deep import Gauge, HashNetworkHasher
from tfhash.hashers.deep_settings import HashConfig
from tfhash.hashers.gan_spaces import GANSpace, make_gan_space
from tfhash.networks.features import weights_digest
from tfhash.networks.generators import IMAGE_SIZES
from tfhash.settings import setting
from tfhash.training.callbacks import LogToTensorBoard
from tfhash.training.checkpoints import Checkpoints
from tfhash.training.run import Run, claim, lock
from tfhash.training.stage import Stage


@dataclass(frozen=True)
class GANConfig(HashConfig):
    """Hyperparameters of G, D and H; defaults are the papers', or DCGAN's where they are silent."""

    minimax: bool = setting(
        False,
        "G minimises the negative of what D minimises, as the paper has it; not -log D",
        open=True,
    )
    gan_steps: int = setting(20000, "updates of stage 1, G and D alone", least=0, open=True)
    gan_learning_rate: float = setting(2e-4, "Adam's rate for G and D", least=0)
    stage2_gan_rate: float = setting(1.0, "factor of that rate in stage 2", least=0)
    gan_beta_1: float = setting(0.5, "Adam's beta_1 for G and D", least=0, below=1)
    gan_size: int = setting(
        32, "side in px of the images of G and D: 16, 32 or 64", choices=IMAGE_SIZES, open=True
    )
    gan_width: int = setting(
        64, "filters (units) of the narrowest layer of G and D", least=1, open=True
    )
    noise_size: int = setting(100, "length of the noise z", least=0, open=True)
    discriminator_batch_norm: bool = setting(True, "batch normalisation in D (pixels)", open=True)
    discriminator_dropout: float = setting(
        0.0, "dropout in D, on what its trunk answers", least=0, below=1
    )
    stage1_dir: str | None = setting(
        None,
        "folder that keeps stage 1 for other runs on the same split",
        decides=False,
        path=True,
        from_run=False,
    )


class GANHasher(HashNetworkHasher):
    """A HashNetworkHasher whose hash network learns from what a GAN makes.

    stage1_flags: fields of its Config, beside those of all GANs, that a kept stage 1 must agree in.
    """

    config: GANConfig
    space: GANSpace
    stage1_flags: ClassVar[tuple[str, ...]] = ()

    def make_space(self) -> GANSpace:
        config = self.config
        return make_gan_space(
            config.space,
            self.settings,
            self.image_size,
            config.gan_size,
            config.gan_width,
            self.seed,
        )

    def train_gan(
        self, stage: Stage, data: LearningData, run: Run, gauges: Gauge, pictures: Gauge
    ) -> float:
        """Trains stage 1, or takes what an earlier run left in stage1_dir; the seconds it took."""
        kept = self.config.stage1_dir
        directory = run.folder("checkpoints") if kept is None else Path(kept)
        writes = run.writes or (kept is not None and run.directory is None)
        log = LogToTensorBoard(run.folder("logs", "gan"), gauges, pictures)
        checkpoints = Checkpoints(directory, "gan", writes)
        batches = self.make_batches(data, 0)
        title = "stage 1 of 2 (G and D)"
        steps = self.config.gan_steps
        with contextlib.ExitStack() as stack:
            if kept is not None and writes:
                # Who holds a finished stage 1 only reads it, and soon lets go of it.
                finished = steps in checkpoints.steps()
                stack.enter_context(lock(Path(kept), "stage1_dir", wait=finished))
            if directory is not None:
                deciding = self._deciding_for_stage_1(data)
                # In a run's own folder config.json tells already whose work it is.
                begun = kept is not None and bool(checkpoints.steps())
                setting = "model_dir" if kept is None else "stage1_dir"
                claim(directory / "stage1.json", deciding, writes, setting, begun)
            return self.train(stage, batches, steps, run, checkpoints, log, title)

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
        names += ["space", "noise_size", "minimax", *self.stage1_flags]
        names += ["batch_size", "unlabelled_batch_size", "groups", "triplets"]
        names += ["triplets_per_query", "flip", "shift", "mixed_bfloat16"]
        if self.config.space == "features":
            names += ["backbone", "backbone_size", "feature_layers", "feature_components"]
        chosen = {name: config[name] for name in names}
        if self.config.space == "features":
            chosen["backbone_weights"] = weights_digest(self.space.backbone)  # type: ignore[attr-defined]
        listed = data.listed
        digest = None if listed is None else hashlib.sha256(listed.data).hexdigest()[:16]
        return {
            "split_fingerprint": data.splits.fingerprint,
            "image_size": self.image_size,
            "triplets_csv": digest,
            **chosen,
        }


def samples(splits: RetrievalSplits, count: int) -> np.ndarray:
    """Positions of `count` unlabelled images, labelled ones where there are none."""
    pool = splits.unlabelled if len(splits.unlabelled) else splits.labelled
    return pool[np.linspace(0, len(pool) - 1, min(count, len(pool))).astype(int)]
