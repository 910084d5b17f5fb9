"""ITQ: PCA and iterative quantization (Gong and Lazebnik, CVPR 2011; PAMI 35(12), 2013)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from tfhash.errors import UserError
from tfhash.hashers.linear.rotation import iterative_quantization, random_rotation
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting


@dataclass(frozen=True)
class ITQConfig(Configuration):
    """The paper's hyperparameter."""

    iterations: int = setting(
        50, "alternations of codes and rotation; 0: PCA, randomly rotated", least=0
    )


class ITQ(FeatureHasher):
    """Signs of the first k principal components, rotated to lose the least by that."""

    Config = ITQConfig
    learns_from_labels = False
    config: ITQConfig

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        everything = data.everything
        if self.code_length > min(everything.shape):
            raise UserError(
                f"`code_length`: {self.code_length}; ITQ has at most {min(everything.shape)} "
                "bits here, as many as principal components"
            )
        pca = PCA(self.code_length, svd_solver="covariance_eigh").fit(everything)
        projected = pca.transform(everything).astype(np.float64)
        rotation = iterative_quantization(
            projected, random_rotation(self.code_length, self.seed), self.config.iterations
        )
        projection = pca.components_.T @ rotation
        return {"projection": projection, "offset": -pca.mean_ @ projection}
