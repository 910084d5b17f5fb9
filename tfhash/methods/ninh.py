"""NINH: simultaneous feature learning and hash coding with deep networks (Lai et al., CVPR 2015).

The paper's three parts are a trunk of convolutions that three images of a triplet share, the
divide-and-encode module, and the ranking loss of triplets. The last two are here as the paper has
them. The trunk is not: the paper's is a network-in-network that learns from nothing, after which a
1x1 convolution and a global average give the slice_units features of each bit; here any backbone of
the house stands in for it, and a dense ReLU layer makes these features of what it answers. Neither
its dropout between convolutions nor the larger rate of biases is there.

The loss and the module follow the paper; momentum, rates and decay follow the public reproduction
that credits the first author's files (HYPJUDY/caffe-dnnh), with one fall of the rate and not two.
The piecewise threshold is off by default, as it is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from tfhash import losses
from tfhash.data.learning import LearningData
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.hashers.deep_settings import HashConfig
from tfhash.networks.divided import DividedHashNetwork
from tfhash.settings import setting, with_default
from tfhash.training.groups import bit_balance, grouped, items_of, share, ungrouped
from tfhash.training.stage import Stage

TERMS = ("loss", "triplet_active", "positive_distance", "negative_distance", "bit_balance")


@dataclass(frozen=True)
class NINHConfig(HashConfig):
    """Hyperparameters; the defaults are the paper's, or those of its reproduction."""

    slice_units: int = setting(
        50,
        "features of a bit: its slice of the ReLU layer under the hash layer",
        least=1,
        search=(10, 25, 50),
    )
    margin: float = setting(
        1.0, "margin of the triplets, on squared distances", least=0, search=(1.0, 3.0, 6.0, 12.0)
    )
    threshold: float | None = setting(
        None,
        "the paper's piecewise threshold: activations further than this from .5 become 0 or 1, and "
        "have no gradient; by default there is none",
        above=0,
        most=0.5,
        open=True,
    )
    hash_learning_rate: float = with_default(HashConfig, "hash_learning_rate", 1e-3)
    hash_schedule: str = with_default(HashConfig, "hash_schedule", "step")
    hash_decay_steps: int = with_default(HashConfig, "hash_decay_steps", 60_000)
    weight_decay: float = with_default(HashConfig, "weight_decay", 5e-4)


def piecewise_threshold(activations: tf.Tensor, epsilon: float) -> tf.Tensor:
    """g of NINH, elementwise: 0 where s < .5 - epsilon, 1 where s > .5 + epsilon, else s.

    activations: s in [0, 1], of any shape. Only what lies in between has a gradient.
    """
    low, high = activations < 0.5 - epsilon, activations > 0.5 + epsilon
    middle = tf.where(high, tf.ones_like(activations), activations)
    return tf.where(low, tf.zeros_like(activations), middle)


class NINHStage(Stage):
    """The one stage: a query is nearer to its positive than to its negative, by a margin."""

    def __init__(self, hash_network: keras.Model, config: NINHConfig, seed: int):
        super().__init__({"hash_network": hash_network}, TERMS, seed)
        self.config = config

    def forward(self, batch):
        x = items_of(batch, "images")  # [B, m, ...]
        flat, seed = ungrouped(x), self.step_seed(0)
        activations = self.hash_network(flat, training=True, dropout_seed=seed)
        codes = grouped(activations, x)  # [B, m, k]
        balance = bit_balance(codes > 0.5)
        if self.config.threshold is not None:
            codes = piecewise_threshold(codes, self.config.threshold)
        triplets = batch["triplets"]
        query, positive, negative = (losses.gather_triplets(codes, triplets, r) for r in range(3))
        hinges = losses.triplet_hinge(self.config.margin, query, positive, negative)
        return {
            "loss": tf.reduce_mean(hinges),
            "triplet_active": share(hinges > 0),
            "positive_distance": tf.reduce_mean(losses.squared_distance(query, positive)),
            "negative_distance": tf.reduce_mean(losses.squared_distance(query, negative)),
            "bit_balance": balance,
        }


class NINH(HashNetworkHasher):
    """H with a slice of features for each bit, trained with triplets of labelled images.

    Two images of a triplet share a label, and the third shares none with the first; an image may
    have several labels.
    """

    Config = NINHConfig
    config: NINHConfig
    paper_backbones = ("network_in_network",)  # of its own, not among the backbones

    @property
    def hash_network_kind(self) -> type[DividedHashNetwork]:
        return DividedHashNetwork

    def hidden_widths(self) -> tuple[int, ...]:
        return (*super().hidden_widths(), self.config.slice_units * self.code_length)

    def make_stage(self, data: LearningData) -> Stage:
        return NINHStage(self.hash_network, self.config, self.seed)
