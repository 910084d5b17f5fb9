"""Groups of codes that are alike, and the radius that labels allow."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest

from tfhash.codes import pack
from tfhash.search.groups import calibrated_radius, groups, write_csv
from tfhash.search.index import Index


def made(bits, payload=None, ids=None):
    bits = np.array(bits, np.uint8)
    ids = ids or [f"{n:02d}" for n in range(len(bits))]
    return Index(pack(bits), ids=ids, code_length=bits.shape[1], payload=payload)


def by_pairs(bits, radius):
    """Groups by joining two that have a pair within the radius, until there is none."""
    found = [{n} for n in range(len(bits))]
    for one, other in itertools.combinations(range(len(bits)), 2):
        if (bits[one] != bits[other]).sum() <= radius:
            first, second = (next(g for g in found if n in g) for n in (one, other))
            if first is not second:
                first |= second
                found.remove(second)
    named = [sorted(f"{n:02d}" for n in group) for group in found if len(group) > 1]
    return sorted(named, key=lambda group: (-len(group), group[0]))


@pytest.mark.parametrize("radius", [0, 1, 2, 4])
def test_groups_are_those_of_all_pairs(radius):
    rng = np.random.default_rng(0)
    bits = np.repeat(rng.integers(0, 2, (14, 11)), 3, axis=0)
    bits ^= rng.random(bits.shape) < 0.06
    found = groups(made(bits), radius)
    assert found == by_pairs(bits, radius) and len(found) > (radius < 4)


def test_groups_leave_out_what_was_removed_and_may_be_none():
    index = made([[0, 0, 1], [0, 0, 1], [1, 1, 1]])
    assert groups(index, 0) == [["00", "01"]]
    index.remove(["00"])
    assert groups(index, 0) == [] and groups(Index(code_length=3), 2) == []


def test_the_radius_is_the_largest_at_which_nearly_all_pairs_share_a_label():
    """Codes 0000, 0001 of a, 0111, 1111 of b. At 1 bit two pairs, at 2 a pair of both."""
    bits = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]]
    payload = [{"label": "a"}, {"label": "a"}, {"label": "b"}, {"label": "b"}]
    radius, why = calibrated_radius(made(bits, payload))
    assert radius == 1
    assert why == "within which 100.00% of 2 labelled pairs share a label"


@pytest.mark.parametrize("payload", [None, [{"label": "a"}] * 3, [{"x": 1}] * 3, ["a", "b", 1]])
def test_without_labels_only_the_same_code_is_a_duplicate(payload):
    radius, why = calibrated_radius(made([[0, 1], [0, 0], [0, 0]], payload))
    assert (radius, why) == (0, "the same code; no labels say that more is safe")


def test_the_table_has_a_line_an_item(tmp_path):
    found = [["a,b", 'c"\n'], ["caf\udce9.jpg", "e"]]
    write_csv(tmp_path / "new" / "d.csv", found)
    with open(tmp_path / "new" / "d.csv", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["group", "id"],
        ["1", "a,b"],
        ["1", 'c"\n'],
        ["2", "caf\udce9.jpg"],
        ["2", "e"],
    ]
