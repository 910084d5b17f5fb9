"""The stages of DSH-GANs and their objectives (Qiu et al., SIGIR 2017, sections 3.2 to 3.6)."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from tfhash import losses
from tfhash.hashers.gan_spaces import GANSpace
from tfhash.methods.dsh_gan.config import DSHGANConfig
from tfhash.training.groups import bit_balance, grouped, items_of, share, ungrouped
from tfhash.training.stage import Stage

GAN_TERMS = (
    "discriminator", "generator", "source_accuracy", "class_accuracy", "class_accuracy_syn"
)  # fmt: skip
HASH_TERMS = ("triplet", "triplet_active", "bit_balance")
ADVERSARY_TERMS = ("adversary", "fooling", "source_accuracy")
CLASS_TERMS = ("class", "class_accuracy")
UNLABELLED_TERMS = ("unlabelled", "unlabelled_kept")


class _Stage(Stage):
    """What both stages know. multi_label: whether an image may have several labels."""

    def __init__(
        self,
        networks: Mapping[str, keras.Model],
        space: GANSpace,
        config: DSHGANConfig,
        *,
        multi_label: bool,
        seed: int,
    ):
        super().__init__(networks, self.terms_of(config), seed)
        self.space = space
        self.config = config
        self.multi_label = multi_label

    @staticmethod
    @abc.abstractmethod
    def terms_of(config: DSHGANConfig) -> tuple[str, ...]:
        """The names of what `forward` answers."""


class SemiSupervisedGAN(_Stage):
    """Stage 1, section 3.2: G([C, z]) against D, which tells the source and the class.

    networks: generator, discriminator. D minimises l_c + l_a, G minimises l_c - l_a. l_a is a mean
    over real and synthetic images alike; l_c one over those with a label: C is 0 for an unlabelled
    image, and neither it nor what G makes of it has a class.
    """

    @staticmethod
    def terms_of(config):
        return GAN_TERMS

    def variables_by_optimizer(self):
        return {
            "discriminator": self.discriminator.trainable_variables,
            "generator": self.generator.trainable_variables,
        }

    def forward(self, batch):
        x = items_of(batch, "images", "unlabelled")
        labels = ungrouped(with_unlabelled(batch["labels"], x.shape[1]))
        noise = ungrouped(batch["noise"])
        synthetic = synthesise(self.space, self.generator, labels, noise, training=True)
        # Were real and synthetic ones normalised in batches of their own, D could tell them by it.
        both = tf.concat([self.space.to_gan(ungrouped(x)), synthetic], 0)
        source, classes = self.discriminator(both, training=True, dropout_seed=self.step_seed(0))
        real = tf.repeat([1.0, 0.0], tf.shape(labels)[0])
        of_class = losses.class_loss(classes, tf.concat([labels, labels], 0), self.multi_label)
        known = losses.has_label(labels)
        classes_of_real, classes_of_synthetic = tf.split(classes, 2)
        _, source_of_synthetic = tf.split(source, 2)
        class_of_real, class_of_synthetic = (mean(part, known) for part in tf.split(of_class, 2))
        fooling = losses.fooling_loss(source_of_synthetic, self.config.minimax)
        weight = self.config.weight_class
        return {
            "discriminator": tf.reduce_mean(losses.source_loss(source, real))
            + weight * (class_of_real + class_of_synthetic) / 2,
            "generator": tf.reduce_mean(fooling) + weight * class_of_synthetic,
            "source_accuracy": share((source > 0) == (real > 0.5)),
            "class_accuracy": mean(accuracy(classes_of_real, labels, self.multi_label), known),
            "class_accuracy_syn": mean(
                accuracy(classes_of_synthetic, labels, self.multi_label), known
            ),
        }

    def objectives(self, terms):
        return {name: terms[name] for name in ("discriminator", "generator")}


class HashStage(_Stage):
    """Stage 2, sections 3.3 to 3.6: real-synthetic triplets through one CNN with three streams.

    networks: streams, and generator unless all images of the triplets are real. The CNN minimises
    triplet + l_a + l_c (Eq. 8), G minimises triplet - l_a + l_c (Eq. 9). What the classification
    stream learns of unlabelled images, which the paper has not, is for the CNN alone.
    """

    @staticmethod
    def terms_of(config):
        terms: tuple[str, ...] = HASH_TERMS
        terms += ADVERSARY_TERMS if config.synthesises else ()
        terms += CLASS_TERMS if config.classification else ()
        return terms + (UNLABELLED_TERMS if config.unlabelled_confidence is not None else ())

    def variables_by_optimizer(self):
        trained = [*self.streams.hash_network.trainable_variables]
        if self.config.synthesises:
            trained += self.streams.source.trainable_variables
        if self.config.classification:
            trained += self.streams.classes.trainable_variables
        variables = {"hash": trained}
        if self.config.synthesises and self.config.train_generator:
            variables["generator"] = self.generator.trainable_variables
        return variables

    def forward(self, batch):
        x = tf.cast(batch["images"], tf.float32)
        labels, triplets = batch["labels"], batch["triplets"]
        of_real = self._streams(x, 0)
        of_synthetic = of_real
        if self.config.synthesises:
            noise = batch["noise"][:, : x.shape[1]]
            synthetic = synthesise(
                self.space,
                self.generator,
                ungrouped(labels),
                ungrouped(noise),
                training=self.config.train_generator,
            )
            of_synthetic = self._of_synthetic(grouped(self.space.to_hash(synthetic), x))
        terms = self._terms(of_real, of_synthetic, labels, triplets, self._replaced(triplets))
        if self.config.unlabelled_confidence is not None:
            terms |= self._of_unlabelled(batch["unlabelled"], batch["other_unlabelled"])
        return terms

    def objectives(self, terms):
        config = self.config
        of_class = config.weight_class * terms["class"] if config.classification else 0.0
        of_cnn = of_class
        if config.unlabelled_confidence is not None:
            of_cnn += config.weight_unlabelled * terms["unlabelled"]
        if not self.config.synthesises:
            return {"hash": terms["triplet"] + of_cnn}
        objectives = {
            "hash": terms["triplet"] + config.weight_adversary * terms["adversary"] + of_cnn
        }
        if config.train_generator:
            fooling = config.weight_adversary * terms["fooling"]
            objectives["generator"] = terms["triplet"] + fooling + of_class
        return objectives

    def _streams(self, items: tf.Tensor, salt: int) -> list[tf.Tensor]:
        """Codes [B, j, k], source logits [B, j] and class logits [B, j, C] of items [B, j, ...]."""
        return self._grouped(self.streams, items, salt)

    def _of_synthetic(self, items: tf.Tensor) -> list[tf.Tensor]:
        """The same of what G made, for H, or of its backbone's features."""
        above = self.space.made_features
        return self._grouped(self.streams.above_backbone if above else self.streams, items, 1)

    def _grouped(self, network: Callable, items: tf.Tensor, salt: int) -> list[tf.Tensor]:
        answers = network(ungrouped(items), training=True, dropout_seed=self.step_seed(salt))
        return [grouped(answer, items) for answer in answers]

    def _of_unlabelled(self, items: tf.Tensor, weak: tf.Tensor) -> dict[str, tf.Tensor]:
        """What the classification stream learns of unlabelled items [B, u, ...], in two views."""
        confidence = self.config.unlabelled_confidence
        assert confidence is not None  # else `forward` does not ask
        *_, of_weak = self.streams(ungrouped(tf.cast(weak, tf.float32)))
        *_, logits = self._streams(tf.cast(items, tf.float32), 3)
        of_items, sure = losses.pseudo_label_loss(ungrouped(logits), of_weak, confidence)
        counted = tf.ones_like(sure)  # there may be none
        return {"unlabelled": mean(of_items, counted), "unlabelled_kept": mean(sure, counted)}

    def _replaced(self, triplets: tf.Tensor) -> tf.Tensor:
        """Which positives and negatives are real ones (Fig. 6): 1.0 or 0.0 [B, t, 2]."""
        shape = [tf.shape(triplets)[0], triplets.shape[1], 2]
        drawn = tf.random.stateless_uniform(shape, self.step_seed(2), alg="philox")
        return tf.cast(drawn < self.config.real_fraction, tf.float32)

    def _terms(self, of_real, of_synthetic, labels, triplets, real) -> dict[str, tf.Tensor]:
        """The terms of triplets (x, x+, x-), each averaged over its three images (Eq. 4 and 7).

        x+ is synthesised from the labels of x, x- from those of an image that shares none with x;
        where `real` says so they are real images.
        """

        def roles(answers, of_others):
            """[query, positive, negative], each [B, t, ...], of one stream."""
            query, positive, negative = (
                losses.gather_triplets(answers, triplets, role) for role in range(3)
            )
            made = [losses.gather_triplets(of_others, triplets, role) for role in (0, 2)]
            return [query, *map(choose, (positive, negative), made, tf.unstack(real, axis=-1))]

        codes, source, classes = map(roles, of_real, of_synthetic)
        hinges = losses.triplet_hinge(self.config.margin, *codes)
        terms = {
            "triplet": tf.reduce_mean(hinges),
            "triplet_active": share(hinges > 0),
            "bit_balance": bit_balance(of_real[0] > 0.5),
        }
        if self.config.synthesises:
            is_real = tf.stack([tf.ones_like(real[..., 0]), *tf.unstack(real, axis=-1)])
            logits = tf.stack(source)
            fooling = losses.fooling_loss(logits, self.config.minimax) * (1 - is_real)
            terms["adversary"] = tf.reduce_mean(losses.source_loss(logits, is_real))
            terms["fooling"] = tf.reduce_mean(fooling)  # real images count 0, as in Eq. 4's third
            terms["source_accuracy"] = share((logits > 0) == (is_real > 0.5))
        if self.config.classification:
            of_roles = roles(labels, labels)
            losses_of_roles = [
                losses.class_loss(logits, of_role, self.multi_label)
                for logits, of_role in zip(classes, of_roles, strict=True)
            ]
            terms["class"] = tf.reduce_mean(tf.stack(losses_of_roles))
            terms["class_accuracy"] = tf.reduce_mean(accuracy(of_real[2], labels, self.multi_label))
        return terms


