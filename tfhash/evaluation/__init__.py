"""How well codes retrieve: metrics, other projects' conventions, triplet accuracy. NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfhash import given
from tfhash.evaluation import retrieval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def evaluate(
    query_codes: ArrayLike,
    database_codes: ArrayLike,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    *,
    code_length: int,
    **options: Any,
) -> retrieval.RetrievalMetrics:
    """Retrieval metrics of packed codes; `.map[None]` is the mAP over the whole ranking.

    query_codes, database_codes: packed uint8 [q, w] and [n, w]. query_labels, database_labels:
    integers [q] and [n], -1 where there is none, or multi-hot [q, C] and [n, C]; relevant is what
    shares a label. options: map_at, precision_at, ndcg_at, acg_at, weighted_map_at, radius, ties,
    convention, as `retrieval.evaluate` has them. Raises ValueError for anything else.
    """
    of_query = given.array(query_labels, "query_labels")
    of_database = given.array(database_labels, "database_labels")
    if of_query.ndim != of_database.ndim:
        raise ValueError(
            f"labels: {of_query.ndim}-dimensional of queries and "
            f"{of_database.ndim}-dimensional of the database; expected the same kind: class "
            "numbers [n] both, or one-hot both, as by np.eye(C, dtype=np.uint8)[labels]"
        )
    if of_query.ndim == 1:
        for name, of in (("query_labels", of_query), ("database_labels", of_database)):
            if of.dtype.kind not in "iu":
                raise ValueError(
                    f"{name}: expected integers or multi-hot, received {of.dtype}; of whole "
                    f"numbers, give {name}.astype(int), of names np.unique(names, "
                    "return_inverse=True)[1] of all of them"
                )
        classes = np.unique(np.concatenate([of_query, of_database]))
        classes = classes[classes >= 0]
        of_query, of_database = (
            (of[:, None] == classes).astype(np.uint8) for of in (of_query, of_database)
        )
    return retrieval.evaluate(
        query_codes,
        database_codes,
        of_query,
        of_database,
        code_length=code_length,
        **options,
    )
