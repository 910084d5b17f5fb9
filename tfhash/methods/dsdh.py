"""DSDH: deep supervised discrete hashing (Li, Sun, He, Tan, NIPS 2017).

Beside the pairs of DPSH, codes B of the labelled images are kept from which a linear classifier W
tells the labels; the network's scores are drawn to B. Every so many steps W is renewed in closed
form, and then B bit by bit. As in public code (DSDH_PyTorch), pairs are those of a batch with the
newest scores of all labelled images. What differs from that code: B starts as the signs of a first
forward pass, not at random; the optimizer is AdamW, not RMSprop; where images have several labels,
W has a row for a bias. The paper's own weights are, from memory, mu 1, nu .1 and eta 55; the
defaults here have that code's proportions between mu, nu and eta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfhash import losses
from tfhash.data.learning import LearningData
from tfhash.hashers.buffered_pairs import (
    BufferedPairsHasher,
    BufferedPairsStage,
    PairsConfig,
)
from tfhash.hashers.deep_settings import HashConfig
from tfhash.networks.hash_layer import HashNetwork
from tfhash.settings import setting, with_default
from tfhash.training.buffers import add_buffer
from tfhash.training.groups import bit_balance, share, ungrouped

TERMS = ("loss", "pairs", "quantisation", "labels", "equal_bits", "bit_balance")
BIASES = ("auto", "on", "off")


@dataclass(frozen=True)
class DSDHConfig(PairsConfig):
    """Hyperparameters. The three weights stand against sums of pairs over all labelled images."""

    weight_labels: float = setting(
        55.0,
        "mu: weight of |y - W'b|², how badly the codes tell the labels",
        above=0,
        search=(1.0, 10.0, 100.0, 550.0),
    )
    weight_classifier: float = setting(5500.0, "nu: weight of W's squared norm", above=0)
    weight_quantisation: float = setting(
        55.0,
        "eta: weight of |b - u|², for the codes b and for the network",
        least=0,
        search=(1.0, 3.0, 10.0, 55.0),
    )
    codes_every: int | None = setting(
        None, "steps between two updates of W and B; by default about an epoch", least=1, open=True
    )
    code_cycles: int = setting(
        10,
        "cycles over the bits in one update of B at most; fewer where none changes",
        least=1,
        open=True,
    )
    bias: str = setting(
        "auto",
        "whether W has a bias; auto: where a labelled image has several labels",
        choices=BIASES,
        open=True,
    )
    hash_optimizer: str = with_default(HashConfig, "hash_optimizer", "adamw")
    hash_learning_rate: float = with_default(HashConfig, "hash_learning_rate", 1e-5)
    hash_schedule: str = with_default(HashConfig, "hash_schedule", "cosine")
    weight_decay: float = with_default(HashConfig, "weight_decay", 1e-5)


def with_bias(codes: tf.Tensor, rows: int) -> tf.Tensor:
    """Codes [n, k], and a column of ones after them where W has k + 1 `rows`: [n, rows]."""
    return tf.pad(codes, [[0, 0], [0, rows - codes.shape[1]]], constant_values=1.0)


def label_loss(codes: tf.Tensor, labels: tf.Tensor, classifier: tf.Tensor) -> tf.Tensor:
    """The mean over images of |y - W'b|²: a scalar.

    codes: b [n, k] in {-1, 1}; labels: y, multi-hot [n, C]; classifier: W [k, C], or [k + 1, C]
    with the bias as its last row.
    """
    told = tf.matmul(with_bias(codes, classifier.shape[0]), classifier)
    return tf.reduce_mean(losses.squared_distance(labels, told))


def fit_classifier(codes: tf.Tensor, labels: tf.Tensor, rows: int, ridge: float) -> tf.Tensor:
    """W = (B'B + ridge I)^-1 B'Y, which minimises |Y - BW|² + ridge |W|²: float32 [rows, C].

    codes: B float32 [n, k] in {-1, 1}; labels: Y multi-hot [n, C]; rows: k, or k + 1 with a bias;
    ridge: nu / mu.
    """
    inputs = with_bias(codes, rows)
    # Whole numbers, so float32 holds them; equal bits make what is solved nearly singular.
    gram = tf.cast(tf.matmul(inputs, inputs, transpose_a=True), tf.float64)
    targets = tf.cast(tf.matmul(inputs, labels, transpose_a=True), tf.float64)
    factor = tf.linalg.cholesky(gram + ridge * tf.eye(rows, dtype=tf.float64))
    return tf.cast(tf.linalg.cholesky_solve(factor, targets), tf.float32)


def update_codes(
    codes: tf.Tensor,
    labels: tf.Tensor,
    classifier: tf.Tensor,
    drawn: tf.Tensor,
    cycles: int,
) -> tf.Tensor:
    """Discrete cyclic coordinate descent: B [n, k] in {-1, 1} -> B (DSDH, after SDH's DCC).

    Bit by bit, that of every image becomes the one that minimises |Y - BW|² - 2 tr(B' drawn), given
    its other bits: z = sign(p - B'W'w), P = Y W' + drawn. A bit without a preference stays.

    labels: Y [n, C]; classifier: W as in `label_loss`; drawn: (eta / mu) U [n, k]; cycles: over all
    bits, at most so many.
    """
    bits = codes.shape[1]
    weights, bias = classifier[:bits], classifier[bits:]
    pull = tf.matmul(labels - tf.reduce_sum(bias, axis=0), weights, transpose_b=True) + drawn
    push = tf.matmul(weights, weights, transpose_b=True)
    push = tf.linalg.set_diag(push, tf.zeros(bits))

    def one_bit(bit: tf.Tensor, codes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        preference = pull - tf.matmul(codes, push[:, bit, tf.newaxis])
        chosen = tf.where(preference == 0, codes, losses.signs(preference))
        return bit + 1, tf.where(tf.range(bits) == bit, chosen, codes)

    def one_cycle(codes: tf.Tensor, changed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        del changed
        _, renewed = tf.while_loop(lambda bit, _: bit < bits, one_bit, (0, codes))
        return renewed, tf.reduce_any(renewed != codes)

    start = (codes, tf.constant(True))
    codes, _ = tf.while_loop(
        lambda _, changed: changed, one_cycle, start, maximum_iterations=cycles
    )
    return codes


class DSDHStage(BufferedPairsStage):
    """The one stage: pairs, and codes B that both tell the labels and draw the scores.

    H minimises pairs + (eta / n) |b - u|², two means: sums over n images a query, divided by n.
    codes_every: steps between two updates of W and B, the first of them before the first step;
    bias: whether W has a row for it.
    """

    def __init__(
        self,
        hash_network: HashNetwork,
        config: DSDHConfig,
        seed: int,
        *,
        codes_every: int,
        bias: bool,
        scores: np.ndarray,
        labels: np.ndarray,
    ):
        super().__init__(
            hash_network, TERMS, seed, scores=scores, labels=labels, balanced=config.balanced_pairs
        )
        self.config = config
        self.codes_every = codes_every
        bits, classes = scores.shape[1], labels.shape[1]
        self.codes = add_buffer(self, "codes", losses.signs(scores).numpy())
        self.classifier = add_buffer(self, "classifier", np.zeros((bits + bias, classes)))

    def forward(self, batch):
        scores, all_scores = self.renew(batch)
        codes, classifier = self._renewed(all_scores)
        of_batch = tf.gather(codes, ungrouped(batch["places"]))
        pairs = self.pairs(batch, scores, all_scores)
        quantisation = losses.quantisation_loss(scores, of_batch)
        return {
            "loss": pairs + self.config.weight_quantisation / self.count * quantisation,
            "pairs": pairs,
            "quantisation": quantisation,
            "labels": label_loss(codes, self.labels, classifier),
            "equal_bits": share(codes == losses.signs(all_scores)),
            "bit_balance": bit_balance(all_scores > 0),
        }

    def _renewed(self, all_scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """B [n, k] and W, renewed where this step is one of those that do."""
        codes, classifier = (tf.convert_to_tensor(v.value) for v in (self.codes, self.classifier))
        # Values alone in here: a replica cannot assign within a condition.
        codes, classifier = tf.cond(
            self.step % self.codes_every == 0,
            lambda: self._discrete_step(codes, all_scores),
            lambda: (codes, classifier),
        )
        self.codes.assign(codes)
        self.classifier.assign(classifier)
        return codes, classifier

    def _discrete_step(
        self, codes: tf.Tensor, all_scores: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """W of the present codes, and then the codes of W and U."""
        config = self.config
        ridge = config.weight_classifier / config.weight_labels
        classifier = fit_classifier(codes, self.labels, self.classifier.shape[0], ridge)
        drawn = config.weight_quantisation / config.weight_labels * all_scores
        codes = update_codes(codes, self.labels, classifier, drawn, config.code_cycles)
        return codes, classifier


class DSDH(BufferedPairsHasher):
    """H trained with pairs, and drawn to codes from which a linear classifier tells the labels.

    An image may have several labels.
    """

    Config = DSDHConfig
    config: DSDHConfig
    paper_backbones = ("cnn_f",)  # a VGG-F, which is not among the backbones

    def make_stage(self, data: LearningData) -> DSDHStage:
        config, labels = self.config, data.labels[data.labelled]
        return DSDHStage(
            self.hash_network,
            config,
            self.seed,
            codes_every=config.codes_every or math.ceil(len(labels) / self.settings.batch_size),
            bias=data.multi_label if config.bias == "auto" else config.bias == "on",
            scores=self.scores_of(data, data.labelled),
            labels=labels,
        )
