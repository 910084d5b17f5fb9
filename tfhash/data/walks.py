"""Walks on a bipartite graph of images and anchors, for methods that learn from neighbours."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from tfhash.data.pairs import InBatchPairs


@dataclass(frozen=True)
class AnchorWalks:
    """Walks image -> anchor -> image: where they end, the contexts of the first image.

    links: Z, sparse [n, m], weights at least 0, each row with one above 0. A walk goes from image i
    to anchor a with a probability as Z_ia, and from there to image c as Z_ca; so it ends at c with
    probability A_ic, A = Z diag(Z'1)^-1 Z' where rows of Z sum to 1.
    """

    links: scipy.sparse.csr_array

    @functools.cached_property
    def _to_anchors(self) -> _Choices:
        return _Choices(self.links.tocsr())

    @functools.cached_property
    def _to_images(self) -> _Choices:
        return _Choices(self.links.T.tocsr())

    def contexts(self, images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """The ends of `count` walks from each image: int64 [j] -> int64 [j, count]."""
        begins = np.repeat(images[:, np.newaxis], count, axis=1)
        return self._to_images(self._to_anchors(begins, rng), rng)


class _Choices:
    """One column of each row that is asked for, with a probability as its weight there."""

    def __init__(self, weights: scipy.sparse.csr_array):
        self.ends, self.columns = weights.indptr, weights.indices.astype(np.int64)
        # All rows laid end to end: a row's part begins at the total of what stands before it.
        self.totals = np.concatenate([[0.0], np.cumsum(weights.data, dtype=np.float64)])

    def __call__(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        first, last = self.ends[rows], self.ends[rows + 1] - 1
        begins, ends = self.totals[first], self.totals[last + 1]
        points = begins + rng.random(rows.shape) * (ends - begins)
        chosen = np.searchsorted(self.totals, points, side="right") - 1
        return self.columns[np.clip(chosen, first, last)]  # the sum above may round up to the end


@dataclass(frozen=True)
class PairsAndWalks:
    """All pairs within a group of labelled images, unlabelled ones, and contexts of all of them.

    pairs: draws the m labelled images; walks: on a graph whose images are the labelled ones, in
    their order, and then the unlabelled ones. unlabelled_size: u, of the unlabelled images of a
    group; contexts: walks that begin at each image; negatives: images drawn for each context,
    whatever they are. A sample has "images" and "pairs" of `pairs`, "unlabelled", and positions in
    the graph: "contexts" int64 [m + u, contexts], "negatives" [m + u, contexts * negatives].
    """

    pairs: InBatchPairs
    walks: AnchorWalks
    unlabelled_size: int
    contexts: int
    negatives: int

    @property
    def group_size(self) -> int:
        return self.pairs.group_size

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        drawn = self.pairs.sample(rng)
        labelled, images = len(self.pairs.labels), self.walks.links.shape[0]
        size = self.unlabelled_size if images > labelled else 0
        unlabelled = rng.integers(0, max(images - labelled, 1), size)
        members = np.concatenate([drawn["images"], labelled + unlabelled])
        contexts = self.walks.contexts(members, self.contexts, rng)
        negatives = rng.integers(0, images, (len(members), self.contexts * self.negatives))
        return {**drawn, "unlabelled": unlabelled, "contexts": contexts, "negatives": negatives}
