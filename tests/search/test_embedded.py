"""Re-ranking by H(x) of the queries."""

from __future__ import annotations

import numpy as np
import pytest

from tests.search.items import BITS, brute_force, made
from tfhash.errors import UserError
from tfhash.search.index import Index


@pytest.mark.parametrize(("k", "candidates"), [(5, 60), (5, 12), (60, 1), (3, 3)])
def test_embeddings_order_the_candidates(index, k, candidates):
    """By the sum over bits of |h - b|, one by one; then by distance and id."""
    codes, ids = made()
    relaxed = np.random.default_rng(7).random((4, BITS)).astype(np.float32)
    queries = np.packbits(relaxed > 0.5, axis=1)
    found = index.search(queries, k=k, embeddings=relaxed, candidates=candidates)
    for number, query in enumerate(queries):
        near = brute_force(query, codes, ids)[: max(k, candidates)]
        scored = []
        for distance, name, place in near:
            bits = np.unpackbits(codes[place], count=BITS)
            score = sum(abs(h - b) for h, b in zip(relaxed[number], bits, strict=True))
            scored.append((round(float(score), 4), distance, name))
        expected = sorted(scored)[:k]
        assert found.ids[number] == [name for _, _, name in expected]
        assert found.distances[number].tolist() == [distance for _, distance, _ in expected]
        np.testing.assert_allclose(found.scores[number], [s for s, _, _ in expected], atol=1e-3)
    assert index.search(queries, k=k).scores is None


def test_embeddings_of_bits_are_the_bits(index):
    """Then the score is the Hamming distance, and nothing changes but the ties that are told."""
    codes, _ = made(5, seed=1)
    bits = np.unpackbits(codes, axis=1, count=BITS).astype(np.float32)
    plain = index.search(codes, radius=9)
    found = index.search(codes, radius=9, embeddings=bits)
    assert found.ids == plain.ids
    assert [s.tolist() for s in found.scores] == [d.tolist() for d in plain.distances]


@pytest.mark.parametrize(
    ("embeddings", "line"),
    [
        (np.zeros((2, BITS)), r"`embeddings`: float64 \[2, 20\]; allowed: float \[1, 20\]"),
        (np.zeros((1, BITS), int), r"`embeddings`: int64 \[1, 20\]; allowed: float"),
        (np.full((1, BITS), 1.1), "`embeddings`: below 0 or above 1, or NaN; allowed: 0 to 1"),
        (np.full((1, BITS), np.nan), "`embeddings`: below 0 or above 1, or NaN"),
    ],
)
def test_other_embeddings_are_one_line(index, embeddings, line):
    with pytest.raises(UserError, match=line):
        index.search(made(1)[0], embeddings=embeddings)


def test_ties_are_of_the_score_and_candidates_are_whole_numbers():
    """50 items of one code: each score is the same, and 45 of them are cut."""
    index = Index(np.zeros((50, 3), np.uint8), ids=[f"{n:02d}" for n in range(50)], code_length=20)
    asked = {"k": 5, "embeddings": np.full((1, 20), 0.25, np.float32)}
    found = index.search(np.zeros((1, 3), np.uint8), **asked)
    assert found.ids == [["00", "01", "02", "03", "04"]] and found.ties_cut.tolist() == [45]
    assert found.scores[0].tolist() == [5.0] * 5
    for candidates in (0, -5, "x", 2.5):
        with pytest.raises(UserError, match="`candidates`: .*; allowed: whole numbers from 1 on"):
            index.search(np.zeros((1, 3), np.uint8), **asked, candidates=candidates)
