"""Items whose codes are alike: groups within a radius, and which radius labels allow."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfhash.errors import unwritable
from tfhash.names import ENCODING, ERRORS
from tfhash.search import scan
from tfhash.search.index import Index

PURE = 0.99  # of the pairs within the radius that labels allow, at least so many share a label
_SURE = 1.645**2  # squared deviations of a bound that holds in 95 of 100 cases
_SAMPLE = 2_000  # labelled items that it is measured on
_PAIRS = 1 << 22  # that are in memory at a time

Progress = Callable[[int], None]


def groups(
    index: Index,
    radius: int,
    *,
    progress: Progress = lambda count: None,
    total: Progress = lambda count: None,
) -> list[list[str]]:
    """Groups of at least two items, each within `radius` bits of another of its group.

    The largest first; the ids of a group in their order. Every distinct code is compared with every
    other one where the radius is above 0: seconds for a hundred thousand of them, minutes for a
    million. total, progress: told how many distinct codes there are, and how many more were
    compared.
    """
    ids = index.ids()
    if not ids:
        return []
    rows = scan.to_rows(index.codes(ids))
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    of_code = inverse.ravel()
    if radius:
        total(len(unique))
        of_code = _joined(unique, radius, progress)[of_code]
    order = np.argsort(of_code, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(of_code[order])) + 1)
    found_groups = [[ids[place] for place in part] for part in parts if len(part) > 1]
    return sorted(found_groups, key=lambda group: (-len(group), group[0]))


def _joined(unique: np.ndarray, radius: int, progress: Progress) -> np.ndarray:
    """Of each distinct code, uint64 [n, words], the first one of its group: int64 [n].

    Groups grow from block to block, so that no more than _PAIRS are in memory.
    """
    count = len(unique)
    places = np.arange(count)
    parent = places.copy()  # another code of the same group; itself where it is the first
    start = 0
    while start < count:
        stop = min(start + max(_PAIRS // (count - start), 1), count)
        later = unique[start:]
        found = scan.within(unique[start:stop], later, radius, places[: len(later)])
        pairs = []
        for place, near in enumerate(found, start):
            firsts = np.unique(_firsts(parent, near.rows + start))
            pairs.append(np.stack([np.full(len(firsts), place), firsts]))
        one, other = np.concatenate(pairs, axis=1)
        _join(parent, _firsts(parent, one), other)
        progress(stop - start)
        start = stop
    return _firsts(parent, places)


def _firsts(parent: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The first code of the groups of these."""
    found = parent[places]
    while len(found) and not np.array_equal(above := parent[found], found):
        found = above
    parent[places] = found  # a shorter way for the next time
    return found


def _join(parent: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    """Makes one group of each pair of groups, which are given by their first codes."""
    firsts, ends = np.unique(np.concatenate([one, other]), return_inverse=True)
    edges = ends.reshape(2, -1)
    graph = coo_array((np.ones(edges.shape[1], bool), tuple(edges)), (len(firsts),) * 2)
    of_first = connected_components(graph, directed=False)[1]
    _, least = np.unique(of_first, return_index=True)  # firsts rise, so that it is the least
    parent[firsts] = firsts[least][of_first]


def calibrated_radius(index: Index) -> tuple[int, str]:
    """The largest radius within which nearly all pairs share a label, and in words why this one.

    Similar is not the same: labels say how far a code may be before it means another thing. A share
    of few pairs says little: what counts is its lower bound (Wilson's, at 95 %), so that at least
    268 pairs are needed. Items have {"label": name} or {"labels": [names]} as payload. Without
    labels 0: the same code.
    """
    ids = index.ids()
    labels = [_labels_of(payload) for payload in index.payload(ids)]
    known = [place for place, own in enumerate(labels) if own]
    if len({frozenset(labels[place]) for place in known}) < 2:
        return 0, "the same code; no labels say that more is safe"
    rng = np.random.default_rng(0)
    some = sorted(rng.choice(known, min(_SAMPLE, len(known)), replace=False).tolist())
    rows = scan.to_rows(index.codes([ids[place] for place in some]))
    pairs, shared = _pairs_within(rows, [labels[place] for place in some], index.code_length)
    at_it = np.diff(pairs, prepend=0) > 0  # a radius that no pair has says nothing of itself
    total = np.maximum(pairs, 1)
    pure = at_it & (_lower_bound(shared, total) >= PURE)
    if pure.any():
        radius = int(np.flatnonzero(pure)[-1])
        share = shared[radius] / total[radius]
        return radius, f"within which {share:.2%} of {pairs[radius]:,} labelled pairs share a label"
    likely = np.flatnonzero(at_it & (shared >= PURE * total))
    if len(likely):
        few = f"{pairs[likely[-1]]:,} labelled pairs within {likely[-1]} bits"
        return 0, f"the same code; {few} are too few to say that more is safe"
    first = int(np.flatnonzero(at_it)[0])
    share = shared[first] / total[first]
    return 0, (
        f"the same code; within {first} bits only {share:.0%} of {pairs[first]:,} labelled pairs "
        "share a label"
    )


def _labels_of(payload: Any) -> set[str]:
    """The labels of an item by its payload; none where it has none."""
    if not isinstance(payload, dict):
        return set()
    several = payload.get("labels")
    found = list(several) if isinstance(several, list) else []
    found += [payload["label"]] if payload.get("label") is not None else []
    return {str(label) for label in found}


def _pairs_within(
    rows: np.ndarray, labels: Sequence[set[str]], code_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """How many pairs are within each radius, and how many of them share a label: [k + 1] each."""
    number = {name: place for place, name in enumerate(sorted(set().union(*labels)))}
    hot = np.zeros((len(rows), len(number)), bool)
    for place, own in enumerate(labels):
        hot[place, [number[name] for name in own]] = True
    pairs, shared = (np.zeros(code_length + 1, np.int64) for _ in range(2))
    for place, own in enumerate(labels[:-1]):
        distances = scan.distances(rows[place], rows[place + 1 :])
        same = hot[place + 1 :, [number[name] for name in own]].any(axis=1)
        pairs += np.bincount(distances, minlength=len(pairs))
        shared += np.bincount(distances[same], minlength=len(pairs))
    return pairs.cumsum(), shared.cumsum()


def _lower_bound(shared: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Wilson's lower bound of the shares of which so many of so many are a sample."""
    share = shared / total
    spread = np.sqrt(_SURE * (share * (1 - share) / total + _SURE / (4 * total**2)))
    return (share + _SURE / (2 * total) - spread) / (1 + _SURE / total)


def write_csv(path: Path, found: list[list[str]]) -> None:
    """A line an item: the number of its group, and its id."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding=ENCODING, errors=ERRORS, newline="") as file:
            table = csv.writer(file)
            table.writerow(["group", "id"])
            for number, group in enumerate(found, start=1):
                table.writerows((number, name) for name in group)
    except OSError as error:
        raise unwritable("`output`", path, error) from None
