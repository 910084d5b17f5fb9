"""LSH: random hyperplanes (Charikar, "Similarity Estimation Techniques", STOC 2002)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration


@dataclass(frozen=True)
class LSHConfig(Configuration):
    """LSH has no hyperparameters."""


class LSH(FeatureHasher):
    """Signs of the products with k directions from N(0, I). Nothing is learned but the centre."""

    Config = LSHConfig
    learns_from_labels = False

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        width = data.everything.shape[1]
        directions = np.random.default_rng(self.seed).standard_normal((width, self.code_length))
        return {"projection": directions, "offset": np.zeros(self.code_length)}
