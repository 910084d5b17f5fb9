"""SSH: Semi-Supervised Hashing for Large-Scale Search (Wang, Kumar, Chang, PAMI 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from tfhash.errors import UserError
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting

LEARNING = ("sequential", "orthogonal", "nonorthogonal")


@dataclass(frozen=True)
class SSHConfig(Configuration):
    """The hyperparameters of SSH."""

    learning: str = setting(
        "sequential",
        "how the directions are learned: sequential, each corrects the mistakes of those before "
        "it, the best of the paper; orthogonal; or nonorthogonal",
        choices=LEARNING,
    )
    eta: float = setting(
        0.1,
        "weight of the variance over all images, against labelled pairs",
        least=0,
        search=(0.3, 1.0, 3.0),
    )
    alpha: float = setting(1.0, "step size by which wrong pairs gain weight (sequential)", least=0)
    rho: float = setting(0.1, "weight of orthogonality (nonorthogonal)", above=0)
    labelled_images: int = setting(
        2000, "most labelled images whose pairs are learned from; chosen at random", least=2
    )


class SSH(FeatureHasher):
    """Signs of linear projections that agree with labelled pairs and have a high variance.

    The directions are those of the greatest eigenvalues of the adjusted covariance
    M = X_l' S X_l / l^2 + eta X' X / n: S is 1 for pairs that share a label and -1 for others, X_l
    are the labelled features, X all of them. Means stand for the paper's sums, and features are
    scaled to mean squared norm 1, so that eta, alpha and rho mean the same for all data.
    """

    Config = SSHConfig

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        features = data.everything
        if self.code_length > features.shape[1]:
            raise UserError(
                f"`code_length`: {self.code_length}; `method`=ssh allows 1 to "
                f"{features.shape[1]}, the number of features"
            )
        covariance = (features.T @ features / len(features)).astype(np.float64)
        scale = np.trace(covariance)
        if scale == 0:
            raise UserError("`method`=ssh: all images have the same features")
        labelled, pairs = self._pairs(data)
        projection = self._directions(labelled / np.float32(scale**0.5), pairs, covariance / scale)
        return {"projection": projection, "offset": np.zeros(self.code_length)}

    def _pairs(self, data: FeatureData) -> tuple[np.ndarray, np.ndarray]:
        """The labelled features [l, F] that are learned from, and S [l, l]: float32."""
        count = min(len(data.labelled), self.config.labelled_images)
        rng = np.random.default_rng(self.seed)
        rows = np.sort(rng.choice(len(data.labelled), count, replace=False))
        similar = data.relevant(rows)
        if similar.all():
            raise UserError("`method`=ssh: all labelled images share a label; it needs two classes")
        return data.labelled[rows], np.where(similar, np.float32(1), np.float32(-1))

    def _directions(
        self, labelled: np.ndarray, pairs: np.ndarray, covariance: np.ndarray
    ) -> np.ndarray:
        config, bits = self.config, self.code_length
        if config.learning == "sequential":
            return sequential(labelled, pairs, covariance, bits, config.eta, config.alpha)
        adjusted = agreement(labelled, pairs) + config.eta * covariance
        if config.learning == "orthogonal":
            return top_eigenvectors(adjusted, bits)
        return nonorthogonal(adjusted, bits, config.rho)


def agreement(labelled: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """X_l' S X_l / l^2, whose form is how far projections agree with pairs: float64 [F, F]."""
    return (labelled.T @ (pairs @ labelled)).astype(np.float64) / len(labelled) ** 2


def top_eigenvectors(matrix: np.ndarray, count: int) -> np.ndarray:
    """Orthonormal columns W [F, count] that maximise tr(W' M W), the greatest eigenvalue first."""
    width = len(matrix)
    # The default driver can come back without vectors where eigenvalues are equal.
    _, vectors = scipy.linalg.eigh(matrix, subset_by_index=(width - count, width - 1), driver="evx")
    return vectors[:, ::-1]


def nonorthogonal(adjusted: np.ndarray, bits: int, rho: float) -> np.ndarray:
    """W = L U, the paper's answer to max tr(W' M W) / 2 - rho |W'W - I|^2 / 4: [F, bits].

    L L' = I + M / rho; U holds the top eigenvectors of M. With all F columns W makes the gradient
    0; fewer are an approximation. UserError where rho is too small for L.
    """
    lowest = scipy.linalg.eigvalsh(adjusted, subset_by_index=(0, 0), driver="evx")[0]
    if lowest <= -rho:
        raise UserError(f"`rho`: {rho}; allowed for these pairs: above {-lowest:.3g}")
    factor = np.linalg.cholesky(np.eye(len(adjusted)) + adjusted / rho)
    return factor @ top_eigenvectors(adjusted, bits)


def sequential(
    labelled: np.ndarray,
    pairs: np.ndarray,
    covariance: np.ndarray,
    bits: int,
    eta: float,
    alpha: float,
) -> np.ndarray:
    """Sequential projection learning (S3PLH): [F, bits].

    After each direction w, pairs on which the signs of x'w err gain weight, and the component
    along w leaves the covariance. The labelled features stay whole, as in the authors' code:
    labels may need a direction again, and the pairs already say what is left to do.
    """
    pairs = pairs.copy()
    directions = []
    for _ in range(bits):
        w = top_eigenvectors(agreement(labelled, pairs) + eta * covariance, 1)
        directions.append(w)
        reweigh(pairs, labelled @ w.astype(np.float32), alpha)
        covariance = covariance - (covariance @ w) @ w.T
        covariance -= w @ (w.T @ covariance)
    return np.hstack(directions)


def reweigh(pairs: np.ndarray, projected: np.ndarray, alpha: float) -> None:
    """S -= alpha T in place: T_ij = p_i p_j where its sign is not that of S_ij, else 0.

    pairs: float32 [l, l]; projected: p, float32 [l, 1].
    """
    product = projected @ projected.T
    product[product * pairs >= 0] = 0
    pairs -= alpha * product
