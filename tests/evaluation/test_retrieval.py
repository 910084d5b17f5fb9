"""Retrieval metrics against hand-worked rankings and brute force over every order of ties.

The brute force shares nothing with the library: it ranks with Python loops on unpacked bits and,
for "expected", lists every way in which the relevant items of each block of ties can be placed.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics

import numpy as np
import pytest
import scipy.stats

from tfhash import codes
from tfhash.evaluation import histograms, retrieval

DEPTHS = (None, 1, 2, 5, 11, 12, 40)
CUTS = (1, 3, 7, 12, 40)


def rankings(distance: list[int], relevant: list[bool], ties: str) -> list[list[bool]]:
    """All equally likely rankings under `ties`, each as the relevance at ranks 1, 2, ..."""
    orders: list[list[tuple[bool, ...]]] = []
    for value in sorted(set(distance)):
        block = [r for d, r in zip(distance, relevant, strict=True) if d == value]
        if ties == "stable":
            orders.append([tuple(block)])
        elif ties in ("best", "worst"):
            orders.append([tuple(sorted(block, reverse=ties == "best"))])
        else:
            places = itertools.combinations(range(len(block)), sum(block))
            orders.append([tuple(i in hits for i in range(len(block))) for hits in places])
    return [list(itertools.chain(*order)) for order in itertools.product(*orders)]


def brute_force_ap(all_rankings: list[list[bool]], depth: int | None) -> float:
    """Mean over the rankings of the mean precision at the hits of the top `depth`, or 0."""
    means = []
    for ranking in all_rankings:
        top = ranking[:depth]
        precisions = [sum(top[: i + 1]) / (i + 1) for i, hit in enumerate(top) if hit]
        means.append(statistics.mean(precisions) if precisions else 0.0)
    return statistics.mean(means)


def brute_force_precision(all_rankings: list[list[bool]], depth: int) -> float:
    return statistics.mean(sum(top := ranking[:depth]) / len(top) for ranking in all_rankings)


def sample(code_length: int, classes: int, multi_label: bool, seed: int):
    """Bits and labels of 6 queries and 12 items with many ties.

    Codes are near one of two centres; the last query has a label that no item has, and with
    multi_label, an item has 0 to `classes` labels and shares one with about a third of the others.
    """
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2, (2, code_length))
    flips = rng.random((18, code_length)) < 0.7 / code_length
    bits = (centres[rng.integers(0, 2, 18)] ^ flips).astype(np.uint8)
    if multi_label:
        rate = 0.6 / math.sqrt(classes)
        labels = (rng.random((18, classes + 1)) < rate).astype(np.uint8)
    else:
        labels = np.eye(classes + 1, dtype=np.uint8)[rng.integers(0, classes, 18)]
    labels[:, classes] = 0
    labels[5] = np.eye(classes + 1, dtype=np.uint8)[classes]
    return bits[:6], bits[6:], labels[:6], labels[6:]


def evaluate_bits(query_bits, database_bits, query_labels, database_labels, **options):
    return retrieval.evaluate(
        codes.pack(query_bits),
        codes.pack(database_bits),
        query_labels,
        database_labels,
        code_length=query_bits.shape[1],
        **options,
    )


def compared(query_bits, database_bits, query_labels, database_labels):
    """Distances and relevance of each query, as lists."""
    for bits, labels in zip(query_bits, query_labels, strict=True):
        yield (
            [sum(a != b for a, b in zip(bits, other, strict=True)) for other in database_bits],
            [any(a and b for a, b in zip(labels, other, strict=True)) for other in database_labels],
        )


def evaluate_ranks(distance: list[int], relevant: list[int], **options):
    """Evaluates one query whose items stand at the given distances (of at most 8)."""
    database = np.array([[0] * (8 - d) + [1] * d for d in distance], np.uint8)
    labels = np.array(relevant, np.uint8)[:, None]
    zero, one = np.zeros((1, 8), np.uint8), np.ones((1, 1), np.uint8)
    return evaluate_bits(zero, database, one, labels, **options)


@pytest.mark.parametrize("tile", [None, 5, 30])
@pytest.mark.parametrize("ties", retrieval.TIES)
@pytest.mark.parametrize(
    ("code_length", "classes", "multi_label"),
    [(1, 2, False), (5, 3, False), (8, 3, True), (12, 9, True), (20, 70, True), (70, 2, False)],
)
def test_agrees_with_brute_force(code_length, classes, multi_label, ties, tile, monkeypatch):
    if tile:
        # 5 cuts the database, 30 takes two queries at a time; neither divides evenly.
        monkeypatch.setattr(histograms, "TILE_ITEMS", tile)
        monkeypatch.setattr(retrieval, "_QUERY_BLOCK", 4)
    data = sample(code_length, classes, multi_label, seed=code_length)
    metrics = evaluate_bits(*data, map_at=DEPTHS, precision_at=CUTS, ties=ties)
    ranked = [rankings(*query, ties) for query in compared(*data)]
    assert ties != "expected" or max(len(orders) for orders in ranked) >= 6
    assert list(metrics.map) == list(DEPTHS)
    assert list(metrics.precision_at) == list(CUTS)
    for depth, value in metrics.map.items():
        expected = statistics.mean(brute_force_ap(orders, depth) for orders in ranked)
        assert value == pytest.approx(expected, abs=1e-12)
    for depth, value in metrics.precision_at.items():
        expected = statistics.mean(brute_force_precision(orders, depth) for orders in ranked)
        assert value == pytest.approx(expected, abs=1e-12)
    assert 0 < metrics.map[None] < 1


@pytest.mark.parametrize(("code_length", "multi_label"), [(5, False), (12, True), (70, False)])
def test_balls_agree_with_brute_force(code_length, multi_label, monkeypatch):
    monkeypatch.setattr(histograms, "TILE_ITEMS", 7)
    monkeypatch.setattr(retrieval, "_QUERY_BLOCK", 4)
    data = sample(code_length, 3, multi_label, seed=3)
    metrics = evaluate_bits(*data, radius=1)
    assert metrics.recall.shape == metrics.precision.shape == (code_length + 1,)
    assert metrics.recall.dtype == metrics.precision.dtype == np.float64
    for radius in range(code_length + 1):
        recalls, precisions = [], []
        for distance, relevant in compared(*data):
            ball = [r for d, r in zip(distance, relevant, strict=True) if d <= radius]
            recalls.append(sum(ball) / sum(relevant) if any(relevant) else 0)
            precisions.append(sum(ball) / len(ball) if ball else 0)
        assert metrics.recall[radius] == pytest.approx(statistics.mean(recalls))
        assert metrics.precision[radius] == pytest.approx(statistics.mean(precisions))
    assert metrics.precision_radius == metrics.precision[1]


@pytest.mark.parametrize(
    ("ties", "whole", "top_2", "precision_2"),
    [
        # Ranks: a miss at distance 0, then a hit and a miss tied at distance 1, in either order.
        # Hit at rank 2: AP 1/2, and AP@2 1/2; hit at rank 3: AP 1/3, and no hit in the top 2.
        ("expected", (1 / 2 + 1 / 3) / 2, 1 / 4, 1 / 4),
        ("stable", 1 / 3, 0, 0),
        ("best", 1 / 2, 1 / 2, 1 / 2),
        ("worst", 1 / 3, 0, 0),
    ],
)
def test_a_tie_worked_by_hand(ties, whole, top_2, precision_2):
    metrics = evaluate_ranks(
        [1, 1, 0], [0, 1, 0], ties=ties, map_at=(None, 2), precision_at=(2,), radius=0
    )
    assert metrics.map == pytest.approx({None: whole, 2: top_2})
    assert metrics.precision_at == pytest.approx({2: precision_2})


def test_one_hit_among_a_hundred_ties():
    """In the top 10 with probability .1, then at each rank j alike, with a precision of 1 / j."""
    by_hand = 0.1 * sum(1 / j for j in range(1, 11)) / 10
    metrics = evaluate_ranks([0] * 100, [1] + [0] * 99, map_at=(10,))
    assert metrics.map[10] == pytest.approx(by_hand, rel=1e-12)
    assert by_hand == pytest.approx(0.029, abs=5e-4)  # the quotient of two expectations is .293


def test_stable_follows_the_database():
    """Python's sort is stable; 1,000 items are more than any sort handles by insertion."""
    rng = np.random.default_rng(0)
    distance, relevant = rng.integers(0, 4, 1000), rng.integers(0, 2, 1000)
    ranking = [bool(relevant[i]) for i in sorted(range(1000), key=lambda i: distance[i])]
    metrics = evaluate_ranks(distance.tolist(), relevant.tolist(), ties="stable", map_at=(100,))
    assert metrics.map[100] == pytest.approx(brute_force_ap([ranking], 100))


