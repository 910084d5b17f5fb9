"""SSDH, supervised semantics-preserving hashing by a latent layer (Yang, Lin, Chen, TPAMI 2018).

The k sigmoid units of the hash network are a hidden layer of a classifier: its classes are linear
in the bits' activations, and so the class labels alone, image by image, decide the bits.

The form is that of the authors' code (Caffe-DeepBinaryCode): squares, and their halves. What
differs from it: all layers learn at one rate (there, the new ones at ten times the rate, and their
biases at twenty), and the latent layer starts as this library's hash layers do (there, with a
deviation of .01). Images with several labels have a sigmoid a class, as far as we remember the
paper, which has a margin for them too.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfhash import losses
from tfhash.data.learning import LearningData
from tfhash.data.samplers import RandomImages
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.hashers.deep_settings import HashConfig
from tfhash.networks.hash_layer import HashNetwork, linear_head
from tfhash.settings import setting, with_default
from tfhash.training.groups import items_of, ungrouped
from tfhash.training.stage import Stage

TERMS = ("loss", "class", "binarisation", "half_on")
CLASS_LOSSES = ("auto", "softmax", "sigmoid")
_CLASSIFIER_SEED = 600  # is added to the run's: no other network draws from that sum


@dataclass(frozen=True)
class SSDHLatentConfig(HashConfig):
    """Hyperparameters; the defaults are those of the authors' code."""

    weight_class: float = setting(1.0, "weight of the class term, the paper's alpha", least=0)
    weight_binarisation: float = setting(
        1.0,
        "weight of what draws activations from .5 to 0 or 1, the paper's beta",
        least=0,
        search=(0.1, 1.0),
    )
    weight_half_on: float = setting(
        1.0,
        "weight of what asks that half of an image's bits are 1, the paper's gamma",
        least=0,
        search=(0.1, 1.0),
    )
    class_loss: str = setting(
        "auto",
        "softmax over the classes; sigmoid: each by itself; auto: sigmoid where a labelled image "
        "has several labels",
        choices=CLASS_LOSSES,
        open=True,
    )
    classifier_deviation: float = setting(
        0.2, "standard deviation of the classifier's first weights", above=0
    )
    hash_learning_rate: float = with_default(HashConfig, "hash_learning_rate", 1e-3)
    hash_schedule: str = with_default(HashConfig, "hash_schedule", "step")
    hash_decay_steps: int = with_default(HashConfig, "hash_decay_steps", 25000)
    weight_decay: float = with_default(HashConfig, "weight_decay", 5e-4)


def binarisation_loss(activations: tf.Tensor) -> tf.Tensor:
    """-(1/2) mean over n and k of (a - .5)²: [n, k] in [0, 1] -> a scalar in [-1/8, 0] (E_2)."""
    return -tf.reduce_mean(tf.square(activations - 0.5)) / 2


def half_on_loss(share_on: tf.Tensor) -> tf.Tensor:
    """(1/2) mean over n of (share - .5)²: [n] in [0, 1] -> a scalar in [0, 1/8] (E_3).

    share_on: the mean activation of each image, so half of *its* bits are asked to be 1. That a bit
    is 1 for half of the images is not asked.
    """
    return tf.reduce_mean(tf.square(share_on - 0.5)) / 2


class LatentStage(Stage):
    """The one stage: H and a linear classifier on its activations minimise the sum of three terms.

    classifier: a built Dense layer, float32, from k activations to C logits. multi_label: whether
    each class is told by a sigmoid of its own, not by a softmax over all.
    """

    def __init__(
        self,
        hash_network: HashNetwork,
        classifier: keras.layers.Dense,
        config: SSDHLatentConfig,
        *,
        multi_label: bool,
        seed: int,
    ):
        super().__init__({"hash_network": hash_network, "classifier": classifier}, TERMS, seed)
        self.config = config
        self.multi_label = multi_label

    def variables_by_optimizer(self):
        heads = (self.hash_network, self.classifier)
        return {"hash": [variable for head in heads for variable in head.trainable_variables]}

    def forward(self, batch):
        config = self.config
        x = ungrouped(items_of(batch, "images"))
        activations = self.hash_network(x, training=True, dropout_seed=self.step_seed(0))
        logits, share_on = self._heads(activations)
        of_class = losses.class_loss(logits, ungrouped(batch["labels"]), self.multi_label)
        terms = {
            "class": tf.reduce_mean(of_class),
            "binarisation": binarisation_loss(activations),
            "half_on": half_on_loss(share_on),
        }
        loss = (
            config.weight_class * terms["class"]
            + config.weight_binarisation * terms["binarisation"]
            + config.weight_half_on * terms["half_on"]
        )
        return {"loss": loss, **terms}

    def _heads(self, activations: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits [n, C] and mean activations [n] of activations [n, k].

        They are one product, so that with `binarisation` the activations get two gradients and not
        three, which TensorFlow adds in no fixed order.
        """
        bits = activations.shape[-1]
        kernel = keras.ops.concatenate([self.classifier.kernel, tf.fill([bits, 1], 1 / bits)], 1)
        answers = tf.matmul(activations, kernel)
        return answers[:, :-1] + self.classifier.bias, answers[:, -1]


class SSDHLatent(HashNetworkHasher):
    """H trained through a linear classifier on its activations, with labelled images one by one."""

    Config = SSDHLatentConfig
    config: SSDHLatentConfig
    paper_backbones = ("alexnet",)
    takes_triplets = False

    def learning_data(self, image_set: ImageSet, splits: RetrievalSplits) -> LearningData:
        data = super().learning_data(image_set, splits)
        if len(np.unique(self._labels(data), axis=0)) < 2:
            raise UserError(
                f"labels: all {len(data.labelled)} labelled images have the same; "
                f"{type(self).__name__} needs images of two classes"
            )
        return data

    def make_sampler(self, data: LearningData) -> RandomImages:
        return RandomImages(len(data.labelled), self.settings.group_size)

    def make_stage(self, data: LearningData) -> Stage:
        labels = self._labels(data)
        deviation, seed = self.config.classifier_deviation, self.seed + _CLASSIFIER_SEED
        initializer = keras.initializers.RandomNormal(0.0, deviation, seed)
        classifier = linear_head("classifier", self.code_length, labels.shape[1], initializer)
        multi_label = self._multi_label(data.multi_label)
        return LatentStage(
            self.hash_network, classifier, self.config, multi_label=multi_label, seed=self.seed
        )

    def _multi_label(self, several: bool) -> bool:
        """Whether each class has a sigmoid of its own: `class_loss`, by the labels where auto."""
        if several and self.config.class_loss == "softmax":
            raise UserError(
                "`class_loss`: softmax, and labelled images have several labels; allowed: "
                "auto, sigmoid"
            )
        return several if self.config.class_loss == "auto" else self.config.class_loss == "sigmoid"

    @staticmethod
    def _labels(data: LearningData) -> np.ndarray:
        """Those of the labelled images, multi-hot [n, C]."""
        return data.labels[data.labelled]