def synthesise(
    space: GANSpace,
    generator: keras.Model,
    labels: tf.Tensor,
    noise: tf.Tensor,
    *,
    training: bool,
) -> tf.Tensor:
    """G([C, z]): labels, multi-hot float [n, C], 0 for none; noise [n, d] -> [n, ...]."""
    decoded = generator(tf.concat([labels, noise], axis=-1), training=training)
    return space.synthetic(decoded)


def with_unlabelled(labels: tf.Tensor, count: int) -> tf.Tensor:
    """Labels [B, m, C], and zeros for the unlabelled items after them: [B, count, C]."""
    return tf.pad(labels, [[0, 0], [0, count - labels.shape[1]], [0, 0]])


def mean(values: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """The mean of those values that count, 0 where none does: two [n] -> a scalar."""
    return tf.math.divide_no_nan(tf.reduce_sum(values * counted), tf.reduce_sum(counted))


def accuracy(logits: tf.Tensor, labels: tf.Tensor, multi_label: bool) -> tf.Tensor:
    """Whether the likeliest class is a right one; with multi_label the share of classes that are.

    Two [..., C] -> [...].
    """
    if multi_label:
        return tf.reduce_mean(tf.cast((logits > 0) == (labels > 0.5), tf.float32), axis=-1)
    # A query may have several labels where no labelled image has: any of them is right.
    return tf.gather(labels, tf.argmax(logits, -1), axis=-1, batch_dims=logits.shape.rank - 1)


def choose(real: tf.Tensor, synthetic: tf.Tensor, use_real: tf.Tensor) -> tf.Tensor:
    """real where use_real [B, t] is 1, else synthetic: two [B, t, ...] -> [B, t, ...]."""
    use_real = use_real > 0.5
    return tf.where(use_real[..., None] if real.shape.rank == 3 else use_real, real, synthetic)