def test_a_query_without_a_hit_counts_zero():
    bits, labels = np.zeros((2, 4), np.uint8), np.eye(2, dtype=np.uint8)
    metrics = evaluate_bits(bits, bits[:1], labels, labels[:1], precision_at=(1,))
    assert metrics.map == {None: 0.5}
    assert metrics.precision_at == {1: 0.5}
    assert metrics.recall.tolist() == [0.5] * 5
    assert (metrics.query_count, metrics.database_size) == (2, 1)


def test_an_empty_ball_counts_zero():
    metrics = evaluate_ranks([3, 4], [1, 1], radius=2)
    assert metrics.precision_radius == 0
    assert metrics.precision.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert metrics.recall.tolist() == [0, 0, 0, 0.5, 1, 1, 1, 1, 1]


def test_a_radius_beyond_the_code_holds_everything():
    assert evaluate_ranks([0, 8, 8, 8], [1, 0, 0, 0], radius=9).precision_radius == 0.25


def test_labels_and_codes_are_compared_in_every_word():
    """Items differ from the query, and share its label, only in the last bit of 130 and of 200."""
    database = np.zeros((2, 130), np.uint8)
    database[0, -1] = 1
    labels = np.zeros((2, 200), np.uint8)
    labels[0, -1] = 1
    metrics = evaluate_bits(database[1:], database, labels[:1], labels, radius=0)
    assert metrics.map == {None: 0.5}
    assert metrics.precision[:2].tolist() == [0, 0.5]


