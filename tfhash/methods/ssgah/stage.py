"""One training stage of SSGAH and its objectives (Wang et al., ECCV 2018, Eq. 1, 5, 6, 9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from tfhash import losses
from tfhash.hashers.gan_spaces import GANSpace
from tfhash.methods.ssgah.config import SSGAHConfig
from tfhash.methods.ssgah.synthesis import synthesise, with_shape
from tfhash.training.groups import bit_balance, grouped, items_of, share, ungrouped
from tfhash.training.stage import Stage

GAN_TERMS = ("discriminator", "generator", "kl", "order_accuracy")
GENERATORS = ("generator_p", "generator_n")
RANKING_TERMS = {
    "sr": ("sr", "sr_active", "positive_distance", "negative_distance", "bit_balance"),
    "ssr": ("ssr", "ssr_active", "ssr_kept", "ssr_weight"),
    "ar": ("ar", "ar_active"),
}
CLASS_TERMS = ("class",)


class SSGAHStage(Stage):
    """Stage 1 (rankings empty), stage 2, or one of its ablations.

    networks: hash_network, and unless only L_sr is asked for also generator_p, generator_n,
    discriminator, and condition where the config has one; classes, a built linear layer beside the
    hash layer, where H learns the classes too. rankings: which of "sr", "ssr", "ar" H minimises.
    train_gan: whether G and D learn. weight_ssr: the weight of L_ssr after its ramp. multi_label:
    whether an image may have several labels (`classes`).
    """

    def __init__(
        self,
        networks: Mapping[str, keras.Model],
        space: GANSpace,
        config: SSGAHConfig,
        *,
        rankings: Sequence[str],
        train_gan: bool,
        weight_ssr: float,
        code_length: int,
        seed: int,
        multi_label: bool = False,
    ):
        terms: tuple[str, ...] = GAN_TERMS if train_gan else ()
        for ranking in rankings:
            terms = (*terms, *RANKING_TERMS[ranking])
        terms += CLASS_TERMS if "classes" in networks else ()
        super().__init__(networks, terms, seed)
        self.space = space
        self.config = config
        self.rankings = tuple(rankings)
        self.train_gan = train_gan
        self.synthesises = train_gan or set(rankings) > {"sr"}
        self.margin_sr = default_of(config.margin_sr, code_length / 4)
        self.margin_ssr = default_of(config.margin_ssr, code_length / 8)
        self.weight_ssr = weight_ssr
        self.code_length = code_length
        self.classifies = "classes" in networks
        self.multi_label = multi_label

    def variables_by_optimizer(self) -> dict[str, list[keras.Variable]]:
        """What each optimizer of this stage trains; the first counts the steps."""
        variables = {}
        if self.rankings:
            heads = self.classes.trainable_variables if self.classifies else []
            variables["hash"] = [*self.hash_network.trainable_variables, *heads]
        if self.train_gan:
            parts = [*([self.condition] if self.config.condition else []), *self._generators()]
            variables["generator"] = [v for part in parts for v in part.trainable_variables]
            variables["discriminator"] = self.discriminator.trainable_variables
        return variables

    def forward(self, batch):
        x = items_of(batch, "images", "unlabelled")
        # What G and D see: the same images, perhaps in another augmented view.
        seen = x
        if "other_images" in batch:
            seen = items_of(batch, "other_images", "other_unlabelled")
        triplets = batch["triplets"]
        terms: dict[str, tf.Tensor] = {}
        synthetic: list[tf.Tensor] = []
        if self.synthesises:
            *synthetic, terms["kl"] = self._synthesise(seen, batch["noise"])
        if self.train_gan:
            positive, negative = synthetic
            terms |= self._play(seen, positive, negative, triplets)
        if self.rankings:
            terms |= self._rank(x, seen, synthetic, batch)
        return terms

    def objectives(self, terms: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What each optimizer minimises (Eq. 1, 5, 6 and 9)."""
        config, objectives = self.config, {}
        ranking_ssr = terms["ssr_weight"] * terms["ssr"] if "ssr" in terms else 0.0
        ranking_ar = terms.get("ar", 0.0)
        weight_ar_generator = config.weight_ar_generator
        if weight_ar_generator is None:
            weight_ar_generator = config.weight_ar
        if self.rankings:
            objectives["hash"] = terms["sr"] + ranking_ssr + config.weight_ar * ranking_ar
            if self.classifies:
                objectives["hash"] += config.weight_class * terms["class"]
        if self.train_gan:
            objectives["discriminator"] = terms["discriminator"]
            objectives["generator"] = terms["generator"] + config.weight_kl * terms["kl"]
            if config.ar_updates_generator:
                objectives["generator"] -= weight_ar_generator * ranking_ar
            if config.ssr_updates_generator:
                objectives["generator"] -= ranking_ssr
            if config.cooperative_ssr:
                objectives["generator"] += ranking_ssr
        return objectives

    def _generators(self) -> list[keras.Model]:
        return [getattr(self, name) for name in GENERATORS]

    def _synthesise(self, x: tf.Tensor, noise: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """x [B, j, ...], noise [B, j, d] -> G_p(x), G_n(x) [B, j, ...], and the KL term."""
        positive, negative, kl = synthesise(
            self.space,
            self.condition if self.config.condition else None,
            self._generators(),
            ungrouped(x),
            ungrouped(noise),
            residual=self.config.residual,
            training=self.train_gan,
        )
        return grouped(positive, x), grouped(negative, x), tf.reduce_mean(kl)

    def _play(self, x, positive, negative, triplets) -> dict[str, tf.Tensor]:
        """The GAN terms of Eq. 1: D sees all triplets of the step as one batch.

        Were real and synthetic ones normalised in batches of their own, D could tell them by that.
        """
        seen = [self.space.to_gan(ungrouped(x)), ungrouped(positive), ungrouped(negative)]
        items = tf.concat(seen, 0)
        embedded = self.discriminator.embed(items, training=True, dropout_seed=self.step_seed(3))
        real, positive, negative = (grouped(e, x) for e in tf.split(embedded, 3))
        # As many as there are images, labelled or not; of triplets with images of their own, all.
        triplets = triplets[:, : min(triplets.shape[1], x.shape[1])]
        q, p, n = (ungrouped(losses.gather_triplets(real, triplets, role)) for role in range(3))
        x, positive, negative = ungrouped(real), ungrouped(positive), ungrouped(negative)
        logits = self.discriminator.compare(
            tf.concat([q, q, x], 0),
            tf.concat([p, n, positive], 0),
            tf.concat([n, p, negative], 0),
            training=True,
            dropout_seed=self.step_seed(4),
        )
        count = tf.shape(q)[0]
        ordered, swapped, synthetic = tf.split(logits, [count, count, tf.shape(x)[0]])
        smoothing = self.config.label_smoothing
        return {
            "discriminator": losses.discriminator_loss(ordered, swapped, synthetic, smoothing),
            "generator": losses.generator_loss(synthetic, self.config.minimax),
            "order_accuracy": share(ordered > swapped),
        }

    def _rank(self, x, seen, synthetic, batch) -> dict[str, tf.Tensor]:
        """The terms of H, and what tells how they do."""
        triplets, labelled = batch["triplets"], batch["images"].shape[1]
        of_classes: dict[str, tf.Tensor] = {}
        x = x if "ssr" in self.rankings else x[:, :labelled]
        if self.classifies:
            of_x, of_classes["class"] = self._hash_and_classify(x, batch["labels"])
        else:
            of_x = self._hash(x, 0)
        codes = of_x[:, :labelled]
        query, positive, negative = (
            losses.gather_triplets(codes, triplets, role) for role in range(3)
        )
        hinges = losses.supervised_ranking(codes, triplets, self.margin_sr)
        terms = {
            "sr": tf.reduce_mean(hinges),
            "sr_active": share(hinges > 0),
            "positive_distance": tf.reduce_mean(losses.squared_distance(query, positive)),
            "negative_distance": tf.reduce_mean(losses.squared_distance(query, negative)),
            "bit_balance": bit_balance(codes > 0.5),
            **of_classes,
        }
        if not synthetic:
            return terms
        positive = synthetic[0] if "ssr" in self.rankings else synthetic[0][:, :labelled]
        of_positive = self._hash_synthetic(positive, 1)
        if "ssr" in self.rankings:
            of = {"x": of_x, "p": of_positive}
            if self.config.unlabelled_positives == "own":
                synthetic = [grouped(self.space.to_gan(ungrouped(seen)), seen), synthetic[1]]
                of["p"] = self._hash_synthetic(synthetic[0], 1)
            terms |= self._semi_supervised(of, seen, synthetic, triplets, labelled)
        if "ar" in self.rankings:
            hinges = losses.adversary_ranking(
                codes, of_positive[:, :labelled], triplets, self.config.margin_ar
            )
            terms["ar"] = tf.reduce_mean(hinges)
            terms["ar_active"] = share(hinges > 0)
        return terms

    def _semi_supervised(
        self, of: dict[str, tf.Tensor], seen, synthetic, triplets, labelled: int
    ) -> dict[str, tf.Tensor]:
        """L_ssr: the sum of the means over its kinds of triplets, as Eq. 5 is one of sums.

        of: the codes [B, j, k] of x and of "p", G_p(x); seen: what G saw as x.
        """
        config, total, real = self.config, seen.shape[1], self.config.without_g
        exchanges = config.exchanges if real or config.unlabelled_negatives == "exchanged" else 0
        if not real:
            negative = synthetic[1][:, :labelled] if exchanges else synthetic[1]
            of["n"] = self._hash_synthetic(negative, 2)
        unlabelled = tf.tile(tf.range(labelled, total)[None], [tf.shape(seen)[0], 1])
        unlabelled = tf.ensure_shape(unlabelled, [None, total - labelled])
        kinds = losses.semi_supervised_kinds(triplets, unlabelled, exchanges, real)
        hinges = [losses.triplet_hinge(self.margin_ssr, *losses.gather_kind(of, k)) for k in kinds]
        kept = self._confident(kinds, seen, synthetic, labelled)
        pairs = list(zip(hinges, kept, strict=True))
        active = [losses.mean_of_kept(tf.cast(h > 0, tf.float32), kept) for h, kept in pairs]
        return {
            "ssr": tf.add_n([losses.mean_of_kept(h, kept) for h, kept in pairs]),
            "ssr_active": tf.add_n(active) / len(kinds),
            "ssr_kept": tf.add_n([tf.reduce_mean(kept) for _, kept in pairs]) / len(kinds),
            "ssr_weight": self.weight_ssr * self.ramp(config.ssr_from, config.ssr_ramp),
        }

    def _confident(
        self, kinds: Sequence[losses.Kind], seen, synthetic, labelled: int
    ) -> list[tf.Tensor]:
        """Which triplets are kept, 1.0 or 0.0 [B, t] a kind: of the unlabelled, those D is sure of.

        Those of a labelled query have a real image on one side, and all stay.
        """
        margin = self.config.ssr_confidence
        kept = [tf.ones(tf.shape(kind[0][1])) for kind in kinds]
        if margin is None or seen.shape[1] == labelled:
            return kept
        items = [self.space.to_gan(ungrouped(seen)), *(ungrouped(s) for s in synthetic)]
        embedded = tf.split(self.discriminator.embed(tf.concat(items, 0)), 3)
        of = {source: grouped(e, seen) for source, e in zip("xpn", embedded, strict=True)}
        u, p, n = (ungrouped(item) for item in losses.gather_kind(of, kinds[-1]))
        order = self.discriminator.compare(u, p, n) - self.discriminator.compare(u, n, p)
        kept[-1] = tf.cast(grouped(order, kept[-1]) > margin, tf.float32)
        return kept

    def _hash(self, items: tf.Tensor, salt: int) -> tf.Tensor:
        """H of items [B, j, *item_shape] -> [B, j, k]."""
        return self._codes(self.hash_network, ungrouped(items), items, salt)

    def _hash_and_classify(
        self, items: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """H of items [B, j, ...] -> [B, j, k]; the mean l_c of the first m, of labels [B, m, C]."""
        answers = self.hash_network.scores(
            ungrouped(items), training=True, dropout_seed=self.step_seed(0), beside=[self.classes]
        )
        answers = grouped(answers, items)
        codes = tf.sigmoid(answers[..., : self.code_length])
        logits = answers[:, : labels.shape[1], self.code_length :]
        return codes, tf.reduce_mean(losses.class_loss(logits, labels, self.multi_label))

    def _hash_synthetic(self, synthetic: tf.Tensor, salt: int) -> tf.Tensor:
        """H of what G made, [B, j, *gan_shape] -> [B, j, k]."""
        items = self.space.to_hash(ungrouped(synthetic))
        if self.space.made_features:
            return self._codes(self.hash_network.above_backbone, items, synthetic, salt)
        items = with_shape(items, self.space.item_shape)
        return self._codes(self.hash_network, items, synthetic, salt)

    def _codes(
        self, network: Callable[..., tf.Tensor], flat: tf.Tensor, like: tf.Tensor, salt: int
    ) -> tf.Tensor:
        """H, or what of it is above its backbone, of flat items -> [B, j, k], grouped as `like`."""
        seed = self.step_seed(salt)
        return grouped(network(flat, training=True, dropout_seed=seed), like)


def default_of(margin: float | None, default: float) -> float:
    """A margin, or its default where none is given; 0 is a margin."""
    return default if margin is None else margin
