"""DPSH: deep pairwise-supervised hashing (Li, Wang, Kang, IJCAI 2016).

Images that share a label get scores of a large inner product, others of a small one, and scores
are drawn to their signs. As in the lab's own PyTorch code, a batch meets the scores of all labelled
images, which a buffer keeps, and all sums are divided by the number of pairs. What differs from
that code: the buffer starts with the scores of one forward pass, there with zeros; SGD has a
momentum of .9, so the default rate is a tenth of that code's .05; the rate falls by the schedules
that all methods have. The paper's network is CNN-F. `balanced_pairs` is not the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
from tfhash.training.groups import bit_balance

TERMS = ("loss", "pairs", "quantisation", "bit_balance")


@dataclass(frozen=True)
class DPSHConfig(PairsConfig):
    """Hyperparameters."""

    weight_quantisation: float = setting(
        10.0,
        "eta: weight of |sign(u) - u|² of an image, against the sum of its pairs with all "
        "labelled images",
        least=0,
        search=(0.1, 1.0, 10.0, 100.0),
    )
    hash_learning_rate: float = with_default(HashConfig, "hash_learning_rate", 5e-3)
    weight_decay: float = with_default(HashConfig, "weight_decay", 1e-5)


class DPSHStage(BufferedPairsStage):
    """The one stage: pairs of the batch with all n labelled images, and quantisation.

    H minimises pairs + (eta / n) quantisation, two means: the paper's sums over n images a query,
    divided by n. scores, labels: as in BufferedPairsStage.
    """

    def __init__(
        self,
        hash_network: HashNetwork,
        config: DPSHConfig,
        seed: int,
        *,
        scores: np.ndarray,
        labels: np.ndarray,
    ):
        super().__init__(
            hash_network, TERMS, seed, scores=scores, labels=labels, balanced=config.balanced_pairs
        )
        self.config = config

    def forward(self, batch):
        scores, all_scores = self.renew(batch)
        pairs = self.pairs(batch, scores, all_scores)
        quantisation = losses.quantisation_loss(scores, losses.signs(scores))
        return {
            "loss": pairs + self.config.weight_quantisation / self.count * quantisation,
            "pairs": pairs,
            "quantisation": quantisation,
            "bit_balance": bit_balance(all_scores > 0),
        }


class DPSH(BufferedPairsHasher):
    """H trained with pairs: like scores for images that share a label, opposite ones for others.

    An image may have several labels.
    """

    Config = DPSHConfig
    config: DPSHConfig
    paper_backbones = ("cnn_f",)  # a VGG-F, which is not among the backbones

    def make_stage(self, data: LearningData) -> DPSHStage:
        return DPSHStage(
            self.hash_network,
            self.config,
            self.seed,
            scores=self.scores_of(data, data.labelled),
            labels=data.labels[data.labelled],
        )
