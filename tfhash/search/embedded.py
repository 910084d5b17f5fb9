"""The nearest in the order that H(x) of the query gives them: asymmetric re-ranking.

A code forgets how sure each bit was. Of the candidates near the query's code, those come first
whose bits its embedding makes likeliest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfhash import codes as code_arrays
from tfhash.errors import UserError
from tfhash.search import scan

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def check(embeddings: ArrayLike, count: int, code_length: int) -> np.ndarray:
    """The embeddings as float32 [count, code_length]; UserError for others, and beyond [0, 1]."""
    found = np.asarray(embeddings)
    if found.shape != (count, code_length) or found.dtype.kind != "f":
        raise UserError(
            f"`embeddings`: {found.dtype} {list(found.shape)}; allowed: float "
            f"[{count}, {code_length}]"
        )
    if not (found.min(initial=0) >= 0 and found.max(initial=1) <= 1):
        raise UserError("`embeddings`: below 0 or above 1, or NaN; allowed: 0 to 1")
    return found.astype(np.float32)


def by_score(
    found: scan.Rows, codes: np.ndarray, rank: np.ndarray, relaxed: np.ndarray, most: int | None
) -> tuple[scan.Rows, np.ndarray]:
    """Found rows in the order of their scores, the first `most` of them, and the scores.

    codes: uint64 [rows, words]; rank: [rows], their order at one score and distance; relaxed:
    float32 [code_length]. ties_cut: how many other rows of `found` have the score of the last one.
    """
    bits = code_arrays.unpack(scan.to_codes(codes[found.rows], len(relaxed)), len(relaxed))
    scores = np.abs(relaxed - bits).sum(axis=1, dtype=np.float32)
    order = np.lexsort((rank[found.rows], found.distances, scores))[:most]
    kept = scan.Rows(found.rows[order], found.distances[order], scan.cut_of(scores, order))
    return kept, scores[order]
