"""Methods whose pairs are those of a batch with *all* labelled images (DPSH, DSDH).

A buffer U holds the newest scores of each labelled image. An image of a batch meets all of them, so
that a small batch sees every class; the gradient passes through the batch's side alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfhash import losses
from tfhash.data.learning import LearningData
from tfhash.data.pairs import check_pairs, count_similar
from tfhash.data.samplers import RandomImages
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.hashers.deep_settings import HashConfig
from tfhash.networks.hash_layer import HashNetwork
from tfhash.settings import setting
from tfhash.training.buffers import add_buffer, update_rows
from tfhash.training.groups import items_of, ungrouped
from tfhash.training.stage import Stage


@dataclass(frozen=True)
class PairsConfig(HashConfig):
    """Hyperparameters of these methods."""

    balanced_pairs: bool = setting(
        False,
        "pairs that share a label weigh as much as all others together; the paper weighs each pair "
        "alike",
        search=(False, True),
    )


def pairs_with_all(
    scores: tf.Tensor,
    labels: tf.Tensor,
    all_scores: tf.Tensor,
    all_labels: tf.Tensor,
    weights: tuple[float, float] = (1.0, 1.0),
) -> tf.Tensor:
    """The mean over pairs of w (log(1 + exp(theta)) - s theta), theta = u'v / 2: a scalar (DPSH).

    scores: u float32 [b, k] of a batch; all_scores: v [n, k] of all labelled images, which get no
    gradient; labels [b, C], all_labels [n, C]: multi-hot, s = 1 where two share one. weights: w of
    a pair that shares a label, and of one that does not; both 1 in the paper.
    """
    theta = tf.matmul(scores, tf.stop_gradient(all_scores), transpose_b=True) / 2
    similar = losses.similar_pairs(labels, all_labels)
    of_similar, of_others = weights
    weight = of_others + (of_similar - of_others) * similar
    return tf.reduce_mean(weight * losses.pair_likelihood(theta, similar))


def balancing_weights(labels: np.ndarray) -> tuple[float, float]:
    """Weights of a pair that shares a label and of another, so that each kind has half of all.

    labels: multi-hot [n, C], of which some pairs share a label and some do not. The mean weight of
    all n² pairs is 1.
    """
    share = count_similar(labels) / len(labels) ** 2
    return 0.5 / share, 0.5 / (1 - share)


class BufferedPairsStage(Stage):
    """A stage of one hash network that keeps the scores U [n, k] of all labelled images.

    scores: float32 [n, k], U to begin with; labels: multi-hot [n, C]; balanced: whether both kinds
    of pairs weigh the same. Batches have images [B, m, ...], labels [B, m, C] and places [B, m].
    """

    def __init__(
        self,
        hash_network: HashNetwork,
        terms: Sequence[str],
        seed: int,
        *,
        scores: np.ndarray,
        labels: np.ndarray,
        balanced: bool,
    ):
        super().__init__({"hash_network": hash_network}, terms, seed)
        self.scores = add_buffer(self, "scores", scores)
        self.labels = tf.constant(labels, tf.float32)
        self.pair_weights = balancing_weights(labels) if balanced else (1.0, 1.0)

    @property
    def count(self) -> int:
        """n, the number of labelled images."""
        return self.labels.shape[0]

    def renew(self, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores float32 [B m, k] of the batch, and U [n, k] with these in it, without gradient."""
        x = ungrouped(items_of(batch, "images"))
        scores = self.hash_network.scores(x, training=True, dropout_seed=self.step_seed(0))
        return scores, update_rows(self.scores, ungrouped(batch["places"]), scores)

    def pairs(
        self, batch: Mapping[str, tf.Tensor], scores: tf.Tensor, all_scores: tf.Tensor
    ) -> tf.Tensor:
        """The term of the pairs of a batch and all labelled images, of what `renew` answers."""
        labels = ungrouped(batch["labels"])
        return pairs_with_all(scores, labels, all_scores, self.labels, self.pair_weights)


class BufferedPairsHasher(HashNetworkHasher):
    """H trained with pairs of a batch and all labelled images; `make_stage` says under which loss.

    UserError where all pairs are of one kind.
    """

    takes_triplets = False
    keeps_rows = True

    def learning_data(self, image_set: ImageSet, splits: RetrievalSplits) -> LearningData:
        data = super().learning_data(image_set, splits)
        check_pairs(data.labels[data.labelled])
        return data

    def make_sampler(self, data: LearningData) -> RandomImages:
        return RandomImages(len(data.labelled), self.settings.group_size)
