"""Items whose codes are alike: groups within a radius, and which radius labels allow."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfhash.errors import unwritable
from tfhash.names import ENCODING, ERRORS
from tfhash.search import scan
from tfhash.search.index import Index

PURE = 0.99  # of the pairs within the radius that labels allow, at least so many share a label
_SAMPLE = 2_000  # labelled items that it is measured on


def groups(index: Index, radius: int) -> list[list[str]]:
    """Groups of at least two items, each within `radius` bits of another of its group.

    The largest first; the ids of a group in their order. Every distinct code is compared with every
    other one where the radius is above 0: minutes for a hundred thousand of them.
    """
    ids = index.ids()
    if not ids:
        return []
    rows = scan.to_rows(index.codes(ids))
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    of_code = inverse.ravel()
    if radius:
        pairs = [
            np.stack([np.full(len(found.rows), place), found.rows])
            for place, found in enumerate(
                scan.within(unique, unique, radius, np.arange(len(unique)))
            )
        ]
        one, other = np.concatenate(pairs, axis=1)
        graph = coo_array((np.ones(len(one), bool), (one, other)), (len(unique),) * 2)
        of_code = connected_components(graph, directed=False)[1][of_code]
    order = np.argsort(of_code, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(of_code[order])) + 1)
    found_groups = [[ids[place] for place in part] for part in parts if len(part) > 1]
    return sorted(found_groups, key=lambda group: (-len(group), group[0]))


def calibrated_radius(index: Index) -> tuple[int, str]:
    """The largest radius within which nearly all pairs share a label, and in words why this one.

    Similar is not the same: labels say how far a code may be before it means another thing. Without
    labels 0: the same code.
    """
    ids = index.ids()
    labels = [
        payload["label"] if isinstance(payload, dict) and "label" in payload else None
        for payload in index.payload(ids)
    ]
    known = [place for place, label in enumerate(labels) if label is not None]
    if len({labels[place] for place in known}) < 2:
        return 0, "the same code; no labels say that more is safe"
    rng = np.random.default_rng(0)
    some = sorted(rng.choice(known, min(_SAMPLE, len(known)), replace=False).tolist())
    rows = scan.to_rows(index.codes([ids[place] for place in some]))
    of_label = np.unique([str(labels[place]) for place in some], return_inverse=True)[1]
    all_pairs, same_pairs = (np.zeros(index.code_length + 1, np.int64) for _ in range(2))
    for place in range(len(rows) - 1):
        distances = scan.distances(rows[place], rows[place + 1 :])
        same = of_label[place + 1 :] == of_label[place]
        all_pairs += np.bincount(distances, minlength=len(all_pairs))
        same_pairs += np.bincount(distances[same], minlength=len(all_pairs))
    total, shared = all_pairs.cumsum(), same_pairs.cumsum()
    pure = np.flatnonzero(shared >= PURE * total)
    radius = 0
    while radius + 1 in pure:  # from 0 on without a gap
        radius += 1
    share = shared[radius] / max(total[radius], 1)
    return radius, f"within which {share:.2%} of {total[radius]:,} labelled pairs share a label"


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