@pytest.mark.parametrize(
    ("sizes", "hits"),
    [
        # A lone hit in the last pair of 59,000: the harmonic numbers differ by 3e-5 there.
        ([58_998, 2], [0, 1]),
        ([58_998, 2], [0, 2]),
        ([59_000], [5_900]),
        ([1, 28_999, 30_000], [1, 10, 5_889]),
        ([3, 40, 700, 9_000, 30_000, 19_257], [3, 38, 500, 2_000, 3_000, 359]),
    ],
)
@pytest.mark.parametrize("depth", [None, 50, 5_000, 58_999])
def test_stays_exact_at_59000_items(sizes, hits, depth):
    """The formula rank by rank, rounded once by math.fsum, for each number of hits above the cut.

    Chances of scipy; where the cut goes through no block, there is one number of hits.
    """
    first = hits_before = 0
    before = []  # what the ranks of whole blocks add
    expected = None
    for size, hit in zip(sizes, hits, strict=True):
        m = size if depth is None else min(size, depth - first)
        reciprocals = [1 / (first + j) for j in range(1, m + 1)]
        once = math.fsum(reciprocals)
        by_rank = math.fsum((j - 1) * value for j, value in enumerate(reciprocals, start=1))
        of_hits = {}
        for h in range(min(m, hit) + 1) if m < size else [hit]:
            slope = (h - 1) / (m - 1) if m > 1 else 0
            of_hits[h] = h / m * ((hits_before + 1) * once + slope * by_rank)
        if m < size:
            chances = scipy.stats.hypergeom(size, hit, m).pmf(list(of_hits))
            expected = math.fsum(
                chance * (math.fsum(before) + within) / max(hits_before + h, 1)
                for chance, (h, within) in zip(chances, of_hits.items(), strict=True)
            )
            break
        before.append(of_hits[hit])
        first, hits_before = first + size, hits_before + hit
        if first == depth:
            break
    if expected is None:
        expected = math.fsum(before) / max(hits_before, 1)
    distance = np.repeat(range(len(sizes)), sizes)
    relevant = np.concatenate(
        [np.arange(size) < hit for size, hit in zip(sizes, hits, strict=True)]
    )
    database = codes.pack((np.arange(8) < distance[:, None]).astype(np.uint8))
    metrics = retrieval.evaluate(
        np.zeros((1, 1), np.uint8),
        database,
        np.ones((1, 1), np.uint8),
        relevant[:, None].astype(np.uint8),
        code_length=8,
        map_at=(depth,),
    )
    assert metrics.map[depth] == pytest.approx(expected, rel=1e-12, abs=1e-10)


