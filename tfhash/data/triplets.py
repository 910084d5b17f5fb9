"""Triplets (query, positive, negative): drawn from labels afresh each step, or read from a CSV.

Each sampler here answers one group as `samplers.Sampler` has it: "images", int64 [m], and
"triplets", int32 [t, 3], positions in the group. m and t are the same for each group. The first
min(m, t) triplets of an in-batch group have different queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfhash.data import csv_files
from tfhash.errors import UserError

_HEADER = ["query", "positive", "negative"]
_OR_HEADER = f", or the header {','.join(_HEADER)}"


def relevance(labels: np.ndarray) -> np.ndarray:
    """Which images share a label: multi-hot [n, C] -> bool [n, n], its diagonal False."""
    counts = labels.astype(np.int32)
    shared = counts @ counts.T > 0
    np.fill_diagonal(shared, False)
    return shared


def check_group_size(group_size: int) -> None:
    """UserError for a group of so few images that no triplet can be made of them."""
    if group_size < 3:
        raise UserError(
            f"`batch_size`: {group_size} labelled images a group; at least 3 are allowed, for "
            "fewer make no triplet (`groups` divides the batch)"
        )


def _usable_queries(labels: np.ndarray) -> np.ndarray:
    """Positions of the images that have both a positive and a negative among the others."""
    related = relevance(labels)
    positives = related.sum(axis=1)
    negatives = len(labels) - 1 - positives
    usable = np.flatnonzero((positives > 0) & (negatives > 0))
    if len(usable) == 0:
        raise UserError(
            f"`labelled_per_class`: no triplet can be made of the {len(labels)} labelled images; "
            "at least two images that share a label and one that does not are needed"
        )
    return usable


@dataclass(frozen=True)
class InBatchTriplets:
    """Triplets within a group of images, so that an image is encoded once and used in many.

    labels: multi-hot [n, C] of the labelled images; group_size: m; triplets_per_query: each of
    the m images is the query of this many triplets, so t = m * triplets_per_query.
    """

    labels: np.ndarray
    group_size: int
    triplets_per_query: int = 8
    _queries: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_group_size(self.group_size)
        object.__setattr__(self, "_queries", _usable_queries(self.labels))

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        members = self._members(rng)
        related = relevance(self.labels[members])
        different = ~related
        np.fill_diagonal(different, False)
        # Every image but the partnerless takes part; those hand their turn to one that has both.
        complete = np.flatnonzero(related.any(axis=1) & different.any(axis=1))
        queries = np.arange(self.group_size)
        missing = ~np.isin(queries, complete)
        queries[missing] = rng.choice(complete, missing.sum())
        queries = np.tile(queries, self.triplets_per_query)
        triplets = np.stack(
            [queries, _choose(related, queries, rng), _choose(different, queries, rng)], axis=1
        )
        return {"images": members, "triplets": triplets.astype(np.int32)}

    def _members(self, rng: np.random.Generator) -> np.ndarray:
        """A query, a positive and a negative that are sure to be there, and random others."""
        n, m = len(self.labels), self.group_size
        query = rng.choice(self._queries)
        shares = self.labels.astype(np.int32) @ self.labels[query].astype(np.int32) > 0
        negative = rng.choice(np.flatnonzero(~shares))
        shares[query] = False
        positive = rng.choice(np.flatnonzero(shares))
        others = np.setdiff1d(np.arange(n), [query, positive, negative])
        # With fewer labelled images than places some stand twice, each as an image of its own.
        pool = others if len(others) else np.arange(n)
        others = rng.choice(pool, m - 3, replace=len(pool) < m - 3)
        return np.concatenate([[query, positive, negative], others]).astype(np.int64)


def _choose(allowed: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each of rows [t] one column that allowed, bool [n, m], has True there: int64 [t]."""
    allowed_first = np.argsort(~allowed, axis=1, kind="stable")
    return allowed_first[rows, rng.integers(0, allowed.sum(axis=1)[rows])]


