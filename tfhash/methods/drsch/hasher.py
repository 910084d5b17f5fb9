"""DRSCH: bit-scalable deep hashing with regularised similarity (Zhang et al., TIP 2015)."""

from __future__ import annotations

from tfhash.data.learning import LearningData
from tfhash.data.triplets import check_group_size
from tfhash.errors import UserError
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.methods.drsch.config import DRSCHConfig
from tfhash.methods.drsch.sampler import ImagesOfClasses
from tfhash.methods.drsch.stage import DRSCHStage
from tfhash.training.stage import Stage


class DRSCH(HashNetworkHasher):
    """H trained with all triplets of groups of images, which take m³ numbers for m images.

    Two images of a triplet share a label, and the third shares none with the first; an image may
    have several labels. What `triplets` and `triplets_per_query` say has no effect.
    """

    Config = DRSCHConfig
    config: DRSCHConfig
    paper_backbones = ("cuda_convnet",)  # of its own, not among the backbones
    takes_triplets = False

    @property
    def variant(self) -> str | None:
        return None if self.config.regularised else self.config.variant

    def make_sampler(self, data: LearningData) -> ImagesOfClasses:
        labels = data.labels[data.labelled]
        return ImagesOfClasses(labels, self.settings.group_size, self.config.classes_per_group)

    def make_stage(self, data: LearningData) -> Stage:
        config, size = self.config, self.settings.group_size
        check_group_size(size)
        if config.regularised and config.neighbours >= size:
            raise UserError(
                f"`neighbours`: {config.neighbours}; allowed: at most {size - 1}, the other images "
                "of a group (`batch_size`, `groups`)"
            )
        return DRSCHStage(
            self.hash_network,
            config,
            code_length=self.code_length,
            steps=self.settings.steps,
            seed=self.seed,
        )
