"""NDCG, ACG and weighted mAP against hand-worked rankings and every order of the ties.

The brute force ranks with Python loops over the numbers of shared labels and knows the definitions
alone; for "expected" it lists every order of each block of ties.
"""

from __future__ import annotations

import itertools
import math
import statistics
import tracemalloc

import numpy as np
import pytest

import tfhash
from tfhash import codes
from tfhash.evaluation import histograms, retrieval

DEPTHS = (None, 1, 2, 3, 5, 8, 9, 30)
CUTS = DEPTHS[1:]


def orders(distance: list[int], shared: list[int], ties: str) -> list[list[int]]:
    """All equally likely rankings under `ties`, each as the r at ranks 1, 2, ..."""
    blocks = []
    for value in sorted(set(distance)):
        block = [r for d, r in zip(distance, shared, strict=True) if d == value]
        if ties == "stable":
            blocks.append([tuple(block)])
        elif ties in ("best", "worst"):
            blocks.append([tuple(sorted(block, reverse=ties == "best"))])
        else:
            blocks.append(sorted(set(itertools.permutations(block))))
    return [list(itertools.chain(*order)) for order in itertools.product(*blocks)]


def acg(ranking: list[int], depth: int | None) -> float:
    return statistics.mean(ranking[:depth])


def dcg(ranking: list[int], depth: int | None) -> float:
    return sum((2**r - 1) / math.log2(1 + i) for i, r in enumerate(ranking[:depth], start=1))


def ndcg(ranking: list[int], depth: int | None) -> float:
    most = dcg(sorted(ranking, reverse=True), depth)
    return dcg(ranking, depth) / most if most else 0.0


def weighted_ap(ranking: list[int], depth: int | None) -> float:
    at_hits = [acg(ranking, i) for i, r in enumerate(ranking[:depth], start=1) if r > 0]
    return statistics.mean(at_hits) if at_hits else 0.0


def sample(code_length: int, classes: int, seed: int):
    """Bits and labels of 6 queries and 9 items; the last query has a label that no item has."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (15, code_length), dtype=np.uint8)
    labels = (rng.random((15, classes + 1)) < 1.2 / math.sqrt(classes)).astype(np.uint8)
    labels[:, classes] = 0
    labels[5] = np.eye(classes + 1, dtype=np.uint8)[classes]
    return bits[:6], bits[6:], labels[:6], labels[6:]


def compared(query_bits, database_bits, query_labels, database_labels):
    """Distances and numbers of shared labels of each query, as lists of Python's integers."""
    data = (query_bits, database_bits, query_labels, database_labels)
    query_bits, database_bits, query_labels, database_labels = (rows.tolist() for rows in data)
    for bits, labels in zip(query_bits, query_labels, strict=True):
        yield (
            [sum(a != b for a, b in zip(bits, other, strict=True)) for other in database_bits],
            [sum(a and b for a, b in zip(labels, other, strict=True)) for other in database_labels],
        )


def evaluate_bits(query_bits, database_bits, query_labels, database_labels, **options):
    return retrieval.evaluate(
        codes.pack(query_bits),
        codes.pack(database_bits),
        query_labels,
        database_labels,
        code_length=query_bits.shape[1],
        **options,
    )


def evaluate_ranks(distance: list[int], shared: list[int], **options):
    """Evaluates one query whose items stand at distances of at most 8 and share so many labels."""
    database = (np.arange(8) < np.array(distance)[:, None]).astype(np.uint8)
    labels = (np.arange(max(shared)) < np.array(shared)[:, None]).astype(np.uint8)
    return evaluate_bits(database[:1] * 0, database, labels[:1] * 0 + 1, labels, **options)


