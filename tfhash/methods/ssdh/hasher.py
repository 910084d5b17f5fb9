"""SSDH: semi-supervised deep hashing (Zhang & Peng, TCSVT 2017)."""

from __future__ import annotations

import keras
import numpy as np

from tfhash.data.learning import LearningData
from tfhash.data.pipeline import TrainingBatches
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.methods.ssdh.config import SSDHConfig
from tfhash.methods.ssdh.stage import SSDHStage, far_ranks
from tfhash.networks.hash_layer import linear_head
from tfhash.training.stage import Stage


class SSDH(HashNetworkHasher):
    """H trained with labelled triplets, and with the neighbours that images have in their batch.

    Each batch is a graph of its own: labelled and unlabelled images are drawn to one of their
    nearest by features and pushed from a far one. A class head on the same features gives the
    unlabelled ones pseudo-labels, which draw them to labelled images and push them from others.

    What is not as in the paper and its code: a batch has `batch_size` labelled and
    `unlabelled_batch_size` unlabelled images, where 128 random ones of 59,000 would have some 11
    labelled; a labelled image is the query of `triplets_per_query` triplets, not of one; an image
    is no neighbour of itself; where it may have one label, the class head is a softmax; the worst
    class of an unlabelled image is that of the labelled images of its group.
    """

    Config = SSDHConfig
    config: SSDHConfig
    paper_backbones = ("vgg_f",)  # not among the backbones

    def learning_data(self, image_set: ImageSet, splits: RetrievalSplits) -> LearningData:
        if self.config.classification and image_set.triplets is not None:
            raise UserError(
                "`classification`: needs class labels, and `triplets_csv` gives triplets; "
                "allowed there: False"
            )
        return super().learning_data(image_set, splits)

    def make_stage(self, data: LearningData) -> Stage:
        margin = self.config.margin_graph
        if margin is None:
            margin = 2.5 if self.code_length <= 12 else 3.0
        return SSDHStage(
            self.hash_network,
            self._class_head(len(_classes(data))) if self.config.classification else None,
            self.config,
            margin_graph=margin,
            multi_label=data.multi_label,
            seed=self.seed,
        )

    def _class_head(self, class_count: int) -> keras.layers.Dense:
        initializer = keras.initializers.GlorotUniform(self.seed + 500)
        return linear_head("class_head", self.hash_network.width, class_count, initializer)

    def make_batches(self, data: LearningData, stage: int) -> TrainingBatches:
        settings, sampler = self.settings, self.make_sampler(data)
        unlabelled = data.splits.unlabelled
        unlabelled_size = settings.unlabelled_group_size if len(unlabelled) else 0
        self._check_group(sampler.group_size + unlabelled_size)
        return TrainingBatches(
            data.inputs,
            labelled=data.labelled,
            unlabelled=unlabelled,
            sampler=sampler,
            groups=settings.groups,
            unlabelled_size=unlabelled_size,
            augment=self.space.augment,
            unlabelled_augment=self.space.unlabelled_augment,
            seed=(self.seed, stage),
            labels=data.labels[:, _classes(data)] if self.config.classification else None,
        )

    def _check_group(self, size: int) -> None:
        """UserError where a neighbour in a group of so many images could be a far one."""
        config = self.config
        first, _ = far_ranks(size - 1, config.far_from, config.far_to)
        if config.neighbours > first:
            raise UserError(
                f"`neighbours`: {config.neighbours}; allowed with `far_from`={config.far_from} in "
                f"groups of {size} images: at most {first} (`batch_size`, `unlabelled_batch_size`)"
            )


def _classes(data: LearningData) -> np.ndarray:
    """The classes that the class head tells apart: those of the labelled images."""
    return np.flatnonzero(data.labels[data.labelled].any(axis=0))
