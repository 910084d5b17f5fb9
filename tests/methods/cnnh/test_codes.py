"""Stage 1 of CNNH: the sweeps over codes against the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.hashers.linear.similarity import code_loss, similarity_factors
from tfhash.methods import cnnh
from tfhash.methods.cnnh import facts_of

# Shares a label: 0-1 (a), 1-2 (b), 4 is as 1, 3 and 5 have c.
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 1]], np.uint8)
SIMILAR = np.array([[1.0 if (a & b).any() else -1.0 for b in LABELS] for a in LABELS])
BITS = 3


def objective(codes: np.ndarray) -> float:
    """|HH' - kS|^2, which is k^2 times that of the paper."""
    return float(((codes @ codes.T - codes.shape[1] * SIMILAR) ** 2).sum())


def derivatives(codes: np.ndarray, row: int, bit: int) -> tuple[float, float]:
    """First and second one in an entry: the objective is of degree 4 in it, so 5 points say it."""
    at = np.arange(-2.0, 3.0)
    values = []
    for step in at:
        moved = codes.copy()
        moved[row, bit] += step
        values.append(objective(moved))
    *_, second, first, _ = np.polyfit(at, values, 4)
    return first, 2 * second


def brute_force_sweep(codes, rows, columns):
    """Entry by entry with the whole matrix, and the derivatives of the objective itself."""
    downhill = 0
    for row in rows:
        for bit in columns[row]:
            slope, curvature = derivatives(codes, row, bit)
            step = -slope / curvature if curvature > 0 else -2 * np.sign(slope)
            downhill += curvature <= 0
            codes[row, bit] += np.clip(step, -1 - codes[row, bit], 1 - codes[row, bit])
    return downhill


def orders(rng, bits=BITS):
    columns = np.stack([rng.permutation(bits) for _ in LABELS])
    return rng.permutation(len(LABELS)), columns


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_a_sweep_is_that_of_a_loop_over_the_whole_matrix(scale):
    """Two sweeps; near 0 (scale .1) curvatures are negative, where the loop goes downhill."""
    rng = np.random.default_rng(0)
    codes = scale * rng.uniform(-1, 1, (6, BITS))
    expected = codes.copy()
    downhill = 0
    for _ in range(2):
        rows, columns = orders(rng)
        downhill += brute_force_sweep(expected, rows, columns)
        cnnh.sweep(codes, *similarity_factors(LABELS), rows, columns)
    np.testing.assert_allclose(codes, expected, atol=1e-8)
    inside = np.abs(expected) < 1
    assert inside.any() and not inside.all()  # else the order, or the clipping, was not seen
    assert (downhill > 0) == (scale < 1)


def test_the_order_of_images_and_bits_matters():
    """Otherwise the test above could not see that one is swapped."""
    start = np.random.default_rng(0).uniform(-1, 1, (6, BITS))
    rows, columns = np.arange(6), np.tile(np.arange(BITS), (6, 1))
    ends = []
    for order in ((rows, columns), (rows[::-1], columns), (rows, columns[:, ::-1])):
        codes = start.copy()
        cnnh.sweep(codes, *similarity_factors(LABELS), *order)
        ends.append(codes)
    assert np.abs(ends[0] - ends[1]).max() > 0.01 and np.abs(ends[0] - ends[2]).max() > 0.01


def test_sweeps_lower_the_objective():
    factors, weights = similarity_factors(np.eye(4, dtype=np.uint8)[np.arange(80) % 4])
    start = np.random.default_rng(0).uniform(-1, 1, (80, 8))
    losses = [code_loss(start, factors, weights)]
    for sweeps in range(1, 5):
        codes = cnnh.relaxed_codes(start, factors, weights, sweeps, np.random.default_rng(1))
        assert np.abs(codes).max() <= 1
        losses.append(code_loss(codes, factors, weights))
    assert losses[2] < losses[1] < losses[0] and np.all(np.diff(losses) <= 0)


def test_a_sweep_that_raises_the_objective_is_undone(monkeypatch):
    """The first of three makes it worse than the start, the third worse than the second."""
    factors, weights = similarity_factors(LABELS)
    good = np.where(LABELS[:, [2, 2, 2]] == 1, 1.0, -1.0)
    put = [np.ones((6, BITS)), good, 0.5 * good]
    left = iter(put)
    orders_seen = []

    def broken(codes, factors, weights, rows, columns):
        orders_seen.append((rows, columns))
        codes[:] = next(left)

    monkeypatch.setattr(cnnh, "sweep", broken)
    start = 0.1 * good
    bad, best, middle, first = (code_loss(one, factors, weights) for one in (*put, start))
    assert best < middle < first < bad
    codes = cnnh.relaxed_codes(start, factors, weights, 3, np.random.default_rng(1))
    np.testing.assert_array_equal(codes, good)
    # Each sweep has an order of its own, and each image in it one of its bits.
    for parts in zip(*orders_seen, strict=True):
        assert len({order.tobytes() for order in parts}) == 3
    for rows, columns in orders_seen:
        assert sorted(rows) == list(range(6)) and len(np.unique(columns, axis=0)) > 1
        assert (np.sort(columns, axis=1) == range(BITS)).all()


def test_facts_of_codes():
    """Bits 0 and 1 are equal and bit 2 their opposite: rank 1; bit 3 is always 1: imbalance .5."""
    codes = np.array([[1.0, 1, -1, 1], [1, 1, -1, 1], [-1, -1, 1, 1]])
    factors, weights = similarity_factors(np.eye(2, dtype=np.uint8)[[0, 0, 1]])
    facts = facts_of(codes, factors, weights)
    # HH'/k is 1 within the classes and (-3 + 1) / 4 = -.5 between: of 9 pairs 4 are off by .5.
    assert facts["code_loss"] == pytest.approx(4 * 0.25 / 9)
    assert (facts["code_rank"], facts["distinct_codes"]) == (2, 2)
    assert facts["code_imbalance"] == 0.5
    assert facts_of(codes[:, :3], factors, weights)["code_imbalance"] == pytest.approx(1 / 6)
