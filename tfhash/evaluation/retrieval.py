"""Retrieval metrics of binary codes: mAP, precision@N, precision within a radius, PR curve.

And of several labels, by how many are shared: NDCG@R, ACG@R, weighted mAP.

Everything follows from a histogram a query, of items over Hamming distance and grade (relevant or
not, or the number of shared labels); nothing is sorted, but for `ties="stable"` and for the mAP of
another project's `convention`, and no query x database matrix is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tfhash.codes import is_whole, pack, to_words, validate_bits, validate_codes
from tfhash.evaluation import conventions, histograms, rankings
from tfhash.evaluation.histograms import Items, compare, slices
from tfhash.evaluation.rankings import Ranking

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TIES = ("expected", "stable", "best", "worst")
CONVENTIONS = ("tfhash", *conventions.PEERS)

# Queries whose histograms are held, and scored, at a time; fewer where these have more cells.
_QUERY_BLOCK = 256
_CELLS = 1 << 20


@dataclass(frozen=True, eq=False)
class RetrievalMetrics:
    """What `evaluate` measured; every number is a mean over all queries.

    In [0, 1], but acg_at and weighted_map in [0, C], C being the number of labels.

    map: R -> mAP@R, None for the whole ranking.
    precision_at: N -> precision@N.
    ndcg: R -> NDCG@R, None for the whole ranking. acg_at: R -> ACG@R. weighted_map: as map.
    precision_radius: precision within Hamming distance `radius`.
    recall, precision: float64 [k + 1], within Hamming distance 0..k.
    """

    map: dict[int | None, float]
    precision_at: dict[int, float]
    ndcg: dict[int | None, float]
    acg_at: dict[int, float]
    weighted_map: dict[int | None, float]
    precision_radius: float
    recall: np.ndarray
    precision: np.ndarray
    query_count: int
    database_size: int
    ties: str
    radius: int
    convention: str

    def to_json(self) -> dict[str, Any]:
        """The entries of metrics.json that retrieval decides, as plain Python values."""
        return {
            "query_count": self.query_count,
            "database_size": self.database_size,
            "ties": self.ties,
            "convention": self.convention,
            **_keyed("map", self.map),
            **_keyed("precision", self.precision_at),
            **_keyed("ndcg", self.ndcg),
            **_keyed("acg", self.acg_at),
            **_keyed("weighted_map", self.weighted_map),
            f"precision_radius{self.radius}": self.precision_radius,
            "pr_curve": {"recall": self.recall.tolist(), "precision": self.precision.tolist()},
        }


def _keyed(name: str, values: dict[Any, float]) -> dict[str, float]:
    return {name if r is None else f"{name}_at{r}": value for r, value in values.items()}


def evaluate(
    query_codes: ArrayLike,
    database_codes: ArrayLike,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    *,
    code_length: int,
    map_at: int | None | Iterable[int | None] = (None,),
    precision_at: int | Iterable[int] = (),
    ndcg_at: int | None | Iterable[int | None] = (),
    acg_at: int | Iterable[int] = (),
    weighted_map_at: int | None | Iterable[int | None] = (),
    radius: int = 2,
    ties: str = "expected",
    convention: str = "tfhash",
) -> RetrievalMetrics:
    """Ranks the database by Hamming distance to each query and measures the rankings.

    query_codes, database_codes: packed uint8 [nq, ceil(k / 8)] and [n, ceil(k / 8)].
    query_labels, database_labels: multi-hot uint8 [nq, C] and [n, C]; an item is relevant to a
        query that it shares a label with.
    code_length: k, in bits.
    map_at: the R of mAP@R, one or several; None takes the whole ranking.
    precision_at: the N of precision@N, one or several.
    ndcg_at, acg_at, weighted_map_at: the R of NDCG@R, ACG@R and weighted mAP@R, one or several;
        None takes the whole ranking, but not of ACG.
    radius: Hamming distance, in bits.
    ties: the order of items at the same distance. "expected" gives the expectation over all
        orders, "stable" keeps the order of the database, "best" and "worst" put the items first
        and last that are relevant, and of these those that share more labels.
    convention: whose mAP. "tfhash" is the one below. "deephash-pytorch", "hashnet" and "thulab"
        give what the functions of those projects give for codes of -1 and 1 (`conventions`): mAP
        alone, in an order of ties of their own, while `ties` still decides all else.

    AP@R is the sum of the precision at each relevant item of the top R over the number of those
    items; "expected" is its expectation, also where R cuts a block of ties. A query with no
    relevant item in its top R counts 0. A ranking ends at the database's n items: an R or N beyond
    it means n, since a search that returned everything has nothing else to be judged by.

    With r_i, the number of labels that a query shares with the item at rank i (Zhao et al., CVPR
    2015): ACG@R is the mean of r_i over the top R. NDCG@R is the sum of (2^r_i - 1) / log2(1 + i)
    over the top R, divided by that of the database in the order of r. Weighted AP@R is the mean of
    ACG@i over the ranks i of the top R with r_i > 0. A query that shares no label with an item, or
    in its top R, counts 0, as in mAP. Of one label an item ACG is the precision, and weighted mAP
    is mAP.

    A ball with no item in it has precision 0, and a query with no relevant item in the whole
    database has recall 0, in the means as in the precision-recall curve.

    Raises ValueError for codes, labels or options of another dtype, shape or range.
    """
    query_codes = validate_codes(query_codes, code_length, "query_codes")
    database_codes = validate_codes(database_codes, code_length, "database_codes")
    query_labels = validate_bits(query_labels, "query_labels")
    database_labels = validate_bits(database_labels, "database_labels")
    _validate_pairing(query_codes, database_codes, query_labels, database_labels)
    depths = {
        "map": _depths(map_at, "map_at", or_none=True),
        "precision": _depths(precision_at, "precision_at"),
        "ndcg": _depths(ndcg_at, "ndcg_at", or_none=True),
        "acg": _depths(acg_at, "acg_at"),
        "weighted_map": _depths(weighted_map_at, "weighted_map_at", or_none=True),
    }
    _validate_options(radius, ties, convention)

    query_count, size, distances = len(query_codes), len(database_codes), code_length + 1
    queries = Items(to_words(query_codes), to_words(pack(query_labels)))
    database = Items(to_words(database_codes), to_words(pack(database_labels)))
    graded = any(depths[name] for name in ("ndcg", "acg", "weighted_map"))
    grades = max(2, 1 + _most_shared(query_labels, database_labels)) if graded else 2
    measures = _measures(size)
    means = {name: dict.fromkeys(depths[name], 0.0) for name in measures}
    if convention != "tfhash":
        means["map"] = {}
    recall_curve, precision_curve = np.zeros(distances), np.zeros(distances)
    of_pairs = max(1, histograms.TILE_ITEMS // size)
    of_cells = max(1, min(_QUERY_BLOCK, _CELLS // (distances * grades)))
    for rows in slices(query_count, min(of_pairs, of_cells) if ties == "stable" else of_cells):
        part = queries.part(rows)
        counts = histograms.histograms(part, database, distances, grades)
        if ties == "stable":
            ranking = _item_blocks(part, database, graded)
        else:
            ranking = rankings.of_ties(counts, ties)
        ideal = rankings.ideal(counts)
        for name, measure in measures.items():
            for depth in means[name]:
                of_query = measure(ranking, ideal, min(depth or size, size))
                means[name][depth] += of_query.sum() / query_count
        recall, precision = _balls(counts)
        recall_curve += recall.sum(axis=0) / query_count
        precision_curve += precision.sum(axis=0) / query_count
    if convention != "tfhash":
        compared = (compare(queries.part(r), database) for r in slices(query_count, of_pairs))
        means["map"] = conventions.mean_average_precision(
            convention, compared, code_length, depths["map"]
        )
    found = {
        name: {depth: float(value) for depth, value in of_depth.items()}
        for name, of_depth in means.items()
    }
    return RetrievalMetrics(
        map=found["map"],
        precision_at=found["precision"],
        ndcg=found["ndcg"],
        acg_at=found["acg"],
        weighted_map=found["weighted_map"],
        precision_radius=float(precision_curve[min(radius, code_length)]),
        recall=recall_curve,
        precision=precision_curve,
        query_count=query_count,
        database_size=size,
        ties=ties,
        radius=radius,
        convention=convention,
    )


def _measures(size: int) -> dict[str, Callable[[Ranking, Ranking, int], np.ndarray]]:
    """What is measured of rankings of `size` items, their ideal and a depth: float64 [q]."""
    ranks = np.arange(1, size + 1)
    # Differences of these cancel: at 59,000 items an AP is exact to 1e-10, not to the last digit.
    harmonic = rankings.cumulated(1.0 / ranks)
    discounts = rankings.cumulated(1.0 / np.log2(1.0 + ranks))
    return {
        "map": lambda ranking, _, top: ranking.average_precision(top, harmonic),
        "precision": lambda ranking, _, top: ranking.relevant_in_top(top) / top,
        "ndcg": lambda ranking, ideal, top: rankings.share(
            ranking.discounted_gain(top, discounts), ideal.discounted_gain(top, discounts)
        ),
        "acg": lambda ranking, _, top: ranking.shared_in_top(top) / top,
        "weighted_map": lambda ranking, _, top: ranking.weighted_average_precision(top, harmonic),
    }


def _item_blocks(queries: Items, database: Items, graded: bool) -> Ranking:
    """The ranking that keeps ties in the order of the database: each item is its own block."""
    distance, grade = compare(queries, database, graded)
    # A stable sort of 16-bit integers is a radix sort.
    order = np.argsort(distance, axis=1, kind="stable")
    return rankings.of_items(np.take_along_axis(grade, order, axis=1))


def _balls(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision within each distance, both float64 [q, distances]."""
    items = np.cumsum(counts.sum(axis=2), axis=1)
    hits = np.cumsum(counts[:, :, 1:].sum(axis=2), axis=1)
    return hits / np.maximum(hits[:, -1:], 1), hits / np.maximum(items, 1)


