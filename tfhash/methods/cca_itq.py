"""CCA-ITQ: ITQ on canonical correlations with the labels (Gong et al., PAMI 35(12), 2013)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from tfhash.errors import UserError
from tfhash.hashers.linear.rotation import iterative_quantization, random_rotation
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting


@dataclass(frozen=True)
class CCAITQConfig(Configuration):
    """The paper's hyperparameters."""

    iterations: int = setting(50, "alternations of codes and rotation", least=0)
    regularisation: float = setting(
        1e-4,
        "rho, added to the variances; more where images are few and features many",
        above=0,
        search=(1e-4, 1e-2, 1.0, 10.0),
    )


class CCAITQ(FeatureHasher):
    """Signs of the features' canonical directions to the labels, each as long as its correlation.

    There are as many directions as labels. For longer codes the rotation spreads them over more
    bits, as the paper's own code does.
    """

    Config = CCAITQConfig
    config: CCAITQConfig

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        labels = data.labels[:, data.labels.any(axis=0)].astype(np.float64)
        if labels.shape[1] < 2:
            raise UserError(
                f"`method`=cca_itq: {labels.shape[1]} classes have labelled images; at least 2 "
                "are needed"
            )
        features = data.labelled.astype(np.float64)
        centre = features.mean(axis=0)
        directions = canonical_directions(
            features - centre, labels - labels.mean(axis=0), self.config.regularisation
        )[:, : self.code_length]
        directions = np.pad(directions, ((0, 0), (0, self.code_length - directions.shape[1])))
        rotation = iterative_quantization(
            (features - centre) @ directions,
            random_rotation(self.code_length, self.seed),
            self.config.iterations,
        )
        projection = directions @ rotation
        return {"projection": projection, "offset": -centre @ projection}


def canonical_directions(x: np.ndarray, y: np.ndarray, regularisation: float) -> np.ndarray:
    """The w of the largest lambda in C_xy D_y^-1 C_yx w = lambda² D_x w, longest first: [F, L].

    x: centred features [n, F]; y: centred labels [n, L], L <= F. D is a covariance with
    regularisation on its diagonal. w' D_x w = lambda²: each is as long as its correlation.
    """
    count = len(x)
    cross = x.T @ y / count
    of_x = x.T @ x / count + regularisation * np.eye(x.shape[1])
    of_y = y.T @ y / count + regularisation * np.eye(y.shape[1])
    # w = D_x^-1 C_xy v makes it C_yx D_x^-1 C_xy v = lambda² D_y v, of the size of the labels.
    regression = linalg.solve(of_x, cross, assume_a="pos")
    _, vectors = linalg.eigh(cross.T @ regression, of_y)
    return regression @ vectors[:, ::-1]
