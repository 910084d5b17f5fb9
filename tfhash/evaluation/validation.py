"""mAP of validation images, by which settings are chosen: no query has a say in it."""

from __future__ import annotations

import numpy as np

from tfhash.evaluation import retrieval

# The keys of metrics.json and the logs.
AMONG_LABELLED = "validation_map"
HELD_OUT = "validation_held_out_map"
_FOLDS = 10


def validation_maps(
    validation: np.ndarray,
    labelled: np.ndarray,
    validation_labels: np.ndarray,
    labelled_labels: np.ndarray,
    code_length: int,
) -> dict[str, float]:
    """Both mAPs of validation images as queries; one that has nothing to rank is left out.

    validation, labelled: packed codes uint8 [n, ceil(k/8)]; their labels: multi-hot uint8 [n, C].
    AMONG_LABELLED ranks the labelled images. These were learned from, so it is high where they are
    known by heart. HELD_OUT ranks other validation images, see `held_out_map`.
    """
    if not len(validation):
        return {}
    metrics = retrieval.evaluate(
        validation, labelled, validation_labels, labelled_labels, code_length=code_length
    )
    maps = {AMONG_LABELLED: metrics.map[None]}
    held_out = held_out_map(validation, validation_labels, code_length)
    return maps if held_out is None else maps | {HELD_OUT: held_out}


def held_out_map(codes: np.ndarray, labels: np.ndarray, code_length: int) -> float | None:
    """mAP of items among each other: packed codes uint8 [n, ceil(k/8)], labels multi-hot [n, C].

    Each is a query. Its database is what is not of its fold, the folds being every tenth item; so
    none is ranked for itself. Items that share no label with their database are no queries; None
    where none is left.
    """
    folds = np.arange(len(codes)) % _FOLDS
    total, count = 0.0, 0
    for fold in range(_FOLDS):
        mine, others = folds == fold, folds != fold
        related = labels[others].any(axis=0)
        queries = np.flatnonzero(mine & labels[:, related].any(axis=1))
        if len(queries):
            metrics = retrieval.evaluate(
                codes[queries], codes[others], labels[queries], labels[others],
                code_length=code_length,
            )  # fmt: skip
            total += metrics.map[None] * len(queries)
            count += len(queries)
    return total / count if count else None