def map_of_project(project, query_bits, database_bits, query_labels, database_labels, depth):
    """mAP as the formulas of the project have it, on float32 codes of -1 and 1, rank by rank."""
    queries, database = (2 * bits.astype(np.float32) - 1 for bits in (query_bits, database_bits))
    size, code_length = database.shape
    top = min(depth or size, size)
    precisions = []
    for query, labels in zip(queries, query_labels, strict=True):
        product = database @ query
        if project == "deephash-pytorch":
            order = np.argsort(0.5 * (code_length - product))
            order = order[:depth] if depth else order[: size - 1]
        elif project == "hashnet":
            order = np.argsort(-product)[:top]
        else:
            order = np.argpartition(-product, top - 1)[:top]
            order = order[np.argsort(-product[order])]
        ranking = [bool(labels @ database_labels[item]) for item in order]
        if any(ranking) or project == "deephash-pytorch":
            precisions.append(brute_force_ap([ranking], None))
    return statistics.mean(precisions)


@pytest.mark.parametrize("depth", [None, 5, 60, 299, 300, 1000])
@pytest.mark.parametrize(("code_length", "multi_label"), [(6, False), (12, True), (70, False)])
@pytest.mark.parametrize("project", retrieval.CONVENTIONS[1:])
def test_conventions_agree_with_the_formulas_of_the_projects(
    project, code_length, multi_label, depth, monkeypatch
):
    """300 items at a few distances: more than a sort handles by insertion, which is stable."""
    monkeypatch.setattr(histograms, "TILE_ITEMS", 1000)  # three queries at a time, then one
    rng = np.random.default_rng(code_length)
    query_bits, database_bits = rng.integers(0, 2, (2, 300, code_length), dtype=np.uint8)
    query_bits = query_bits[:7]
    labels = (rng.random((307, 5)) < (0.2 if multi_label else 0)).astype(np.uint8)
    labels[np.arange(307), rng.integers(0, 5, 307)] = 1
    labels[:, 4] = 0
    labels[6] = [0, 0, 0, 0, 1]  # which no item has
    data = query_bits, database_bits, labels[:7], labels[7:]
    metrics = evaluate_bits(*data, map_at=(depth,), convention=project)
    assert metrics.map == {depth: pytest.approx(map_of_project(project, *data, depth), abs=1e-12)}
    assert metrics.convention == metrics.to_json()["convention"] == project


def test_the_order_of_ties_in_a_convention_is_that_of_an_unstable_sort():
    """The relevant items are the first 100 of 1,000, which a stable sort puts first in each tie."""
    distance = np.random.default_rng(0).integers(0, 4, 1000)
    relevant = (np.arange(1000) < 100).astype(np.uint8)
    order = np.argsort(distance.astype(np.float32))
    if (order == np.argsort(distance, kind="stable")).all():
        pytest.skip("NumPy's default sort leaves these ties alone on this processor")
    metrics = evaluate_ranks(distance.tolist(), relevant.tolist(), convention="hashnet")
    ranking = [bool(relevant[item]) for item in order]
    assert metrics.map[None] == pytest.approx(brute_force_ap([ranking], None))
    stable = evaluate_ranks(distance.tolist(), relevant.tolist(), ties="stable")
    assert metrics.map[None] != pytest.approx(stable.map[None])


@pytest.mark.parametrize(
    ("convention", "whole", "top_1"),
    [
        # Query 1 finds a miss, then a hit, then another hit: AP (1/2 + 2/3) / 2, and 0 in the top
        # 1; without the last rank, AP 1/2. Query 2 finds nothing and is a 0, or left out.
        ("tfhash", 7 / 24, 0),
        ("deephash-pytorch", 1 / 4, 0),
        ("hashnet", 7 / 12, 0),
        ("thulab", 7 / 12, 0),
    ],
)
def test_conventions_worked_by_hand(convention, whole, top_1):
    items = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1]], np.uint8)
    labels = np.array([[0, 0], [1, 0], [1, 0]], np.uint8)
    metrics = evaluate_bits(
        items[[0, 0]], items, np.eye(2, dtype=np.uint8), labels,
        map_at=(None, 1), precision_at=(2,), convention=convention,
    )  # fmt: skip
    assert metrics.map == pytest.approx({None: whole, 1: top_1})
    assert metrics.precision_at == {2: 0.25}


