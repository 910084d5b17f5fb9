"""SDH: Supervised Discrete Hashing (Shen, Shen, Liu, Shen, CVPR 2015), with the l2 loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from tfhash.errors import UserError
from tfhash.hashers.linear import kernels
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting

_CYCLES = 10  # over the bits at most, in one update of the codes; fewer where none changes


@dataclass(frozen=True)
class SDHConfig(Configuration):
    """The hyperparameters of SDH."""

    anchors: int = setting(
        1000,
        "anchors of the RBF kernel, labelled images chosen at random",
        least=1,
        search=(300, 1000),
    )
    classifier_weight: float = setting(
        1.0, "lambda: weight of the classifier's squared norm", above=0, search=(0.1, 1.0, 10.0)
    )
    hash_weight: float = setting(
        1e-5,
        "nu: weight of the difference of codes and hash functions",
        above=0,
        search=(1e-5, 1e-3, 1e-1),
    )
    ridge: float = setting(
        0.01, "weight of the hash functions' squared norm; 0 in the paper", above=0
    )
    iterations: int = setting(5, "iterations: classifier, hash functions, codes", least=1)


class SDH(FeatureHasher):
    """Signs of kernel functions that fit codes from which a linear classifier tells the labels.

    Codes B in {-1, 1}, classifier W and hash functions P minimise
    |Y - BW|^2 + lambda |W|^2 + nu (|B - K P|^2 + ridge |P|^2), for labels Y and the kernel K of
    labelled images and anchors; the paper's F(x) is P'k(x).
    """

    Config = SDHConfig

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        if data.relevant().all():
            raise UserError("`method`=sdh: all labelled images share a label; it needs two classes")
        rng = np.random.default_rng(self.seed)
        anchors = kernels.choose_anchors(data.labelled, self.config.anchors, rng)
        width = kernels.typical_distance(data.labelled, anchors)
        kernel = kernels.rbf(data.labelled, anchors, width).astype(np.float64)
        start = rng.choice([-1.0, 1.0], (len(kernel), self.code_length))
        _, projection = discrete_hashing(kernel, data.labels.astype(np.float64), start, self.config)
        offset = np.zeros(self.code_length)
        return {
            "anchors": anchors,
            "width": np.asarray(width),
            "projection": projection,
            "offset": offset,
        }

    scores = staticmethod(kernels.kernel_scores)


def discrete_hashing(
    kernel: np.ndarray, labels: np.ndarray, codes: np.ndarray, config: SDHConfig
) -> tuple[np.ndarray, np.ndarray]:
    """B [l, k] and P [m, k] after the alternating minimisation of SDH.

    kernel: K [l, m]; labels: Y [l, C]; codes: B [l, k] in {-1, 1} to begin with. All float64.
    """
    codes = codes.copy()
    # Factored once: the kernel stays the same.
    gram = scipy.linalg.cho_factor(kernel.T @ kernel + config.ridge * np.eye(kernel.shape[1]))
    for _ in range(config.iterations):
        classifier = regress(codes, labels, config.classifier_weight)
        projection = scipy.linalg.cho_solve(gram, kernel.T @ codes)
        update_codes(codes, labels, classifier, config.hash_weight * kernel @ projection)
    return codes, scipy.linalg.cho_solve(gram, kernel.T @ codes)


def regress(inputs: np.ndarray, targets: np.ndarray, weight: float) -> np.ndarray:
    """W that minimises |targets - inputs W|^2 + weight |W|^2: [k, C]."""
    gram = inputs.T @ inputs + weight * np.eye(inputs.shape[1])
    return scipy.linalg.solve(gram, inputs.T @ targets, assume_a="pos")


def update_codes(
    codes: np.ndarray, labels: np.ndarray, classifier: np.ndarray, hashed: np.ndarray
) -> None:
    """Discrete cyclic coordinate descent (DCC), in place.

    Bit by bit of codes B [l, k], that of every image becomes the one that minimises
    |Y - BW|^2 - 2 tr(B' hashed), given its others: z = sgn(q - B'W'v). hashed: nu K P [l, k].
    """
    pull = labels @ classifier.T + hashed
    push = classifier @ classifier.T
    np.fill_diagonal(push, 0)
    for _ in range(_CYCLES):
        before = codes.copy()
        for bit in range(codes.shape[1]):
            sign = pull[:, bit] - codes @ push[:, bit]
            codes[:, bit] = np.where(sign == 0, codes[:, bit], np.sign(sign))
        if np.array_equal(codes, before):
            return
