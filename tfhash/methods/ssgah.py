"""SSGAH: semi-supervised generative adversarial hashing (Wang et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash import config_values, figures
from tfhash.data.pipeline import TrainingBatches
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits, learnable
from tfhash.deep import LearningData, listed_triplets
from tfhash.errors import UserError
from tfhash.gan_hashing import GANConfig, GANHasher, samples
from tfhash.gauges import Gauges
from tfhash.hasher import Run, setting
from tfhash.methods._ssgah_stage import SSGAHStage, synthesise
from tfhash.spaces import DISCRIMINATORS

NEGATIVES = ("generated", "exchanged")
# Which rankings H minimises, by the variant.
RANKINGS = {
    "ssgah": ("sr", "ssr", "ar"),
    "w_ssr": ("sr", "ssr"),
    "w_ar": ("sr", "ar"),
    "baseline": ("sr",),
}


@dataclass(frozen=True)
class SSGAHConfig(GANConfig):
    """Hyperparameters; the defaults are the paper's, or DCGAN's where the paper is silent."""

    prefix = "ssgah."

    variant: str = setting("ssgah", "ssgah, or an ablation of Table 3: w_ssr, w_ar, baseline")
    margin_sr: float | None = setting(None, "margin of L_sr, by default code_length / 4")
    margin_ssr: float | None = setting(None, "margin of L_ssr, by default code_length / 8")
    margin_ar: float = setting(1.0, "margin of L_ar")
    weight_ssr: float = setting(1.0, "weight of L_ssr in the objective of H")
    weight_ar: float = setting(1.0, "weight of L_ar in the objective of H, and of G where no other")
    weight_ar_generator: float | None = setting(None, "weight of L_ar in the objective of G")
    weight_kl: float = setting(1.0, "weight of the KL term of Eq. 1")
    ssr_from: int = setting(0, "stage 2 trains H on L_sr alone up to this step")
    ssr_ramp: int = setting(0, "steps over which the weight of L_ssr then rises to its full value")
    gate: bool = setting(False, "scale L_ssr by how much more often G_p keeps x's class than G_n")
    unlabelled_negatives: str = setting(
        "generated",
        "n_syn of an unlabelled u in L_ssr: generated, G_n(u), as Eq. 5 has it; exchanged, the G_p "
        "of other unlabelled images that D takes for negatives of u",
    )
    exchanges: int = setting(6, "how many other images are asked (exchanged)")
    ssr_confidence: float | None = setting(
        None,
        "L_ssr leaves out triplets of unlabelled images whose order D is not sure of: its logit "
        "must exceed that of the swapped triplet by this much",
    )
    other_view: bool = setting(False, "in stage 2 G sees another augmented view of x than H")
    ssr_updates_generator: bool = setting(False, "G minimises L_ssr, as Eq. 9 has it; not in Eq. 5")
    ar_updates_generator: bool = setting(True, "G maximises L_ar, as Eq. 6 has it")
    label_smoothing: float = setting(0.0, "D's target for real triplets is 1 minus this")
    condition_size: int = setting(128, "length of the condition c")
    residual: bool = setting(False, "G_p answers x changed by what it decodes, not an item anew")
    discriminator: str = setting(
        "joint",
        "joint: D sees the three images stacked; siamese: it compares what one trunk makes of each",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = dict.fromkeys(("condition_size", "exchanges"), 1)
        config_values.check(
            self,
            self.prefix,
            choices={
                "variant": tuple(RANKINGS),
                "discriminator": DISCRIMINATORS,
                "unlabelled_negatives": NEGATIVES,
            },
            least=sizes | dict.fromkeys(("ssr_from", "ssr_ramp", "label_smoothing"), 0),
        )
        self.below_1("label_smoothing")
        if self.unlabelled_negatives == "exchanged" and self.ssr_confidence is None:
            raise UserError(
                "--ssgah.unlabelled_negatives: exchanged needs --ssgah.ssr_confidence, for without "
                "it images of the same class would be negatives"
            )


class SSGAH(GANHasher):
    """H trained with triplets that G_p and G_n make of labelled and unlabelled images.

    Stage 1 trains G and D under Eq. 1, stage 2 everything under Eq. 9. The ablations of Table 3:
    w_ar without L_ssr; w_ssr without L_ar and with G and D as stage 1 left them; baseline, H alone
    under L_sr.
    """

    Config = SSGAHConfig
    config: SSGAHConfig
    stage1_flags = ("residual", "condition_size", "weight_kl", "label_smoothing")

    @property
    def variant(self) -> str | None:
        return None if self.config.variant == "ssgah" else self.config.variant

    def learn(self, image_set: ImageSet, splits: RetrievalSplits, run: Run) -> dict[str, Any]:
        if self.config.gate and not len(splits.unlabelled):
            raise UserError("--ssgah.gate: needs unlabelled images, and there are none")
        inputs = self.space.inputs(image_set.images, learnable(splits))
        listed = listed_triplets(image_set, splits)
        data = LearningData(inputs, image_set.labels, splits, listed)
        facts: dict[str, Any] = {}
        gauges = dict
        if self.config.variant != "baseline":
            self._build_gan()
            gauges = Gauges(
                inputs,
                image_set.labels,
                splits,
                score=self._score,
                synthesise=self.synthesise,
                describe=self.space.describe,
                seed=self.seed,
            )
            gan = {name: part for name, part in self.networks.items() if name != "hash_network"}
            stage = self._stage(gan, rankings=(), train_gan=True, weight_ssr=0.0)
            seconds = self.train_gan(stage, data, gauges, self._pictures(data), run)
            facts = {"stage1_seconds": seconds, "stage1_gauges": gauges()}
        facts["stage2_seconds"] = self._second_stage(data, gauges, facts, run)
        return facts

    def _build_gan(self) -> None:
        config, space = self.config, self.space
        with self.strategy.scope():
            condition = space.condition(config.condition_size)
            code = tf.zeros((1, config.condition_size + config.noise_size))
            gan = {
                "condition": condition,
                "generator_p": space.generator("generator_p", 200),
                "generator_n": space.generator("generator_n", 300),
                "discriminator": space.discriminator(
                    config.discriminator,
                    config.discriminator_batch_norm,
                    config.discriminator_dropout,
                ),
            }
            condition(space.example(1))
            gan["generator_p"](code)
            gan["generator_n"](code)
            gan["discriminator"]((space.example(1),) * 3)
        self.networks |= gan

    def _second_stage(self, data: LearningData, gauges, facts: dict[str, Any], run: Run) -> float:
        """Trains H, and G and D where the variant says so."""
        config = self.config
        weight_ssr = config.weight_ssr
        if config.gate and "ssr" in RANKINGS[config.variant]:
            measured = facts["stage1_gauges"]
            if "gauge/class_p" not in measured:
                raise UserError("--ssgah.gate: needs unlabelled images and one label an image")
            gate = max(measured["gauge/class_p"] - measured["gauge/class_n"], 0.0)
            facts["gate"] = gate
            weight_ssr *= gate
        stage = self._stage(
            self.networks,
            rankings=RANKINGS[config.variant],
            train_gan=config.variant in ("ssgah", "w_ar"),
            weight_ssr=weight_ssr,
        )
        pictures = self._pictures(data) if stage.train_gan else dict
        watch = gauges if stage.train_gan else dict
        return self.train_hash(stage, data, watch, pictures, run)

    def _stage(self, networks: dict[str, keras.Model], **options: Any) -> SSGAHStage:
        with self.strategy.scope():
            stage = SSGAHStage(
                networks,
                self.space,
                self.config,
                code_length=self.code_length,
                seed=self.seed,
                **options,
            )
        return self.compile(stage)

    def make_batches(self, data: LearningData, stage: int) -> TrainingBatches:
        settings, config = self.settings, self.config
        alone = config.variant == "baseline"
        unlabelled_size = settings.unlabelled_batch_size // settings.groups
        if alone or not len(data.splits.unlabelled):
            unlabelled_size = 0
        return TrainingBatches(
            data.inputs,
            labelled=data.labelled,
            unlabelled=data.splits.unlabelled,
            triplets=data.sampler(settings),
            groups=settings.groups,
            unlabelled_size=unlabelled_size,
            noise_size=0 if alone else config.condition_size + config.noise_size,
            augment=self.space.augment,
            seed=(self.seed, stage),
            other_view=config.other_view and stage == 1 and not alone,
        )

    def synthesise(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """G_p(x) and G_n(x) of items [n, ...], with the same noise at each call."""
        size = self.config.condition_size + self.config.noise_size
        positive, negative, _ = synthesise(
            self.space,
            [self.networks[name] for name in ("condition", "generator_p", "generator_n")],
            tf.cast(x, tf.float32),
            tf.random.stateless_normal((len(x), size), seed=(self.seed, 1)),
            residual=self.config.residual,
            training=False,
        )
        return positive.numpy(), negative.numpy()

    def _score(self, *triplets: np.ndarray) -> np.ndarray:
        """D's logits of items q, p, n, each [t, ...]."""
        items = (self.space.to_gan(tf.cast(x, tf.float32)) for x in triplets)
        return self.networks["discriminator"](tuple(items), training=False).numpy()

    def _pictures(self, data: LearningData) -> Callable[[], dict[str, np.ndarray]]:
        """What draws a grid of x, G_p(x) and G_n(x) for eight images."""
        x = data.inputs[samples(data.splits, 8), 0]

        def draw() -> dict[str, np.ndarray]:
            rows = self.space.pictures(x, *self.synthesise(x))
            return {"synthetic_triplets": figures.image_grid(rows)}

        return draw

    def draw(self, image_set: ImageSet, splits: RetrievalSplits, directory: Path) -> list[Path]:
        """The synthetic triplets of up to twelve images, as in Fig. 3 of the paper."""
        if self.config.variant == "baseline":
            return []
        inputs = self.space.inputs(image_set.images, learnable(splits))
        x = inputs[samples(splits, 12), 0]
        path = directory / "synthetic_triplets.png"
        figures.synthetic_triplets(*self.space.pictures(x, *self.synthesise(x)), path)
        return [path]
