"""SSGAH: semi-supervised generative adversarial hashing (Wang et al., ECCV 2018)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash import codes, config_values, figures, retrieval
from tfhash.callbacks import LogToTensorBoard
from tfhash.checkpoints import Checkpoints, claim
from tfhash.data.pipeline import TrainingBatches
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits, learnable
from tfhash.deep import DeepHasher, LearningData, listed_triplets
from tfhash.errors import UserError
from tfhash.gauges import Gauges
from tfhash.hasher import Run, setting
from tfhash.methods._ssgah_stage import SSGAHStage, synthesise
from tfhash.spaces import DISCRIMINATORS, SPACES

NEGATIVES = ("generated", "exchanged")
# Which rankings H minimises, by the variant.
RANKINGS = {
    "ssgah": ("sr", "ssr", "ar"),
    "w_ssr": ("sr", "ssr"),
    "w_ar": ("sr", "ar"),
    "baseline": ("sr",),
}


@dataclass(frozen=True)
class SSGAHConfig:
    """Hyperparameters; the defaults are the paper's, or DCGAN's where the paper is silent."""

    variant: str = setting("ssgah", "ssgah, or an ablation of Table 3: w_ssr, w_ar, baseline")
    space: str = setting(
        "pixels", "pixels; or features: G, D and H work on those of the frozen backbone"
    )
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
    minimax: bool = setting(False, "G minimises log(1 - D), as Eq. 1 has it, not -log D")
    label_smoothing: float = setting(0.0, "D's target for real triplets is 1 minus this")
    gan_steps: int = setting(20000, "updates of stage 1, G and D alone under Eq. 1")
    gan_learning_rate: float = setting(2e-4, "Adam's rate for G and D")
    stage2_gan_rate: float = setting(1.0, "factor of that rate in stage 2")
    gan_beta_1: float = setting(0.5, "Adam's beta_1 for G and D")
    gan_size: int = setting(32, "side in px of the images of G and D: 16, 32 or 64")
    gan_width: int = setting(64, "filters (units) of the narrowest layer of G and D")
    condition_size: int = setting(128, "length of the condition c")
    noise_size: int = setting(100, "length of the noise z")
    residual: bool = setting(False, "G_p answers x changed by what it decodes, not an item anew")
    discriminator: str = setting(
        "joint",
        "joint: D sees the three images stacked; siamese: it compares what one trunk makes of each",
    )
    discriminator_batch_norm: bool = setting(True, "batch normalisation in D")
    discriminator_dropout: float = setting(0.0, "dropout in D, on what its trunk answers")
    hash_optimizer: str = setting("sgd", "optimizer of H: sgd (momentum .9) or adamw")
    hash_learning_rate: float = setting(1e-4, "learning rate of H")
    hash_schedule: str = setting("constant", "constant, or cosine: the rate falls to 0")
    weight_decay: float = setting(0.0, "AdamW's weight decay for H")
    hidden_units: int = setting(0, "units of a ReLU layer before the hash layer; 0 for none")
    dropout: float = setting(0.0, "dropout in H before the hash layer")
    stage1_dir: str | None = setting(
        None, "folder that keeps stage 1 for other runs on the same split", decides=False
    )

    def __post_init__(self) -> None:
        sizes = dict.fromkeys(("gan_width", "condition_size", "exchanges"), 1)
        counts = dict.fromkeys(
            ("noise_size", "hidden_units", "gan_steps", "ssr_from", "ssr_ramp", "weight_decay"), 0
        )
        rates = dict.fromkeys(("hash_learning_rate", "gan_learning_rate", "gan_beta_1"), 0)
        shares = dict.fromkeys(("dropout", "discriminator_dropout", "label_smoothing"), 0)
        config_values.check(
            self,
            "ssgah.",
            choices={
                "variant": tuple(RANKINGS),
                "space": tuple(SPACES),
                "discriminator": DISCRIMINATORS,
                "unlabelled_negatives": NEGATIVES,
                "hash_optimizer": ("sgd", "adamw"),
                "hash_schedule": ("constant", "cosine"),
            },
            least=sizes | counts | rates | shares,
        )
        for name in ("gan_beta_1", *shares):
            if getattr(self, name) >= 1:
                raise UserError(f"--ssgah.{name}: {getattr(self, name)}; allowed: below 1")
        if self.unlabelled_negatives == "exchanged" and self.ssr_confidence is None:
            raise UserError(
                "--ssgah.unlabelled_negatives: exchanged needs --ssgah.ssr_confidence, for without "
                "it images of the same class would be negatives"
            )


class SSGAH(DeepHasher):
    """H trained with triplets that G_p and G_n make of labelled and unlabelled images.

    Stage 1 trains G and D under Eq. 1, stage 2 everything under Eq. 9. The ablations of Table 3:
    w_ar without L_ssr; w_ssr without L_ar and with G and D as stage 1 left them; baseline, H alone
    under L_sr.
    """

    Config = SSGAHConfig
    config: SSGAHConfig

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        config = self.config
        with self.strategy.scope():
            self.space = SPACES[config.space](
                self.settings, config.gan_size, config.gan_width, self.seed
            )
            hidden = (config.hidden_units,) if config.hidden_units else ()
            self.hash_network = self.space.hash_network(self.code_length, hidden, config.dropout)
            self.encoder = self.space.encoder(self.hash_network)
        self.networks: dict[str, keras.Model] = {"hash_network": self.hash_network}

    @property
    def variant(self) -> str | None:
        return None if self.config.variant == "ssgah" else self.config.variant

    def embed(self, images: np.ndarray) -> np.ndarray:
        return self.space.embed(self.hash_network, images)

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
            facts = self._first_stage(data, gauges, run)
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

    def _first_stage(self, data: LearningData, gauges: Gauges, run: Run) -> dict[str, Any]:
        """Trains G and D under Eq. 1, or takes what an earlier run left in stage1_dir."""
        config = self.config
        batches = self._batches(data, 0)
        directory = Path(config.stage1_dir or run.directory / "checkpoints")
        claim(directory / "stage1.json", self._deciding_for_stage_1(data), run.writes)
        gan = {name: network for name, network in self.networks.items() if name != "hash_network"}
        stage = self._stage(gan, rankings=(), train_gan=True, weight_ssr=0.0)
        log = LogToTensorBoard(run.directory / "logs" / "gan", gauges, self._pictures(data))
        checkpoints = Checkpoints(directory, "gan", run.writes)
        seconds = self.train(stage, batches, config.gan_steps, run, checkpoints, [log])
        return {"stage1_seconds": seconds, "stage1_gauges": gauges()}

    def _deciding_for_stage_1(self, data: LearningData) -> dict[str, Any]:
        """What a kept stage 1 must agree in with a run that uses it; neither bits nor seed."""
        config = dataclasses.asdict(self.config) | dataclasses.asdict(self.settings)
        names = [name for name in config if name.startswith(("gan_", "discriminator"))]
        names += ["space", "residual", "condition_size", "noise_size", "weight_kl", "minimax"]
        names += ["label_smoothing", "batch_size", "unlabelled_batch_size", "groups", "triplets"]
        names += ["triplets_per_query", "flip", "shift", "mixed_bfloat16"]
        if self.config.space == "features":
            names += ["backbone", "backbone_size", "feature_layers", "feature_components"]
        chosen = {name: config[name] for name in names}
        listed = data.listed
        return {
            "split_fingerprint": data.splits.fingerprint,
            "image_size": self.image_size,
            "triplets_csv": listed if listed is None else hashlib.sha256(listed).hexdigest()[:16],
            **chosen,
        }

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
        log = LogToTensorBoard(
            run.directory / "logs" / "hash",
            lambda: watch() | self._validate(data),
            pictures,
        )
        checkpoints = Checkpoints(run.directory / "checkpoints", "hash", run.writes)
        return self.train(
            stage, self._batches(data, 1), self.settings.steps, run, checkpoints, [log]
        )

    def _stage(self, networks: dict[str, keras.Model], **options: Any) -> SSGAHStage:
        """A compiled stage: Adam for G and D, SGD or AdamW for H."""
        config = self.config
        with self.strategy.scope():
            stage = SSGAHStage(
                networks,
                self.space,
                config,
                code_length=self.code_length,
                seed=self.seed,
                **options,
            )
            optimizers = {}
            for name, variables in stage.variables_by_optimizer().items():
                if name == "hash":
                    optimizer = self._hash_optimizer()
                else:
                    rate = config.gan_learning_rate
                    if stage.rankings:
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
        if config.hash_optimizer == "adamw":
            return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
        return keras.optimizers.SGD(rate, momentum=0.9, weight_decay=config.weight_decay or None)

    def _batches(self, data: LearningData, stage: int) -> TrainingBatches:
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

    def _pictures(self, data: LearningData) -> Callable[[], dict[str, np.ndarray]]:
        """What draws a grid of x, G_p(x) and G_n(x) for eight images."""
        x = data.inputs[_samples(data.splits, 8), 0]
        def draw() -> dict[str, np.ndarray]:
            rows = self.space.pictures(x, *self.synthesise(x))
            return {"synthetic_triplets": figures.image_grid(rows)}

        return draw

    def draw(self, image_set: ImageSet, splits: RetrievalSplits, directory: Path) -> list[Path]:
        """The synthetic triplets of up to twelve images, as in Fig. 3 of the paper."""
        if self.config.variant == "baseline":
            return []
        inputs = self.space.inputs(image_set.images, learnable(splits))
        x = inputs[_samples(splits, 12), 0]
        path = directory / "synthetic_triplets.png"
        figures.synthetic_triplets(*self.space.pictures(x, *self.synthesise(x)), path)
        return [path]


def _samples(splits: RetrievalSplits, count: int) -> np.ndarray:
    """Positions of `count` unlabelled images, labelled ones where there are none."""
    pool = splits.unlabelled if len(splits.unlabelled) else splits.labelled
    return pool[np.linspace(0, len(pool) - 1, min(count, len(pool))).astype(int)]