def _most_shared(query_labels: np.ndarray, database_labels: np.ndarray) -> int:
    """A number of labels that no query and item share more than."""
    counts = (labels.sum(axis=1, dtype=int).max() for labels in (query_labels, database_labels))
    return int(min(counts))


def _validate_pairing(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
) -> None:
    for name, items, labels in (
        ("query", query_codes, query_labels),
        ("database", database_codes, database_labels),
    ):
        if not len(items):
            raise ValueError(f"{name}_codes must hold at least one code, got none")
        if len(items) != len(labels):
            raise ValueError(
                f"{name}_labels must have a row for each of the {len(items)} {name}_codes, "
                f"got {len(labels)}"
            )
    if query_labels.shape[1] != database_labels.shape[1]:
        raise ValueError(
            "query_labels and database_labels must have the same number of columns, "
            f"got {query_labels.shape[1]} and {database_labels.shape[1]}"
        )


def _depths(value: Any, name: str, or_none: bool = False) -> tuple:
    """One depth or several as a tuple of them."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    several = isinstance(value, Iterable) and not isinstance(value, str)
    depths = tuple(value) if several else (value,)
    for depth in depths:
        if not (depth is None and or_none) and not (is_whole(depth) and depth >= 1):
            allowed = "integers >= 1 or None" if or_none else "integers >= 1"
            raise ValueError(f"{name} must hold {allowed}, got {depth!r}")
    return depths


def _validate_options(radius: int, ties: str, convention: str) -> None:
    if not is_whole(radius) or radius < 0:
        raise ValueError(f"radius must be an integer >= 0, got {radius!r}")
    if ties not in TIES:
        raise ValueError(f"ties must be one of {', '.join(TIES)}, got {ties!r}")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
