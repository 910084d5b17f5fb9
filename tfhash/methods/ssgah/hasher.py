"""SSGAH: semi-supervised generative adversarial hashing (Wang et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash import figures
from tfhash.data.learning import LearningData
from tfhash.data.pipeline import TrainingBatches, random_view
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError
from tfhash.hashers.deep import Gauge
from tfhash.hashers.gan import GANHasher, fact_of_round, samples
from tfhash.methods.ssgah.config import RANKINGS, SSGAHConfig
from tfhash.methods.ssgah.gauges import Gauges
from tfhash.methods.ssgah.stage import GENERATORS, SSGAHStage
from tfhash.methods.ssgah.synthesis import synthesise
from tfhash.networks.discriminators import JointDiscriminator, SiameseDiscriminator
from tfhash.networks.hash_layer import linear_head
from tfhash.training.run import Run


class SSGAH(GANHasher):
    """H trained with triplets that G_p and G_n make of labelled and unlabelled images.

    Stage 1 trains G and D under Eq. 1, stage 2 everything under Eq. 9. The ablations of Table 3:
    w_ar without L_ssr; w_ssr without L_ar and with G and D as stage 1 left them; baseline, H alone
    under L_sr. With `rounds` both stages are run again, G and D from new weights on.
    """

    Config = SSGAHConfig
    config: SSGAHConfig
    _multi_label = False
    paper_backbones = ("alexnet",)
    stage0_flags = ("margin_sr", "weight_class")
    stage1_flags = ("residual", "condition", "condition_size", "weight_kl", "label_smoothing")

    @property
    def has_gan(self) -> bool:
        return self.config.variant != "baseline"

    @property
    def variant(self) -> str | None:
        """What differs from the paper's main method, by the names of its Table 3."""
        parts = [] if self.config.variant == "ssgah" else [self.config.variant]
        if self.config.weight_class:
            parts.append("with_classes")
        if self.rounds > 1:
            parts.append(f"{self.rounds}_rounds")
        return "_".join(parts) or None

    def train_stages(
        self, image_set: ImageSet, splits: RetrievalSplits, run: Run
    ) -> dict[str, Any]:
        if "ssr" in RANKINGS[self.config.variant]:
            self._check(image_set.labels[splits.labelled], splits)
        data = self.learning_data(image_set, splits)
        self._build_classes(data)
        facts: dict[str, Any] = {}
        if self.config.stage0_steps:
            facts |= self._alone(data, run)
        for number in range(1, self.rounds + 1):
            facts |= self._round(number, image_set.images, data, run)
        return facts

    @property
    def rounds(self) -> int:
        return self.config.rounds

    def _round(
        self, number: int, images: np.ndarray, data: LearningData, run: Run
    ) -> dict[str, Any]:
        """G and D, where there are any, then H; number: from 1 on."""
        facts: dict[str, Any] = {}
        gauges: Gauge = dict
        if self.has_gan:
            data = self.add_gan_inputs(images, data, run, facts, number)
            self._build_gan()
            gauges = Gauges(
                data.for_gan,
                data.labels,
                data.splits,
                score=self._score,
                synthesise=self.synthesise,
                describe=self.space.describe,
                seed=self.seed,
            )
            of_hash = ("hash_network", "classes")
            gan = {name: part for name, part in self.networks.items() if name not in of_hash}
            stage = self._stage(gan, rankings=(), train_gan=True, weight_ssr=0.0)
            stage = self.compile(stage)
            seconds = self.train_gan(stage, data, run, gauges, self._pictures(data), number)
            facts |= {
                fact_of_round("stage1_seconds", number): seconds,
                fact_of_round("stage1_gauges", number): gauges(),
            }
        facts[fact_of_round("stage2_seconds", number)] = self._second_stage(
            data, gauges, facts, run, number
        )
        return facts

    def _check(self, labels: np.ndarray, splits: RetrievalSplits) -> None:
        """UserError, before anything learns, where L_ssr lacks what it is asked for.

        labels: of the labelled images, [n, C].
        """
        config, per_group = self.config, self.settings.unlabelled_group_size
        unlabelled = per_group if len(splits.unlabelled) else 0
        if config.without_g and not unlabelled:
            raise UserError(
                "`unlabelled_positives`: real needs unlabelled images, and there are none"
            )
        if config.unlabelled_negatives == "exchanged" and unlabelled == 1:
            raise UserError(
                "`unlabelled_negatives`: exchanged needs two unlabelled images in each group, and "
                "there is one; allowed with `unlabelled_batch_size` at least twice `groups`"
            )
        if config.gate:
            if not len(splits.unlabelled):
                raise UserError("`gate`: needs unlabelled images, and there are none")
            if (labels.sum(axis=1) != 1).any() or labels.any(axis=0).sum() < 2:
                raise UserError(
                    "`gate`: asks whether G keeps the class, and needs one label an image, and two "
                    "classes at least, where labelled images have others"
                )

    def _alone(self, data: LearningData, run: Run) -> dict[str, float]:
        """Stage 0. Where it has other bits than H, H gets all but the hash layer of it."""
        bits = self.config.stage0_code_length or self.code_length
        network = self.hash_network
        if bits != self.code_length:
            parts = (self.hidden_widths(), self.config.dropout, self.hash_network_kind)
            with self.strategy.scope():
                network = self.space.beside(self.hash_network, bits, *parts)
            self.start_scores(data, network)
        stage = self._stage(
            {**self.networks, "hash_network": network},  # G and D are not there yet
            rankings=RANKINGS["baseline"],
            train_gan=False,
            weight_ssr=0.0,
            code_length=bits,
        )
        facts = self.train_alone(stage, data, run, network)
        if network is not self.hash_network:
            layers = zip(self.hash_network.hidden_layers, network.hidden_layers, strict=True)
            for ours, of_stage0 in layers:
                ours.set_weights(of_stage0.get_weights())
            self.start_scores(data)
        return facts

    def _build_classes(self, data: LearningData) -> None:
        """The classification stream, where there is one."""
        if not self.config.weight_class:
            return
        labels = data.labels[data.splits.labelled]
        if data.listed is not None or not labels.any():
            raise UserError("`weight_class`: needs labels, for triplets alone do not name classes")
        with self.strategy.scope():
            self.networks["classes"] = linear_head(
                "classes",
                self.hash_network.width,
                labels.shape[1],
                keras.initializers.GlorotUniform(self.seed + 510),
            )
        self._multi_label = data.multi_label

    def _build_gan(self) -> None:
        config, space = self.config, self.space
        with self.strategy.scope():
            code = tf.zeros((1, config.condition_size + config.noise_size))
            gan: dict[str, keras.Model] = {}
            if config.condition:
                gan["condition"] = space.condition(config.condition_size)
                gan["condition"](space.example(1))
            gan |= {
                "generator_p": space.generator("generator_p", 200),
                "generator_n": space.generator("generator_n", 300),
                "discriminator": self._discriminator(),
            }
            gan["generator_p"](code)
            gan["generator_n"](code)
            gan["discriminator"]((space.example(1),) * 3)
        self.networks |= gan

    def _discriminator(self) -> JointDiscriminator:
        config = self.config
        trunk, seed = self.space.trunk(config.discriminator_batch_norm), self.seed + 450
        if config.discriminator == "joint":
            return JointDiscriminator(trunk.layers, config.discriminator_dropout, seed)
        return SiameseDiscriminator(
            trunk.layers, trunk.width, trunk.width, config.discriminator_dropout, seed
        )

    def _second_stage(
        self, data: LearningData, gauges, facts: dict[str, Any], run: Run, number: int = 1
    ) -> float:
        """Trains H, and G and D where the variant says so; facts: of this round."""
        config = self.config
        weight_ssr = config.weight_ssr
        if config.gate and "ssr" in RANKINGS[config.variant]:
            measured = facts[fact_of_round("stage1_gauges", number)]
            gate = max(measured["gauge/class_p"] - measured["gauge/class_n"], 0.0)
            facts[fact_of_round("gate", number)] = gate
            weight_ssr *= gate
        stage = self._stage(
            self.networks,
            rankings=RANKINGS[config.variant],
            train_gan=config.variant in ("ssgah", "w_ar"),
            weight_ssr=weight_ssr,
        )
        own_bits = config.stage0_code_length in (None, self.code_length)
        goes_on = bool(config.stage0_steps) and (own_bits or number > 1)
        pictures = self._pictures(data) if stage.train_gan else dict
        watch = gauges if stage.train_gan else dict
        return self.train_last(stage, data, run, watch, pictures, goes_on=goes_on, number=number)

    def _stage(self, networks: dict[str, keras.Model], **options: Any) -> SSGAHStage:
        options = {
            "code_length": self.code_length,
            "seed": self.seed,
            "multi_label": self._multi_label,
            **options,
        }
        with self.strategy.scope():
            return SSGAHStage(networks, self.space, self.config, **options)

    def make_batches(self, data: LearningData, stage: int) -> TrainingBatches:
        settings, config, space = self.settings, self.config, self.space
        alone = not self.has_gan
        other_view = config.other_view or data.gan_inputs is not None or space.has_strong_views
        unlabelled_size = settings.unlabelled_group_size
        if alone or not len(data.splits.unlabelled):
            unlabelled_size = 0
        return TrainingBatches(
            data.inputs,
            labelled=data.labelled,
            unlabelled=data.splits.unlabelled,
            sampler=self.make_sampler(data),
            groups=settings.groups,
            unlabelled_size=unlabelled_size,
            noise_size=0 if alone else config.condition_size + config.noise_size,
            augment=space.augment if stage else space.weak_view,
            seed=(self.seed, stage),
            unlabelled_augment=space.unlabelled_augment if stage else None,
            other_view=other_view and stage == 1 and not alone,
            other_augment=space.weak_view if data.gan_inputs is None else random_view,
            others=data.gan_inputs,
            labels=data.labels if self.config.weight_class and stage else None,
        )

    def synthesise(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """G_p(x) and G_n(x) of items [n, ...], with the same noise at each call."""
        size = self.config.condition_size + self.config.noise_size
        positive, negative, _ = synthesise(
            self.space,
            self.networks.get("condition"),
            [self.networks[name] for name in GENERATORS],
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
        x = data.for_gan[samples(data.splits, 8), 0]

        def draw() -> dict[str, np.ndarray]:
            rows = self.space.pictures(x, *self.synthesise(x))
            return {"synthetic_triplets": figures.image_grid(rows)}

        return draw

    def draw(self, image_set: ImageSet, splits: RetrievalSplits, directory: Path) -> list[Path]:
        """The synthetic triplets of up to twelve images, as in Fig. 3 of the paper."""
        if not self.has_gan:
            return []
        given = self.gan_inputs(image_set.images, splits)
        x = given[samples(splits, 12), 0]
        path = directory / "synthetic_triplets.png"
        of_x, positive, negative = self.space.pictures(x, *self.synthesise(x))
        figures.synthetic_triplets(of_x, positive, negative, path)
        return [path]