@pytest.mark.parametrize("tile", [None, 5, 20])
@pytest.mark.parametrize("ties", retrieval.TIES)
@pytest.mark.parametrize(("code_length", "classes"), [(1, 3), (2, 4), (3, 9), (4, 70), (70, 5)])
def test_agrees_with_brute_force(code_length, classes, ties, tile, monkeypatch):
    if tile:
        # 5 cuts the database, 20 takes two queries at a time; neither divides evenly.
        monkeypatch.setattr(histograms, "TILE_ITEMS", tile)
        monkeypatch.setattr(retrieval, "_CELLS", 40)
    data = sample(code_length, classes, seed=code_length)
    metrics = evaluate_bits(
        *data, map_at=3, ndcg_at=DEPTHS, acg_at=CUTS, weighted_map_at=DEPTHS, ties=ties
    )
    ranked = [orders(*query, ties) for query in compared(*data)]
    assert max(r for query in ranked for r in query[0]) > 2
    if ties == "expected" and code_length < 5:
        assert max(len(of_query) for of_query in ranked) >= 50
    checked = (
        (metrics.ndcg, DEPTHS, ndcg),
        (metrics.acg_at, CUTS, acg),
        (metrics.weighted_map, DEPTHS, weighted_ap),
    )
    for found, depths, measure in checked:
        assert list(found) == list(depths)
        for depth, value in found.items():
            means = [statistics.mean(measure(one, depth) for one in query) for query in ranked]
            assert value == pytest.approx(statistics.mean(means), abs=1e-12), (measure, depth)
    # The number of shared labels leaves what asks for relevance alone as it is.
    plain = evaluate_bits(*data, map_at=3, ties=ties)
    assert metrics.map == pytest.approx(plain.map) and metrics.map != metrics.weighted_map
    assert metrics.recall == pytest.approx(plain.recall)
    assert metrics.precision == pytest.approx(plain.precision)


def test_many_ties_agree_with_random_orders():
    """300 items in three blocks, of which R cuts the second: the mean of 4,000 orders.

    Each expectation lies within four standard errors of that mean, which are small.
    """
    rng = np.random.default_rng(0)
    distance = np.repeat([0, 1, 2], [20, 130, 150])
    shared = rng.choice(4, 300, p=[0.7, 0.15, 0.1, 0.05])
    metrics = evaluate_ranks(
        distance.tolist(), shared.tolist(), ndcg_at=60, acg_at=60, weighted_map_at=(None, 60)
    )
    checked = (
        (metrics.ndcg, 60, ndcg),
        (metrics.acg_at, 60, acg),
        (metrics.weighted_map, 60, weighted_ap),
        (metrics.weighted_map, None, weighted_ap),
    )
    rankings = [shared[np.lexsort([rng.random(300), distance])].tolist() for _ in range(4000)]
    for found, depth, measure in checked:
        drawn = [fast(measure)(np.array(ranking), depth) for ranking in rankings]
        error = np.std(drawn, ddof=1) / math.sqrt(len(drawn))
        assert abs(found[depth] - np.mean(drawn)) < 4 * error < 0.01, measure
        assert fast(measure)(shared, depth) == pytest.approx(measure(shared.tolist(), depth))


def fast(measure):
    """A measure in NumPy: 4,000 rankings of 300 items are many for loops."""

    def of(ranking: np.ndarray, depth: int | None) -> float:
        ranks = np.arange(1, len(ranking) + 1)
        top = slice(depth)
        if measure is acg:
            return ranking[top].mean()
        if measure is ndcg:
            gains, most = ((2.0**r - 1) / np.log2(1 + ranks) for r in (ranking, -np.sort(-ranking)))
            return gains[top].sum() / most[top].sum()
        return (np.cumsum(ranking) / ranks)[top][ranking[top] > 0].mean()

    return of


@pytest.mark.parametrize(
    ("ties", "gain", "top_2", "whole", "weighted_2"),
    [
        # Ranks: r = 2 at distance 0, then r = 1 and r = 0 tied at distance 1. The r = 1 first: ACG
        # is 2, 3/2 at the hits, and ACG@2 3/2; last: ACG is 2, 1 at the hits, and ACG@2 1.
        ("expected", (1 / math.log2(3) + 1 / 2) / 2, 5 / 4, 13 / 8, 15 / 8),
        ("stable", 1 / 2, 1, 3 / 2, 2),
        ("best", 1 / math.log2(3), 3 / 2, 7 / 4, 7 / 4),
        ("worst", 1 / 2, 1, 3 / 2, 2),
    ],
)
def test_a_tie_worked_by_hand(ties, gain, top_2, whole, weighted_2):
    metrics = evaluate_ranks(
        [1, 1, 0], [0, 1, 2], ties=ties, ndcg_at=None, acg_at=2, weighted_map_at=(None, 2)
    )
    assert metrics.ndcg == pytest.approx({None: (3 + gain) / (3 + 1 / math.log2(3))})
    assert metrics.acg_at == pytest.approx({2: top_2})
    assert metrics.weighted_map == pytest.approx({None: whole, 2: weighted_2})


