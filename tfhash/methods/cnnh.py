"""CNNH and CNNH+: Supervised Hashing via Image Representation Learning (Xia et al., AAAI 2014).

Written from memory of the paper and a public port's order of updates. What differs from the paper:
the sweeps of stage 1 go image by image, the images and the bits of each in random order, where the
paper shuffles all entries; the network is any backbone; the loss of a bit is its cross entropy.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash import losses
from tfhash.data.learning import LearningData
from tfhash.data.samplers import RandomImages
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.hashers.deep_settings import HashConfig
from tfhash.hashers.linear.rotation import signs
from tfhash.hashers.linear.similarity import code_loss, similarity_factors
from tfhash.networks.hash_layer import HashNetwork, linear_head
from tfhash.settings import setting, with_default
from tfhash.training.buffers import add_buffer
from tfhash.training.groups import items_of, share, ungrouped
from tfhash.training.run import Run
from tfhash.training.stage import Stage

TERMS = ("loss", "bits", "bit_accuracy")
CLASS_TERMS = ("class",)


@dataclass(frozen=True)
class CNNHConfig(HashConfig):
    """Hyperparameters."""

    sweeps: int = setting(5, "stage 1: sweeps of coordinate descent over all codes", least=1)
    class_outputs: bool = setting(
        False,
        "CNNH+: the network learns the classes too, on the features that the bits see",
        open=True,
    )
    weight_class: float = setting(
        1.0, "weight of the class term against the bits (CNNH+)", least=0, search=(0.3, 1.0, 3.0)
    )
    hash_learning_rate: float = with_default(HashConfig, "hash_learning_rate", 1e-3)


def relaxed_codes(
    start: np.ndarray,
    factors: np.ndarray,
    weights: np.ndarray,
    sweeps: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """H in [-1, 1] after sweeps of coordinate descent on |S - HH'/k|^2: float64 [l, k].

    start: H [l, k] to begin with; S = Z diag(w) Z' for factors Z [l, r] and weights w [r]. A sweep
    that does not lower the objective, as a Newton step may, is undone; the next has another order.
    """
    best, lowest = start, code_loss(start, factors, weights)
    count, bits = start.shape
    for _ in range(sweeps):
        codes = best.copy()
        rows = rng.permutation(count)
        columns = rng.permuted(np.tile(np.arange(bits), (count, 1)), axis=1)
        sweep(codes, factors, weights, rows, columns)
        reached = code_loss(codes, factors, weights)
        if reached < lowest:
            best, lowest = codes, reached
    return best


def sweep(
    codes: np.ndarray,
    factors: np.ndarray,
    weights: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
) -> None:
    """One Newton step in each entry of H, in place, by which |S - HH'/k|^2 should fall.

    codes: H, float64 [l, k]; factors, weights: Z [l, r] and w [r]; rows: int [l], the order of the
    images; columns: int [l, k], that of the bits of each. In terms of L = HH' - kS the derivatives
    of |L|^2 in H_ij are 4 L_i H_j and 4 (H_j'H_j + H_ij^2 + L_ii), L_i being row i of L and H_j
    column j of H. L, which has l^2 numbers, is not made: H'H [k, k] and Z'H [r, k] say all of it.
    """
    bits = codes.shape[1]
    gram, shared = codes.T @ codes, factors.T @ codes
    for row in rows:
        code, factor = codes[row], factors[row]
        own = bits * float(weights @ factor**2)  # k S_ii
        others = gram - np.outer(code, code)
        rest = shared - np.outer(factor, code)
        pull = others @ code - bits * ((weights * factor) @ rest)
        _newton_steps(code, others, pull, own, columns[row])
        gram = others + np.outer(code, code)
        shared = rest + np.outer(factor, code)


def _newton_steps(
    code: np.ndarray, others: np.ndarray, pull: np.ndarray, own: float, order: np.ndarray
) -> None:
    """The steps in one image's code h [k], in place.

    others: H'H [k, k] of the other images; pull: the sum of L_im H_m over these, [k]; own: k S_ii.
    Where the curvature is not positive, Newton would climb: then to the end that lies downhill.
    """
    curvatures = np.diag(others).tolist()
    norm = float(code @ code)
    for bit in order.tolist():
        at = float(code[bit])
        excess = norm - own  # L_ii
        slope = float(pull[bit]) + excess * at
        curvature = curvatures[bit] + 2 * at**2 + excess
        step = -slope / curvature if curvature > 0 else -2.0 * np.sign(slope)
        step = min(max(step, -1 - at), 1 - at)
        if step:
            code[bit] = at + step
            pull += step * others[bit]
            norm += 2 * step * at + step**2


def facts_of(codes: np.ndarray, factors: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """What the codes B [l, k] in {-1, 1} of stage 1 are worth, for metrics.json.

    code_loss: the mean square of S - BB'/k; code_rank: the bits that are linearly independent;
    distinct_codes; code_imbalance: the greatest abs(share of ones - .5) of a bit, .5 where one is
    the same for all images.
    """
    return {
        "code_loss": code_loss(codes, factors, weights),
        "code_rank": int(np.linalg.matrix_rank(codes)),
        "distinct_codes": len(np.unique(codes, axis=0)),
        "code_imbalance": float(np.abs((codes > 0).mean(axis=0) - 0.5).max()),
    }


def bit_loss(scores: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
    """k logistic regressions: the cross entropies of the bits, added up: two [n, k] -> [n].

    scores: u, before the sigmoid; codes: b in {-1, 1}. log(1 + exp(-b u)), which no u overflows.
    """
    return tf.reduce_sum(tf.nn.softplus(-codes * scores), axis=-1)


class CNNHStage(Stage):
    """Stage 2: H learns the codes of stage 1 and, beside them, the classes (CNNH+).

    codes: [l, k] in {-1, 1}, of the labelled images; a buffer, so that what goes on from a
    checkpoint has the codes that it began with. classes: a built linear layer, or None.
    """

    def __init__(
        self,
        hash_network: HashNetwork,
        config: CNNHConfig,
        codes: np.ndarray,
        *,
        classes: keras.layers.Dense | None = None,
        multi_label: bool = False,
        seed: int = 0,
    ):
        networks = {"hash_network": hash_network}
        terms = TERMS if classes is None else TERMS + CLASS_TERMS
        super().__init__(networks, terms, seed)
        self.config = config
        self.multi_label = multi_label
        self.classes = classes
        self.codes = add_buffer(self, "codes", codes)

    def variables_by_optimizer(self):
        heads = [] if self.classes is None else self.classes.trainable_variables
        return {"hash": [*self.hash_network.trainable_variables, *heads]}

    def forward(self, batch):
        beside = () if self.classes is None else (self.classes,)
        answers = self.hash_network.scores(
            ungrouped(items_of(batch, "images")),
            training=True,
            dropout_seed=self.step_seed(0),
            beside=beside,
        )
        bits = self.hash_network.code_length
        scores, logits = answers[:, :bits], answers[:, bits:]
        codes = tf.gather(self.codes.value, tf.reshape(batch["places"], [-1]))
        of_bits = tf.reduce_mean(bit_loss(scores, codes))
        terms = {"bits": of_bits, "bit_accuracy": share((scores > 0) == (codes > 0))}
        if self.classes is None:
            return terms | {"loss": of_bits}
        labels = ungrouped(batch["labels"])
        of_class = tf.reduce_mean(losses.class_loss(logits, labels, self.multi_label))
        return terms | {"class": of_class, "loss": of_bits + self.config.weight_class * of_class}


class CNNH(HashNetworkHasher):
    """Codes whose inner products fit the labels, and then H, which learns them bit by bit.

    Stage 1: H in [-1, 1]^(l x k) that makes |S - HH'/k|^2 small, S being 1 for labelled images that
    share a label and -1 for others, and its signs. Stage 2: k logistic regressions on one network.
    """

    Config = CNNHConfig
    config: CNNHConfig
    paper_backbones = ("cuda_convnet",)  # of its own, not among the backbones
    takes_triplets = False
    keeps_rows = True

    @property
    def variant(self) -> str | None:
        """CNNH+ is one of CNNH."""
        return "plus" if self.config.class_outputs else None

    def train_stages(
        self, image_set: ImageSet, splits: RetrievalSplits, run: Run
    ) -> dict[str, Any]:
        data = self.learning_data(image_set, splits)
        begin = time.perf_counter()
        factors, weights = similarity_factors(data.labels[data.labelled])
        codes = self.codes_to_learn(factors, weights)
        facts: dict[str, Any] = {"stage1_seconds": time.perf_counter() - begin}
        with self.strategy.scope():
            stage = self._stage(data, codes)
        facts["stage2_seconds"] = self.train_hash(
            self.compile(stage), data, run, title="stage 2 of 2 (hash network)"
        )
        learned = keras.ops.convert_to_numpy(stage.codes).astype(np.float64)
        return facts | facts_of(learned, factors, weights)

    def codes_to_learn(self, factors: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Stage 1: codes in {-1, 1} of the labelled images, float64 [l, k], by the factors of S."""
        rng = np.random.Generator(np.random.PCG64([self.seed, 0]))
        start = rng.uniform(-1, 1, (len(factors), self.code_length))
        return signs(relaxed_codes(start, factors, weights, self.config.sweeps, rng))

    def _stage(self, data: LearningData, codes: np.ndarray) -> CNNHStage:
        labels = data.labels[data.labelled]
        classes = None
        if self.config.class_outputs:
            initializer = keras.initializers.GlorotUniform(self.seed)
            width = self.hash_network.width
            classes = linear_head("classes", width, labels.shape[1], initializer)
        return CNNHStage(
            self.hash_network,
            self.config,
            codes,
            classes=classes,
            multi_label=data.multi_label,
            seed=self.seed,
        )

    def make_sampler(self, data: LearningData) -> RandomImages:
        return RandomImages(len(data.labelled), self.settings.group_size)
