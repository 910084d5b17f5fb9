"""What a query finds at each distance: comparisons of codes and labels, a tile at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tfhash.codes import word_distance

# Query-item pairs compared at a time: the tile's temporaries (about 30 bytes a pair) stay in cache.
TILE_ITEMS = 1 << 16


class Items(NamedTuple):
    """Codes and multi-hot labels as the words of `to_words`, uint64 [words, n]."""

    codes: np.ndarray
    labels: np.ndarray

    def part(self, rows: slice) -> Items:
        return Items(self.codes[:, rows], self.labels[:, rows])


def histograms(queries: Items, database: Items, distances: int, grades: int = 2) -> np.ndarray:
    """Items of each grade at each distance, int64 [q, distances, grades].

    grades: 2 tells what is irrelevant, 0, and relevant, 1; more count the labels that are shared,
    and have to be more than the largest number of them.
    """
    query_count, size = queries.codes.shape[1], database.codes.shape[1]
    counts = np.zeros((query_count, distances, grades), np.int64)
    for columns in slices(size, TILE_ITEMS):
        items = database.part(columns)
        for rows in slices(query_count, max(1, TILE_ITEMS // size)):
            distance, grade = compare(queries.part(rows), items, graded=grades > 2)
            # grades * distance + grade, in place while entries are narrow.
            if distances * grades > 1 << 16:
                distance = distance.astype(np.uint32)
            distance *= grades
            distance += grade
            tile = counts[rows]
            first_bin = np.arange(0, tile.size, distances * grades)
            bins = distance + first_bin[:, None]
            tile += np.bincount(bins.ravel(), minlength=tile.size).reshape(tile.shape)
    return counts


def compare(queries: Items, database: Items, graded: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Hamming distance, uint16 [q, n], and whether a label is shared, bool [q, n].

    graded: how many labels are shared instead, uint16 [q, n].
    """
    distance = word_distance(queries.codes, database.codes)
    grade = np.zeros(distance.shape, np.uint16 if graded else bool)
    for query_word, database_word in zip(queries.labels, database.labels, strict=True):
        common = query_word[:, None] & database_word
        if graded:
            grade += np.bitwise_count(common)
        else:
            grade |= common != 0
    return distance, grade


def slices(count: int, step: int) -> Iterator[slice]:
    """Successive parts of range(count), `step` long but for the last."""
    return (slice(start, start + step) for start in range(0, count, step))