@dataclass(frozen=True)
class ImpliedPositives:
    """Triplets (q, q, n) of a group, where the positive of q is made from its labels.

    labels, group_size, triplets_per_query: as for InBatchTriplets. A class may have one image.
    """

    labels: np.ndarray
    group_size: int
    triplets_per_query: int = 1
    _queries: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_group_size(self.group_size)
        related = self._related(self.labels)
        if related.all():
            raise UserError(
                f"`labelled_per_class`: no triplet can be made of the {len(self.labels)} labelled "
                "images; two that share no label are needed"
            )
        object.__setattr__(self, "_queries", np.flatnonzero(~related.all(axis=1)))

    @staticmethod
    def _related(labels: np.ndarray) -> np.ndarray:
        counts = labels.astype(np.int32)
        return counts @ counts.T > 0

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        # One query and one of its negatives, so that there is a triplet; the rest at random.
        query = rng.choice(self._queries)
        shares = self.labels.astype(np.int32) @ self.labels[query].astype(np.int32) > 0
        count = len(self.labels)
        others = rng.choice(count, self.group_size - 2, replace=count < self.group_size - 2)
        members = np.concatenate([[query, rng.choice(np.flatnonzero(~shares))], others])
        different = ~self._related(self.labels[members])
        complete = np.flatnonzero(different.any(axis=1))
        queries = np.arange(self.group_size)
        missing = ~np.isin(queries, complete)
        queries[missing] = rng.choice(complete, missing.sum())
        queries = np.tile(queries, self.triplets_per_query)
        triplets = np.stack([queries, queries, _choose(different, queries, rng)], axis=1)
        return {"images": members.astype(np.int64), "triplets": triplets.astype(np.int32)}


@dataclass(frozen=True)
class SampledTriplets:
    """Each triplet brings its own three images, as the papers' batches do: m = 3t.

    labels: multi-hot [n, C]; triplets: t a group.
    """

    labels: np.ndarray
    triplets: int
    _queries: np.ndarray = field(init=False, repr=False, compare=False)
    _related: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_queries", _usable_queries(self.labels))
        object.__setattr__(self, "_related", relevance(self.labels))

    @property
    def group_size(self) -> int:
        return 3 * self.triplets

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        queries = rng.choice(self._queries, self.triplets)
        related = self._related[queries]
        different = ~related
        each = np.arange(self.triplets)
        different[each, queries] = False
        rows = np.stack(
            [queries, _choose(related, each, rng), _choose(different, each, rng)], axis=1
        )
        return {"images": rows.reshape(-1), "triplets": _consecutive(self.triplets)}


@dataclass(frozen=True)
class ListedTriplets:
    """A user's own triplets, drawn at random: listed int64 [T, 3], `triplets` of them a group."""

    listed: np.ndarray
    triplets: int

    @property
    def group_size(self) -> int:
        return 3 * self.triplets

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        rows = self.listed[rng.integers(0, len(self.listed), self.triplets)]
        return {"images": rows.reshape(-1), "triplets": _consecutive(self.triplets)}


def _consecutive(count: int) -> np.ndarray:
    return np.arange(3 * count, dtype=np.int32).reshape(count, 3)


def read_csv(path: str | Path, ids: Sequence[str]) -> np.ndarray:
    """A CSV of (query, positive, negative) image ids -> int64 [T, 3] positions in `ids`.

    An id is an image's path relative to the data folder, written as `csv_files.finder` has it. A
    first line `query,positive,negative`, in any case, is skipped. Raises UserError with the line's
    number for a row of other than three fields, an unknown id, or the same image twice in a row;
    for a missing or empty file.
    """
    position = {name: index for index, name in enumerate(ids)}
    find = csv_files.finder(ids)
    found: list[list[int]] = []
    for line, fields in csv_files.rows(path, "triplets_csv"):
        if line == 1 and [field.lower() for field in fields] == _HEADER:
            continue
        where = f"`triplets_csv`: {path}, line {line}"
        row = [find(field) for field in fields]
        if len(row) != 3 or len(set(row)) != 3:
            raise UserError(
                f"{where}: {fields}{csv_files.other_separator(fields)}; allowed: three different "
                "images, query,positive,negative"
            )
        if unknown := [name for name in row if name not in position]:
            raise UserError(
                f"{where}: no image {unknown[0]!r} in the data"
                f"{csv_files.hint(unknown[0], ids)}; allowed: paths relative to `data_dir` of "
                f"images that were not left out{_OR_HEADER * (line == 1)}"
            )
        found.append([position[name] for name in row])
    if not found:
        raise UserError(f"`triplets_csv`: {path}: no triplets in it")
    return np.asarray(found, np.int64)
