"""Retrieval metrics of binary codes: mAP, precision@N, precision within a radius, PR curve.

Everything follows from two histograms a query, of all items and of relevant items over Hamming
distance; nothing is sorted, but for `ties="stable"` and for the mAP of another project's
`convention`, and no query x database matrix is ever held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfhash.codes import is_whole, pack, to_words, validate_bits, validate_codes, word_distance
from tfhash.evaluation import conventions
from tfhash.evaluation.rankings import Ranking

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TIES = ("expected", "stable", "best", "worst")
CONVENTIONS = ("tfhash", *conventions.PEERS)

# Query-item pairs compared at a time: the tile's temporaries (about 30 bytes a pair) stay in cache.
_TILE_ITEMS = 1 << 16
# Queries whose histograms are held, and scored, at a time.
_QUERY_BLOCK = 256


@dataclass(frozen=True, eq=False)
class RetrievalMetrics:
    """What `evaluate` measured; every number is a mean over all queries, in [0, 1].

    map: R -> mAP@R, None for the whole ranking.
    precision_at: N -> precision@N.
    precision_radius: precision within Hamming distance `radius`.
    recall, precision: float64 [k + 1], within Hamming distance 0..k.
    """

    map: dict[int | None, float]
    precision_at: dict[int, float]
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
            **{"map" if r is None else f"map_at{r}": value for r, value in self.map.items()},
            **{f"precision_at{n}": value for n, value in self.precision_at.items()},
            f"precision_radius{self.radius}": self.precision_radius,
            "pr_curve": {"recall": self.recall.tolist(), "precision": self.precision.tolist()},
        }


def evaluate(
    query_codes: ArrayLike,
    database_codes: ArrayLike,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    *,
    code_length: int,
    map_at: int | None | Iterable[int | None] = (None,),
    precision_at: int | Iterable[int] = (),
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
    radius: Hamming distance, in bits.
    ties: the order of items at the same distance. "expected" gives the expectation over all
        orders, "stable" keeps the order of the database, "best" and "worst" put the relevant items
        first and last.
    convention: whose mAP. "tfhash" is the one below. "deephash-pytorch", "hashnet" and "thulab"
        give what the functions of those projects give for codes of -1 and 1 (`conventions`): mAP
        alone, in an order of ties of their own, while `ties` still decides precision@N.

    AP@R is the sum of the precision at each relevant item of the top R over the number of those
    items; "expected" is its expectation, also where R cuts a block of ties. A query with no
    relevant item in its top R counts 0. A ranking ends at the database's n items: an R or N beyond
    it means n, since a search that returned everything has nothing else to be judged by.

    A ball with no item in it has precision 0, and a query with no relevant item in the whole
    database has recall 0, in the means as in the precision-recall curve.

    Raises ValueError for codes, labels or options of another dtype, shape or range.
    """
    query_codes = validate_codes(query_codes, code_length, "query_codes")
    database_codes = validate_codes(database_codes, code_length, "database_codes")
    query_labels = validate_bits(query_labels, "query_labels")
    database_labels = validate_bits(database_labels, "database_labels")
    _validate_pairing(query_codes, database_codes, query_labels, database_labels)
    map_at = _depths(map_at, "map_at", or_none=True)
    precision_at = _depths(precision_at, "precision_at")
    _validate_options(radius, ties, convention)

    query_count, size = len(query_codes), len(database_codes)
    queries = _Items(to_words(query_codes), to_words(pack(query_labels)))
    database = _Items(to_words(database_codes), to_words(pack(database_labels)))
    # Differences of these cancel: at 59,000 items an AP is exact to 1e-10, not to the last digit.
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, size + 1))])
    mean_average_precision = dict.fromkeys(map_at if convention == "tfhash" else (), 0.0)
    mean_precision = dict.fromkeys(precision_at, 0.0)
    recall_curve, precision_curve = np.zeros(code_length + 1), np.zeros(code_length + 1)
    block = max(1, _TILE_ITEMS // size) if ties == "stable" else _QUERY_BLOCK
    for rows in _slices(query_count, block):
        part = queries.part(rows)
        counts = _histograms(part, database, code_length + 1)
        ranking = _item_blocks(part, database) if ties == "stable" else _tie_blocks(counts, ties)
        for depth in mean_average_precision:
            ap = ranking.average_precision(depth or size, harmonic)
            mean_average_precision[depth] += ap.sum() / query_count
        for depth in mean_precision:
            top = min(depth, size)
            mean_precision[depth] += (ranking.relevant_in_top(top) / top).sum() / query_count
        recall, precision = _balls(counts)
        recall_curve += recall.sum(axis=0) / query_count
        precision_curve += precision.sum(axis=0) / query_count
    if convention != "tfhash":
        block = max(1, _TILE_ITEMS // size)
        compared = (_compare(queries.part(r), database) for r in _slices(query_count, block))
        mean_average_precision = conventions.mean_average_precision(
            convention, compared, code_length, map_at
        )
    return RetrievalMetrics(
        map={depth: float(value) for depth, value in mean_average_precision.items()},
        precision_at={depth: float(value) for depth, value in mean_precision.items()},
        precision_radius=float(precision_curve[min(radius, code_length)]),
        recall=recall_curve,
        precision=precision_curve,
        query_count=query_count,
        database_size=size,
        ties=ties,
        radius=radius,
        convention=convention,
    )


class _Items(NamedTuple):
    """Codes and multi-hot labels as the words of `to_words`, uint64 [words, n]."""

    codes: np.ndarray
    labels: np.ndarray

    def part(self, rows: slice) -> _Items:
        return _Items(self.codes[:, rows], self.labels[:, rows])


def _tie_blocks(counts: np.ndarray, ties: str) -> Ranking:
    """The ranking that histograms [q, distances, 2] (irrelevant, relevant) stand for.

    Under "best" and "worst" each distance is two blocks, in which all items are alike.
    """
    if ties == "expected":
        return Ranking(counts.sum(axis=2), counts[:, :, 1])
    hits = counts * np.array([0, 1])
    if ties == "best":
        counts, hits = counts[:, :, ::-1], hits[:, :, ::-1]
    return Ranking(counts.reshape(len(counts), -1), hits.reshape(len(hits), -1))


def _item_blocks(queries: _Items, database: _Items) -> Ranking:
    """The ranking that keeps ties in the order of the database: each item is its own block."""
    distance, relevant = _compare(queries, database)
    # A stable sort of 16-bit integers is a radix sort.
    order = np.argsort(distance, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1).astype(np.int64)
    return Ranking(np.ones_like(hits), hits)


def _balls(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision within each distance, both float64 [q, distances]."""
    items = np.cumsum(counts.sum(axis=2), axis=1)
    hits = np.cumsum(counts[:, :, 1], axis=1)
    return hits / np.maximum(hits[:, -1:], 1), hits / np.maximum(items, 1)


def _histograms(queries: _Items, database: _Items, distances: int) -> np.ndarray:
    """Irrelevant and relevant items at each distance, int64 [q, distances, 2]."""
    query_count, size = queries.codes.shape[1], database.codes.shape[1]
    counts = np.zeros((query_count, distances, 2), np.int64)
    for columns in _slices(size, _TILE_ITEMS):
        items = database.part(columns)
        for rows in _slices(query_count, max(1, _TILE_ITEMS // size)):
            distance, relevant = _compare(queries.part(rows), items)
            # 2 * distance + relevant, in place while entries are narrow.
            distance <<= 1
            distance |= relevant
            tile = counts[rows]
            first_bin = np.arange(0, tile.size, 2 * distances)
            bins = distance + first_bin[:, None]
            tile += np.bincount(bins.ravel(), minlength=tile.size).reshape(tile.shape)
    return counts


def _compare(queries: _Items, database: _Items) -> tuple[np.ndarray, np.ndarray]:
    """Hamming distance, uint16 [q, n], and whether a label is shared, bool [q, n]."""
    distance = word_distance(queries.codes, database.codes)
    relevant = np.zeros(distance.shape, bool)
    for query_word, database_word in zip(queries.labels, database.labels, strict=True):
        relevant |= (query_word[:, None] & database_word) != 0
    return distance, relevant


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, count, step))


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