def test_json_has_the_keys_of_a_run_folder():
    metrics = evaluate_ranks(
        [0, 2], [1, 0], map_at=(None, 5000), precision_at=(100,), radius=1, ties="best"
    )
    assert json.loads(json.dumps(metrics.to_json())) == {
        "map": 1.0,
        "map_at5000": 1.0,
        "precision_at100": 0.5,
        "precision_radius1": 1.0,
        "pr_curve": {"recall": [1.0] * 9, "precision": [1.0, 1.0] + [0.5] * 7},
        "query_count": 1,
        "database_size": 2,
        "ties": "best",
        "convention": "tfhash",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_codes": np.zeros((2, 1))}, r"query_codes must be uint8 .* got float64 \[2, 1\]"),
        ({"database_codes": np.zeros((3, 2), np.uint8)}, "database_codes must be .* code_length=5"),
        ({"database_codes": np.ones((3, 1), np.uint8)}, "database_codes .* 3 unused low bits"),
        ({"code_length": 9}, r"query_codes must be uint8 \[n, 2\] for code_length=9"),
        ({"code_length": 0}, "code_length .* got 0"),
        ({"query_labels": np.zeros((2, 4))}, r"query_labels .* got float64 \[2, 4\]"),
        ({"query_labels": np.zeros(2, np.uint8)}, r"query_labels .* got uint8 \[2\]"),
        ({"query_labels": np.full((2, 4), 3, np.uint8)}, "query_labels .* only 0 and 1, got 3"),
        ({"database_labels": np.zeros((2, 4), np.uint8)}, "each of the 3 database_codes, got 2"),
        ({"database_labels": np.zeros((3, 5), np.uint8)}, "number of columns, got 4 and 5"),
        ({"query_codes": np.zeros((0, 1), np.uint8)}, "query_codes must hold at least one code"),
        ({"map_at": (None, 0)}, "map_at must hold integers >= 1 or None, got 0"),
        ({"map_at": (2.5,)}, r"map_at .* got 2\.5"),
        ({"precision_at": (-1,)}, "precision_at must hold integers >= 1, got -1"),
        ({"precision_at": (None,)}, "precision_at must hold integers >= 1, got None"),
        ({"map_at": 0}, "map_at must hold integers >= 1 or None, got 0"),
        ({"map_at": "10"}, "map_at must hold integers >= 1 or None, got '10'"),
        ({"map_at": True}, "map_at must hold .*, got True"),
        ({"precision_at": None}, "precision_at must hold integers >= 1, got None"),
        ({"ndcg_at": 0}, "ndcg_at must hold integers >= 1 or None, got 0"),
        ({"acg_at": None}, "acg_at must hold integers >= 1, got None"),
        ({"weighted_map_at": "5"}, "weighted_map_at must hold integers >= 1 or None, got '5'"),
        ({"query_labels": [0, 1]}, r"query_labels must be .*np\.eye\(C"),
        ({"query_codes": np.zeros((2, 5), np.uint8)}, "codes.pack makes codes of bits"),
        ({"query_codes": np.zeros((2, 5))}, r"codes\.binarize\(x\)"),
        ({"radius": -1}, "radius must be an integer >= 0, got -1"),
        ({"ties": "random"}, "ties must be one of expected, stable, best, worst, got 'random'"),
        (
            {"convention": "peer"},
            "convention must be one of tfhash, deephash-pytorch, hashnet, thulab, got 'peer'",
        ),
    ],
)
def test_refuses_with_one_clear_line(change, message):
    arguments = {
        "query_codes": np.zeros((2, 1), np.uint8),
        "database_codes": np.zeros((3, 1), np.uint8),
        "query_labels": np.zeros((2, 4), np.uint8),
        "database_labels": np.zeros((3, 4), np.uint8),
        "code_length": 5,
    }
    retrieval.evaluate(**arguments)
    with pytest.raises(ValueError, match=message) as error:
        retrieval.evaluate(**arguments | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("one", [2, np.int64(2), np.array(2), [2], (2,), np.array([2])])
def test_one_depth_is_as_good_as_several(one):
    packed, labels = np.uint8([[0], [128], [192]]), np.eye(3, dtype=np.uint8)
    found = retrieval.evaluate(
        packed, packed, labels, labels, code_length=2, map_at=one, precision_at=one
    )
    assert found.map == {2: 1.0} and found.precision_at == {2: 0.5}


def test_no_depth_is_the_whole_ranking():
    packed, labels = np.uint8([[0], [128]]), np.eye(2, dtype=np.uint8)
    found = retrieval.evaluate(packed, packed, labels, labels, code_length=1, map_at=None)
    assert found.map == {None: 1.0}
