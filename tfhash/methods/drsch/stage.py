"""The loss terms of DRSCH (Zhang et al., TIP 2015) and the stage in which H learns."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfhash.losses import mean_of_kept, similar_pairs
from tfhash.methods.drsch.config import DRSCHConfig
from tfhash.training.groups import bit_balance, grouped, items_of, ungrouped
from tfhash.training.stage import Stage

RANKING_TERMS = (
    "loss",
    "triplet",
    "triplet_active",
    "bit_balance",
    "beta",
    "bit_weight_least",
    "bit_weight_most",
)
LAPLACIAN_TERMS = ("laplacian",)


def steep_tanh(scores: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """(1 - exp(-beta v)) / (1 + exp(-beta v)) = tanh(beta v / 2), elementwise, in (-1, 1)."""
    return tf.tanh(beta * scores / 2)


def weighted_distances(codes: tf.Tensor, bit_weights: tf.Tensor) -> tf.Tensor:
    """sum_d w_d² (1 - r_d r'_d) / 2 of each two codes of a group: [B, m, k], [k] -> [B, m, m].

    Of codes of -1 and 1, the sum of w² over the bits in which they differ: with all w = 1 the
    Hamming distance. It is the negative of the paper's affinity, up to a constant.
    """
    weighted = codes * bit_weights
    inner = tf.matmul(weighted, weighted, transpose_b=True)
    return (tf.reduce_sum(tf.square(bit_weights)) - inner) / 2


def all_triplets(similar: tf.Tensor) -> tf.Tensor:
    """1.0 where i, j, k are a triplet, else 0.0: [B, m, m] -> [B, m, m, m].

    similar: whether two images share a label. j is another image that shares one with i, and k
    shares none.
    """
    positive = tf.linalg.set_diag(similar, tf.zeros_like(similar[..., 0]))
    return positive[..., :, tf.newaxis] * (1 - similar)[..., tf.newaxis, :]


def ranking_hinges(distances: tf.Tensor, margin: float) -> tf.Tensor:
    """max(0, margin + d(i, j) - d(i, k)) for all i, j, k of a group: [B, m, m] -> [B, m, m, m]."""
    return tf.nn.relu(margin + distances[..., :, tf.newaxis] - distances[..., tf.newaxis, :])


def nearest_others(items: tf.Tensor, count: int) -> tf.Tensor:
    """1.0 where j is one of the `count` items nearest to i, else 0.0: [B, m, ...] -> [B, m, m].

    Nearest by the Euclidean distance; no item is among its own. Places have no gradient.
    """
    flat = tf.reshape(items, [-1, items.shape[1], np.prod(items.shape[2:], dtype=int)])
    flat = tf.cast(flat, tf.float32)
    squares = tf.reduce_sum(tf.square(flat), axis=-1)
    inner = tf.matmul(flat, flat, transpose_b=True)
    distances = squares[..., :, tf.newaxis] + squares[..., tf.newaxis, :] - 2 * inner
    distances = tf.linalg.set_diag(distances, tf.fill(tf.shape(squares), np.float32(np.inf)))
    nearest = tf.math.top_k(-distances, count).indices
    return tf.reduce_sum(tf.one_hot(nearest, items.shape[1]), axis=-2)


def laplacian(codes: tf.Tensor, bit_weights: tf.Tensor, neighbours: tf.Tensor) -> tf.Tensor:
    """The mean over neighbours i, j of sum_d w_d² (r_id - r_jd)² / 4, a scalar.

    codes [B, m, k]; bit_weights [k]; neighbours [B, m, m], 1.0 where j is one of i. Of codes of -1
    and 1 it is the mean weighted Hamming distance. With S the mean of `neighbours` and its
    transpose, L = diag(S 1) - S and R the codes times the weights, [m, k], it is
    tr(R' L R) / (2 sum of S) of a group.
    """
    weighted = codes * bit_weights
    squares = tf.reduce_sum(tf.square(weighted), axis=-1)
    inner = tf.matmul(weighted, weighted, transpose_b=True)
    apart = squares[..., :, tf.newaxis] + squares[..., tf.newaxis, :] - 2 * inner
    return tf.reduce_sum(neighbours * apart) / (4 * tf.reduce_sum(neighbours))


class DRSCHStage(Stage):
    """The one stage: H and the weights of bits under all triplets of a batch.

    steps: how many updates there will be, over which the tanh gets steeper.
    """

    def __init__(
        self,
        hash_network: keras.Model,
        config: DRSCHConfig,
        *,
        code_length: int,
        steps: int,
        seed: int,
    ):
        terms = RANKING_TERMS + LAPLACIAN_TERMS * config.regularised
        super().__init__({"hash_network": hash_network}, terms, seed)
        self.config = config
        self.margin = code_length / 2 if config.margin is None else config.margin
        self.total_steps = steps
        self.bit_weights = self.add_weight(
            shape=(code_length,),
            initializer="ones",
            trainable=config.learn_bit_weights,
            dtype="float32",
            name="bit_weights",
        )

    def variables_by_optimizer(self) -> dict[str, list[keras.Variable]]:
        """One optimizer trains H, and the weights of bits where they are learned."""
        own = [self.bit_weights] if self.config.learn_bit_weights else []
        return {"hash": [*self.hash_network.trainable_variables, *own]}

    def forward(self, batch):
        config = self.config
        x = items_of(batch, "images")  # [B, m, ...]
        features = self.hash_network.features(
            ungrouped(x), training=True, dropout_seed=self.step_seed(0)
        )
        scores = grouped(self.hash_network.scores_of(features), x)  # [B, m, k]
        beta = self._beta()
        codes, weights = steep_tanh(scores, beta), tf.convert_to_tensor(self.bit_weights.value)
        terms = self._rank(codes, weights, batch["labels"])
        if config.regularised:
            items = grouped(features, x) if config.neighbours_by == "features" else x
            neighbours = nearest_others(items, config.neighbours)
            terms["laplacian"] = laplacian(codes, weights, neighbours)
        return terms | {
            "loss": terms["triplet"] + config.weight_laplacian * terms.get("laplacian", 0.0),
            "bit_balance": bit_balance(scores > 0),
            "beta": beta,
            "bit_weight_least": tf.reduce_min(tf.square(weights)),
            "bit_weight_most": tf.reduce_max(tf.square(weights)),
        }

    def _rank(self, codes: tf.Tensor, weights: tf.Tensor, labels: tf.Tensor) -> dict:
        """The terms of all triplets: codes [B, m, k], w [k], labels multi-hot [B, m, C]."""
        hinges = ranking_hinges(weighted_distances(codes, weights), self.margin)
        kept = all_triplets(similar_pairs(labels, labels))
        size = codes.shape[1] ** 3
        hinges, kept = (tf.reshape(values, [-1, size]) for values in (hinges, kept))
        active = tf.cast(hinges > 0, tf.float32)
        return {
            "triplet": mean_of_kept(hinges, kept),
            "triplet_active": mean_of_kept(active, kept),
        }

    def _beta(self) -> tf.Tensor:
        """How steep the tanh is in this step."""
        count = len(self.config.beta)
        part = tf.minimum(self.step * count // self.total_steps, count - 1)
        return tf.gather(tf.constant(self.config.beta, tf.float32), part)
