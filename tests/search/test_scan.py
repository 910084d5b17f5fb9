"""Exact search against a sort of all distances."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.search import scan

LENGTHS = [1, 12, 48, 64, 65, 128, 300]


def made(code_length, count=500, queries=7, seed=0):
    """Random codes of which many are the same, packed: rows, queries, and an order of rows."""
    rng = np.random.default_rng([seed, code_length])
    few = rng.integers(0, 2, (40, code_length), np.uint8)
    codes = np.packbits(few[rng.integers(0, 40, count)], axis=1)
    asked = np.packbits(rng.integers(0, 2, (queries, code_length), np.uint8), axis=1)
    return codes, asked, rng.permutation(count)


def brute_force(codes, asked, rank, allowed=None):
    """Per query the rows by (distance, rank), and all distances: bits counted one by one."""
    for query in asked:
        distances = np.unpackbits(codes ^ query, axis=1).sum(axis=1)
        rows = np.arange(len(codes)) if allowed is None else np.flatnonzero(allowed)
        yield sorted(rows, key=lambda row: (distances[row], rank[row])), distances


@pytest.fixture(autouse=True, params=[64, scan.BLOCK])
def block(request, monkeypatch):
    monkeypatch.setattr(scan, "BLOCK", request.param)


@pytest.mark.parametrize("code_length", LENGTHS)
@pytest.mark.parametrize("k", [1, 10, 499, 500, 600])
@pytest.mark.parametrize("part", [None, 0.3, 0.0])
def test_the_k_nearest_are_those_of_a_sort(code_length, k, part):
    codes, asked, rank = made(code_length)
    allowed = None if part is None else np.random.default_rng(1).random(len(codes)) < part
    found = scan.k_nearest(scan.to_rows(asked), scan.to_rows(codes), k, rank, allowed)
    for of_query, (rows, distances) in zip(
        found, brute_force(codes, asked, rank, allowed), strict=True
    ):
        expected = rows[:k]
        assert of_query.rows.tolist() == expected
        assert of_query.distances.tolist() == [distances[row] for row in expected]
        cut = [row for row in rows[k:] if distances[row] == distances[expected[-1]]]
        assert of_query.ties_cut == len(cut)


@pytest.mark.parametrize("code_length", LENGTHS)
@pytest.mark.parametrize("radius", [0, 1, 20, 400])
def test_those_within_a_radius_are_those_of_a_sort(code_length, radius):
    codes, asked, rank = made(code_length)
    asked[0] = codes[3]
    allowed = np.random.default_rng(2).random(len(codes)) < 0.5
    for among in (None, allowed):
        found = scan.within(scan.to_rows(asked), scan.to_rows(codes), radius, rank, among)
        assert len(found[0].rows) > 0
        for of_query, (rows, distances) in zip(
            found, brute_force(codes, asked, rank, among), strict=True
        ):
            assert of_query.rows.tolist() == [row for row in rows if distances[row] <= radius]
            assert of_query.ties_cut == 0


@pytest.mark.parametrize("code_length", LENGTHS)
def test_codes_come_back(code_length):
    codes, *_ = made(code_length)
    rows = scan.to_rows(codes)
    assert rows.dtype == np.uint64 and rows.shape == (500, -(-code_length // 64))
    np.testing.assert_array_equal(scan.to_codes(rows, code_length), codes)


def test_nothing_is_found_in_nothing():
    codes, asked, _ = made(48, count=0)
    nothing = np.zeros(0, np.int64)
    for found in (
        scan.k_nearest(scan.to_rows(asked), scan.to_rows(codes), 3, nothing),
        scan.within(scan.to_rows(asked), scan.to_rows(codes), 3, nothing),
    ):
        assert all(len(of_query.rows) == 0 and of_query.ties_cut == 0 for of_query in found)


def test_recall_counts_what_is_as_near_as_the_true_last():
    found = [np.array([1, 3, 3]), np.array([0]), np.array([], int), np.array([5, 6])]
    best = [np.array([1, 2, 3]), np.array([0, 4]), np.array([2]), np.array([], int)]
    assert scan.recall(found, best) == (1 + 1 / 2 + 0) / 3
    assert scan.recall([], []) == 1
