"""Similarities of pairs as factors, against matrices made pair by pair."""

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.hashers.linear.similarity import agreement, code_loss, similarity_factors, some_rows

# Shares a label: 0-1 (a), 1-2 (b), 3 with itself alone; 4 is as 1; 5 has none, not even its own.
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]], np.uint8)


def similarity(labels):
    """S, by a look at each pair."""
    return np.array([[1 if (a & b).any() else -1 for b in labels] for a in labels])


@pytest.mark.parametrize("labels", [LABELS, np.eye(4, dtype=np.uint8)[[0, 0, 1, 2, 3, 1]]])
def test_factors_make_the_similarities(labels):
    factors, weights = similarity_factors(labels)
    assert factors.shape[1] == len(weights) <= len(np.unique(labels, axis=0))
    np.testing.assert_allclose(factors * weights @ factors.T, similarity(labels), atol=1e-12)


def test_agreement_counts_pairs():
    """h'Sh: pairs on which equality of bits says what S says, less the others."""
    code = np.array([1.0, 1, -1, 1, -1, -1])
    expected = sum(
        1 if (a == b) == (s == 1) else -1
        for a, row in zip(code, similarity(LABELS), strict=True)
        for b, s in zip(code, row, strict=True)
    )
    assert agreement(code, *similarity_factors(LABELS)) == pytest.approx(expected)


def test_the_loss_is_that_of_hamming_distances():
    codes = np.random.default_rng(0).choice([-1.0, 1.0], (6, 5))
    losses = []
    for i, a in enumerate(LABELS):
        for j, b in enumerate(LABELS):
            distance = (codes[i] != codes[j]).sum() / 5
            losses.append((distance - (0 if (a & b).any() else 1)) ** 2)
    got = code_loss(codes, *similarity_factors(LABELS))
    assert got == pytest.approx(4 * np.mean(losses))


def test_one_class_is_a_users_mistake():
    with pytest.raises(UserError, match="share a label; it needs two classes"):
        similarity_factors(np.array([[1, 0], [1, 1]], np.uint8))


def test_rows_are_all_or_some():
    rng = np.random.default_rng(0)
    for most in (None, 5, 9):
        np.testing.assert_array_equal(some_rows(5, most, rng), range(5))
    rows = some_rows(100, 10, rng)
    assert len(np.unique(rows)) == 10 and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(
        some_rows(100, 10, np.random.default_rng(3)), some_rows(100, 10, np.random.default_rng(3))
    )