def test_the_ideal_is_that_of_the_whole_database():
    """R = 1 finds r = 1; that of the database with r = 3 stands at rank 2: NDCG@1 is 1 of 7."""
    metrics = evaluate_ranks([0, 5], [1, 3], ndcg_at=1)
    assert metrics.ndcg == pytest.approx({1: 1 / 7})


@pytest.mark.parametrize("ties", retrieval.TIES)
def test_of_one_label_they_are_precision_and_map(ties):
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, (40, 4), dtype=np.uint8)
    metrics = tfhash.evaluate(
        codes.pack(bits[:10]), codes.pack(bits[10:]), rng.integers(0, 3, 10),
        rng.integers(0, 3, 30), code_length=4, ties=ties, map_at=(None, 7), precision_at=(7,),
        ndcg_at=(30,), acg_at=(7,), weighted_map_at=(None, 7),
    )  # fmt: skip
    assert metrics.acg_at == pytest.approx(metrics.precision_at)
    assert metrics.weighted_map == pytest.approx(metrics.map)
    assert 0.5 < metrics.ndcg[30] < 1


def test_a_query_that_shares_nothing_counts_zero():
    bits, labels = np.zeros((2, 4), np.uint8), np.eye(2, dtype=np.uint8)
    metrics = evaluate_bits(
        bits, bits[:1], labels, labels[:1], ndcg_at=(1,), acg_at=(1,), weighted_map_at=(None,)
    )
    assert metrics.ndcg == {1: 0.5} and metrics.acg_at == {1: 0.5}
    assert metrics.weighted_map == {None: 0.5}


@pytest.mark.parametrize("ties", retrieval.TIES)
def test_no_number_of_labels_is_too_large(ties):
    """2^1100 is more than a float holds, 200 * 1101 more than 16 bits.

    The item that shares one label is nearer than that which shares all: the gain of the latter, at
    rank 2 in place of 1, is all that counts. ACG is 1 and 1101 / 2 at the two hits.
    """
    database = np.stack([np.zeros(200, np.uint8), np.ones(200, np.uint8)])
    labels = np.ones((2, 1100), np.uint8)
    labels[0, 1:] = 0
    metrics = evaluate_bits(
        database[:1], database, labels[1:], labels, ndcg_at=2, acg_at=2, weighted_map_at=None,
        ties=ties,
    )  # fmt: skip
    assert metrics.ndcg == pytest.approx({2: 1 / math.log2(3)})
    assert metrics.acg_at == {2: 1101 / 2}
    assert metrics.weighted_map == {None: (1 + 1101 / 2) / 2}
    assert metrics.recall.tolist() == [0.5] * 200 + [1]


@pytest.mark.parametrize("ties", ["expected", "stable"])
def test_many_grades_take_no_more_memory(ties):
    """300 histograms of 65 distances and 1,001 grades at once would be 156 MB, and five times that
    with what is made of them."""
    database = np.zeros((4, 64), np.uint8)
    labels = np.ones((300, 1000), np.uint8)
    tracemalloc.start()
    metrics = evaluate_bits(
        np.repeat(database[:1], 300, axis=0), database, labels, labels[:4], ndcg_at=1, ties=ties
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert metrics.ndcg == pytest.approx({1: 1.0})
    assert peak < 100e6


def test_a_convention_has_no_say():
    """hashnet leaves the second query out of mAP, which counts 0 in all else."""
    bits = np.zeros((2, 3), np.uint8)
    labels = np.eye(2, dtype=np.uint8)
    metrics = evaluate_bits(
        bits, bits[:1], labels, labels[:1], convention="hashnet", weighted_map_at=None, acg_at=1
    )
    assert metrics.map == {None: 1.0}
    assert metrics.weighted_map == {None: 0.5} and metrics.acg_at == {1: 0.5}


def test_json_has_a_key_for_each():
    metrics = evaluate_ranks(
        [0, 2], [2, 0], ndcg_at=(None, 100), acg_at=1, weighted_map_at=(None, 5)
    )
    found = metrics.to_json()
    assert {key: found[key] for key in found if key.startswith(("ndcg", "acg", "weighted"))} == {
        **{"ndcg": 1.0, "ndcg_at100": 1.0},
        **{"acg_at1": 2.0, "weighted_map": 2.0, "weighted_map_at5": 2.0},
    }
    plain = evaluate_ranks([0, 2], [2, 0]).to_json()
    assert not any(key.startswith(("ndcg", "acg", "weighted")) for key in plain)
