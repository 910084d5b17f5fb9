"""Groups of codes that are alike, and the radius that labels allow."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest

from tfhash.codes import pack
from tfhash.search import groups as groups_module
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


@pytest.mark.parametrize("pairs", [1, 40, 4_000])
def test_groups_are_the_same_whatever_is_in_memory_at_a_time(pairs, monkeypatch):
    monkeypatch.setattr(groups_module, "_PAIRS", pairs)
    rng = np.random.default_rng(1)
    bits = np.repeat(rng.integers(0, 2, (20, 16)), 3, axis=0)
    bits ^= rng.random(bits.shape) < 0.1
    done, totals = [], []
    found = groups(made(bits), 3, progress=done.append, total=totals.append)
    assert found == by_pairs(bits, 3) and 5 < len(found) < 20
    assert totals == [len(np.unique(bits, axis=0))] == [sum(done)]
    assert pairs > 1 or set(done) == {1}


def test_a_chain_is_one_group(monkeypatch):
    """0, 1, 11, 111 ...: each within a bit of the next, joined in any order of the codes."""
    monkeypatch.setattr(groups_module, "_PAIRS", 9)
    bits = np.tril(np.ones((40, 40), int))[np.random.default_rng(0).permutation(40)]
    (group,) = groups(made(bits), 1)
    assert len(group) == 40 and groups(made(bits), 0) == []


def two_kinds(counts, flips):
    """Items of a around 0 and of b around 1, 40 bits, in the first so many of which some differ."""
    bits = np.repeat([[0] * 40, [1] * 40], counts, axis=0)
    bits[:, :flips] ^= np.random.default_rng(0).integers(0, 2, (len(bits), flips))
    return bits, [{"label": "ab"[n >= counts[0]]} for n in range(len(bits))]


def test_the_radius_is_the_largest_at_which_nearly_all_pairs_share_a_label():
    """Pairs of one kind differ in up to 4 bits, those of two in 36 at least."""
    bits, payload = two_kinds((30, 30), 4)
    radius, why = calibrated_radius(made(bits, payload))
    assert radius == 4
    assert why == "within which 100.00% of 870 labelled pairs share a label"  # 2 * 30 * 29 / 2


@pytest.mark.parametrize(
    ("bits", "labels", "why"),
    [
        # By 2.706 / n, the bound of n pairs of n is n / (n + 2.706): .99 from 268 pairs on.
        ([[0] * 48, [1] * 48, [0] * 48], "xyx", "1 labelled pairs within 0 bits are too few"),
        ([[0] * 48, [1] * 48], "xy", "within 48 bits only 0% of 1 labelled pairs share a label"),
        ([[0] * 4, [0] * 4], "xy", "within 0 bits only 0% of 1 labelled pairs share a label"),
    ],
)
def test_few_pairs_allow_no_radius(bits, labels, why):
    index = made(bits, [{"label": label} for label in labels])
    radius, words = calibrated_radius(index)
    assert radius == 0 and words.startswith("the same code; ") and why in words


@pytest.mark.parametrize(("count", "radius"), [(23, 0), (24, 2)])
def test_the_least_number_of_pairs(count, radius):
    """23 of a and one of b have 253 pairs of one kind; 24 have 276, and 268 are needed."""
    bits, payload = two_kinds((count, 1), 2)
    found, why = calibrated_radius(made(bits, payload))
    assert found == radius and ("too few" in why) == (radius == 0)


def test_a_mistaken_label_counts_and_radii_without_a_pair_do_not():
    """One of a lies among b: 40 of 820 + 780 pairs are of two labels, .975 of them of one."""
    bits, payload = two_kinds((40, 40), 3)
    payload[0] = {"label": "b"}
    radius, why = calibrated_radius(made(bits, payload))
    assert radius == 0 and "% of" in why
    apart = np.array([[0] * 40] * 30 + [[1] * 40] * 30)
    labels = [{"label": "ab"[n >= 30]} for n in range(60)]
    assert calibrated_radius(made(apart, labels))[0] == 0  # the next pair is at 40 bits


def test_items_of_several_labels_share_one_of_them():
    bits, payload = two_kinds((30, 30), 2)
    for n, own in enumerate(payload):
        payload[n] = {"labels": [own["label"], f"only {n}"]} if n % 2 else own
    payload[3] = {"labels": []}  # of which nothing is known
    radius, why = calibrated_radius(made(bits, payload))
    assert radius == 2 and "100.00% of 841 " in why  # 30 * 29 / 2 + 29 * 28 / 2


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
