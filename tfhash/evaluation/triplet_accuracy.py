"""How often codes keep the order of a user's triplets: the judge where there are no labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfhash import given

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def triplet_accuracy(codes: ArrayLike) -> float:
    """The share of triplets whose positive is nearer to the query than the negative, in [0, 1].

    codes: packed uint8 [T, 3, ceil(k/8)] of query, positive and negative, T >= 1. Distances are
    Hamming's. A tie counts one half, as it does in expectation over its two orders; so codes
    without any information get .5. Raises ValueError for another dtype or shape.
    """
    codes = given.array(codes, "codes")
    if codes.dtype != np.uint8 or codes.ndim != 3 or codes.shape[1] != 3 or not codes.size:
        raise ValueError(
            "codes must be packed codes of query, positive and negative, uint8 [T >= 1, 3, width], "
            f"{given.got(codes)}"
        )
    query, positive, negative = codes[:, 0], codes[:, 1], codes[:, 2]
    nearer = np.bitwise_count(query ^ positive).sum(axis=1, dtype=int)
    farther = np.bitwise_count(query ^ negative).sum(axis=1, dtype=int)
    return float(((nearer < farther) + 0.5 * (nearer == farther)).mean())
