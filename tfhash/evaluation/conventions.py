"""mAP as other projects count it, of the same distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Convention(NamedTuple):
    """How another project makes mAP of Hamming distances.

    order: takes distances float32 [q, n], k and R; the items that it ranks, int [q, R].
    drops_queries: whether a query with no relevant item in its top R is left out of the mean.
    """

    order: Callable[[np.ndarray, np.float32, int | None], np.ndarray]
    drops_queries: bool


def _deephash_pytorch_order(
    distance: np.ndarray, code_length: np.float32, depth: int | None
) -> np.ndarray:
    # For the whole ranking its R is -1, and a slice that ends there leaves the last item out.
    return np.argsort(distance, axis=1)[:, : depth or -1]


def _hashnet_order(distance: np.ndarray, code_length: np.float32, depth: int | None) -> np.ndarray:
    return np.argsort(-(code_length - 2 * distance), axis=1)[:, :depth]


def _thulab_order(distance: np.ndarray, code_length: np.float32, depth: int | None) -> np.ndarray:
    product = -(code_length - 2 * distance)
    depth = min(depth or product.shape[1], product.shape[1])
    top = np.argpartition(product, depth - 1, axis=1)[:, :depth]
    order = np.argsort(np.take_along_axis(product, top, axis=1), axis=1)
    return np.take_along_axis(top, order, axis=1)


# Read in swuxyj/DeepHash-pytorch (utils/tools.py, CalcTopMap, ab14068), thuml/HashNet
# (pytorch/src/test.py, mean_average_precision, 85387b8) and thulab/DeepHash
# (DeepHash/evaluation/__init__.py, get_mAPs of its after_sign, 9907613). Each sorts float32 numbers
# by NumPy's default, which is not stable. So does this, the same numbers by the same calls: ties
# come out as theirs do from the same NumPy, on the same processor, of the same database order.
# Their sign of an output of 0 is 0, or drawn at random; packed codes have no such bit.
PEERS = {
    "deephash-pytorch": Convention(_deephash_pytorch_order, drops_queries=False),
    "hashnet": Convention(_hashnet_order, drops_queries=True),
    "thulab": Convention(_thulab_order, drops_queries=True),
}


def mean_average_precision(
    name: str,
    compared: Iterable[tuple[np.ndarray, np.ndarray]],
    code_length: int,
    depths: Sequence[int | None],
) -> dict[int | None, float]:
    """mAP@R of every R in depths; 0 where each query is dropped, which they make a mean of none.

    name: of PEERS. compared: for some queries at a time, Hamming distances [q, n] and what is
    relevant, bool [q, n].
    """
    convention = PEERS[name]
    sums, judged = dict.fromkeys(depths, 0.0), dict.fromkeys(depths, 0)
    for distance, relevant in compared:
        distance = distance.astype(np.float32)
        for depth in sums:
            order = convention.order(distance, np.float32(code_length), depth)
            hits = np.take_along_axis(relevant, order, axis=1)
            found = hits.sum(axis=1)
            precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
            sums[depth] += ((precisions * hits).sum(axis=1) / np.maximum(found, 1)).sum()
            counted = np.count_nonzero(found) if convention.drops_queries else len(found)
            judged[depth] += int(counted)
    return {depth: sums[depth] / max(judged[depth], 1) for depth in sums}
