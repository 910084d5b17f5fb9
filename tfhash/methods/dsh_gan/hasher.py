"""DSH-GANs: deep semantic hashing with generative adversarial networks (Qiu et al., SIGIR 2017)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash import figures
from tfhash.data.learning import LearningData
from tfhash.data.pipeline import TrainingBatches, random_view
from tfhash.data.samplers import Sampler
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.data.triplets import ImpliedPositives
from tfhash.errors import UserError
from tfhash.hashers.deep import Gauge
from tfhash.hashers.gan import GANHasher
from tfhash.methods.dsh_gan.config import DSHGANConfig
from tfhash.methods.dsh_gan.figures import (
    draw_by_class,
    draw_label_sets,
    draw_nearest,
    labels_by_class,
)
from tfhash.methods.dsh_gan.quality import ClassJudge, RealImages, diversity, nearest_real
from tfhash.methods.dsh_gan.stage import HashStage, SemiSupervisedGAN, accuracy, synthesise
from tfhash.networks.discriminators import SourceClassDiscriminator
from tfhash.networks.streams import Streams
from tfhash.training.run import Run

GAN_NETWORKS = ("generator", "discriminator")
PICTURED = 8  # synthetic images a class in TensorBoard
SAMPLES = 200  # synthetic images of which the nearest real ones are sought
# Views of real images that these are sought among: more take over a minute on two cores.
MOST_VIEWS, MOST_VIEWS_OF_BACKBONE = 120_000, 5_000


class DSHGAN(GANHasher):
    """H trained with triplets of a real image and two that G makes of labels.

    Stage 1 trains G and D on labelled and unlabelled images; stage 2 trains one CNN with three
    streams (hash, adversary, classification), and G against it.
    """

    Config = DSHGANConfig
    config: DSHGANConfig
    takes_triplets = False
    paper_backbones = ("alexnet", "vgg19", "resnet50")
    stage0_flags = ("margin", "classification", "weight_class")
    stage1_flags = ("weight_class",)

    def build(self, image_size: int) -> None:
        super().build(image_size)
        # What `learn` measured of the nearest real images, which takes up to a minute, for `draw`.
        self._near: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def has_gan(self) -> bool:
        return self.config.synthesises

    @property
    def variant(self) -> str | None:
        """What differs from the paper's main method, by the names of its tables and figures."""
        parts = [] if self.config.classification else ["without_classification"]
        if self.config.real_fraction:
            parts.append(f"real_{self.config.real_fraction:g}")
        if self.settings.backbone in ("vgg19", "resnet50"):
            parts.append(self.settings.backbone)
        return "_".join(parts) or None

    def train_stages(
        self, image_set: ImageSet, splits: RetrievalSplits, run: Run
    ) -> dict[str, Any]:
        self._check(image_set, splits)
        data = self.learning_data(image_set, splits)
        multi_label = data.multi_label  # of labelled images: others' labels are not to be known
        if multi_label and self.config.unlabelled_confidence is not None:
            raise UserError(
                "`unlabelled_confidence`: needs one label an image, for the classes of unlabelled "
                "images are guessed"
            )
        self._build(image_set.labels.shape[1])
        facts = self._alone(data, multi_label, run)
        gauges: Gauge = dict
        pictures: Gauge = dict
        if self.config.synthesises:
            data = self.add_gan_inputs(image_set.images, data, run, facts)
            real = self._real_images(data.for_gan, image_set, splits)
            judge = ClassJudge(real)
            gauges, pictures = self._gauges(judge), self._pictures(data)
            gan = {name: self.networks[name] for name in GAN_NETWORKS}
            stage = self.compile(self._stage(SemiSupervisedGAN, gan, self.config, multi_label))
            facts["stage1_seconds"] = self.train_gan(stage, data, run, gauges, pictures)
            facts["stage1_gauges"] = gauges() | judge.on_real()
        stage = self._stage(HashStage, self._of_stage_2(), self.config, multi_label)
        watch = (gauges, pictures) if self.config.train_generator else (dict, dict)
        goes_on = bool(self.config.stage0_steps)
        facts["stage2_seconds"] = self.train_last(stage, data, run, *watch, goes_on=goes_on)
        if self.config.synthesises:
            facts["stage2_gauges"] = gauges()
            facts |= self._quality(real)
        if self.config.classification:
            facts |= self._class_accuracy(data.inputs, image_set.labels, splits, multi_label)
        return facts

    def _check(self, image_set: ImageSet, splits: RetrievalSplits) -> None:
        """UserError where there is not what the method learns from."""
        if not image_set.labels[splits.labelled].any():
            raise UserError(
                "`method`=dsh_gan: needs labels, for it makes images of them; triplets alone "
                "(`protocol`=triplets) do not say any"
            )
        if self.settings.triplets == "sampled" and not self.config.real_fraction:
            raise UserError(
                "`triplets`=sampled: chooses among real positives; with `method`=dsh_gan allowed "
                "where `real_fraction` is above 0"
            )
        if len(splits.unlabelled) and self.settings.unlabelled_batch_size:
            return
        if self.config.unlabelled_confidence is not None:
            raise UserError("`unlabelled_confidence`: needs unlabelled images, and there are none")
        if self.config.synthesises:
            print("dsh_gan: no unlabelled images; G and D learn from the labelled ones alone")

    def _build(self, class_count: int) -> None:
        config, space = self.config, self.space
        with self.strategy.scope():
            self.networks["streams"] = Streams(self.hash_network, class_count, self.seed + 500)
            if not config.synthesises:
                return
            generator = space.generator("generator", 200)
            discriminator = SourceClassDiscriminator(
                space.trunk(config.discriminator_batch_norm).layers,
                class_count,
                config.discriminator_dropout,
                self.seed + 450,
            )
            generator(tf.zeros((1, class_count + config.noise_size)))
            discriminator(space.example(1))
        self.networks |= {"generator": generator, "discriminator": discriminator}

    def _of_stage_2(self) -> dict[str, keras.Model]:
        names = ("streams", "generator") if self.config.synthesises else ("streams",)
        return {name: self.networks[name] for name in names}

    def _stage(
        self,
        kind: type,
        networks: dict[str, keras.Model],
        config: DSHGANConfig,
        multi_label: bool,
    ):
        with self.strategy.scope():
            return kind(networks, self.space, config, multi_label=multi_label, seed=self.seed)

    def _alone(self, data: LearningData, multi_label: bool, run: Run) -> dict[str, Any]:
        """Stage 0, the CNN on real triplets; no facts where there is none."""
        if not self.config.stage0_steps:
            return {}
        config = dataclasses.replace(self.config, real_fraction=1.0, unlabelled_confidence=None)
        networks = {"streams": self.networks["streams"]}
        return self.train_alone(self._stage(HashStage, networks, config, multi_label), data, run)

    def make_batches(self, data: LearningData, stage: int) -> TrainingBatches:
        settings, config, space = self.settings, self.config, self.space
        learns_classes = config.unlabelled_confidence is not None and stage == 1
        unlabelled_size = 0
        if (stage == 0 or learns_classes) and len(data.splits.unlabelled):
            unlabelled_size = settings.unlabelled_group_size
        return TrainingBatches(
            data.inputs,
            labelled=data.labelled,
            unlabelled=data.splits.unlabelled,
            sampler=self._sampler(data, stage),
            groups=settings.groups,
            unlabelled_size=unlabelled_size,
            noise_size=config.noise_size,
            augment=space.augment if stage else space.weak_view,
            seed=(self.seed, stage),
            labels=data.labels,
            unlabelled_augment=space.unlabelled_augment if stage else None,
            other_view=learns_classes,
            other_augment=space.weak_view,
        )

    def _sampler(self, data: LearningData, stage: int) -> Sampler:
        settings = self.settings
        of_real = stage == 2 or (stage == 1 and self.config.real_fraction > 0)
        if settings.triplets == "in_batch" and not of_real:
            labels = data.labels[data.labelled]
            return ImpliedPositives(labels, settings.group_size, settings.triplets_per_query)
        return self.make_sampler(data)

    def synthesise(self, labels: np.ndarray, salt: int = 1) -> np.ndarray:
        """G([C, z]) of labels, multi-hot [n, C]; the same noise at each call of a salt."""
        noise = tf.random.stateless_normal((len(labels), self.config.noise_size), (self.seed, salt))
        labels = tf.cast(labels, tf.float32)
        generator = self.networks["generator"]
        return synthesise(self.space, generator, labels, noise, training=False).numpy()

    def _classify(self, items: np.ndarray) -> tf.Tensor:
        """Logits of the classification stream of items [n, ...]."""
        parts = [items[start : start + 256] for start in range(0, len(items), 256)]
        streams = self.networks["streams"]
        return tf.concat([streams(tf.cast(part, tf.float32))[2] for part in parts], 0)

    def _class_accuracy(
        self, inputs: np.ndarray, labels: np.ndarray, splits: RetrievalSplits, multi_label: bool
    ) -> dict[str, float]:
        """That of the classification stream on queries with a class that it learned; {} if none."""
        learned = labels[splits.labelled].any(axis=0)
        query = splits.query[labels[splits.query][:, learned].any(axis=1)]
        if not len(query):
            return {}
        hits = accuracy(
            self._classify(inputs[query, 0]), tf.cast(labels[query], tf.float32), multi_label
        )
        return {"class_accuracy": float(tf.reduce_mean(hits))}

    def _gauges(self, judge: ClassJudge) -> Callable[[], dict[str, float]]:
        return lambda: judge.on_synthetic(self.synthesise)

    def _pictures(self, data: LearningData) -> Callable[[], dict[str, np.ndarray]]:
        """What draws PICTURED synthetic images of each class, a row a class."""
        rng = np.random.Generator(np.random.PCG64([self.seed, 79]))
        classes, labels = labels_by_class(data.labels, data.splits.labelled, PICTURED, rng)

        def draw() -> dict[str, np.ndarray]:
            _, pictures = self.space.pictures(data.for_gan[:1, 0], self.synthesise(labels))
            rows = pictures.reshape(len(classes), PICTURED, *pictures.shape[1:])
            return {"synthetic_by_class": figures.image_grid(list(rows))}

        return draw

    def _real_images(
        self, inputs: np.ndarray, image_set: ImageSet, splits: RetrievalSplits
    ) -> RealImages:
        """What synthetic images are held against; as they are stored, where a backbone looks."""
        stored = self._backbone_describes() or self.space.made_features
        augment = random_view if stored else self.space.weak_view
        labels = image_set.labels
        return RealImages(inputs, labels, splits, augment, self.space.describe, self.seed)

    def _backbone_describes(self) -> bool:
        return self.config.space == "pixels" and bool(self.settings.weights)

    def _nearest(self, real: RealImages) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """SAMPLES synthetic items of labels that images have, and `nearest_real` of them."""
        labelled = real.rng().choice(real.splits.labelled, SAMPLES)
        synthetic = self.synthesise(real.labels[labelled], salt=2)
        most = MOST_VIEWS_OF_BACKBONE if self._backbone_describes() else MOST_VIEWS
        return synthetic, *nearest_real(real, synthetic, count=3, most_views=most)

    def _quality(self, real: RealImages) -> dict[str, float]:
        """Does G copy, and does it make more than one image of each class? What can be said."""
        self._near = self._nearest(real)
        *_, distances = self._near
        measured = {
            "nearest_distance": float(np.median(distances[:, 0])),
            "diversity": diversity(real, self.synthesise),
        }
        return {k: v for k, v in measured.items() if v is not None and np.isfinite(v)}

    def draw(self, image_set: ImageSet, splits: RetrievalSplits, directory: Path) -> list[Path]:
        """Fig. 7, Fig. 8 where a label set holds another, and the nearest real images.

        All of them show G as `learn` left it.
        """
        if not self.config.synthesises:
            return []
        given = self.gan_inputs(image_set.images, splits)
        real = self._real_images(given, image_set, splits)
        near = self._near or self._nearest(real)
        by_class, label_sets, nearest = (
            directory / f"{name}.png"
            for name in ("synthetic_by_class", "synthetic_label_sets", "nearest_real")
        )
        names = image_set.class_names
        draw_by_class(self.space, self.synthesise, real, names, by_class)
        drew_label_sets = draw_label_sets(self.space, self.synthesise, real, names, label_sets)
        draw_nearest(self.space, real, *near, nearest)
        return [by_class, *([label_sets] if drew_label_sets else []), nearest]
