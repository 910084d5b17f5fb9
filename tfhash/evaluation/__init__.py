"""How well codes retrieve: metrics, other projects' conventions, triplet accuracy. NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfhash.evaluation import retrieval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def evaluate(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    *,
    code_length: int,
    **options: Any,
) -> retrieval.RetrievalMetrics:
    """Retrieval metrics of packed codes; `.map[None]` is the mAP over the whole ranking.

    query_codes, database_codes: packed uint8 [q, w] and [n, w]. query_labels, database_labels:
    integers [q] and [n], -1 where there is none, or multi-hot [q, C] and [n, C]; relevant is what
    shares a label. options: map_at, precision_at, radius, ties, convention, as
    `retrieval.evaluate` has them. Raises ValueError for anything else.
    """
    query_labels, database_labels = np.asarray(query_labels), np.asarray(database_labels)
    if query_labels.ndim != database_labels.ndim:
        raise ValueError(
            f"labels: {query_labels.ndim}-dimensional of queries and "
            f"{database_labels.ndim}-dimensional of the database; expected the same kind"
        )
    if query_labels.ndim == 1:
        for name, of in (("query_labels", query_labels), ("database_labels", database_labels)):
            if of.dtype.kind not in "iu":
                raise ValueError(f"{name}: expected integers or multi-hot, received {of.dtype}")
        classes = np.unique(np.concatenate([query_labels, database_labels]))
        classes = classes[classes >= 0]
        query_labels, database_labels = (
            (of[:, None] == classes).astype(np.uint8) for of in (query_labels, database_labels)
        )
    return retrieval.evaluate(
        query_codes,
        database_codes,
        query_labels,
        database_labels,
        code_length=code_length,
        **options,
    )
