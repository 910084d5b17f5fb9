"""SSDH: the ranking term and the contrastive form by hand, and where the latter has a gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfhash.methods.ssdh import stage as ssdh


def test_the_ranking_term_by_hand():
    """d(a, p)² = 1 and d(a, n)² = 2: half of max(0, m + 1 - 2), which is 0 up to m = 1."""
    a, p, n = tf.constant([0.0, 0.0, 0.0]), tf.constant([1.0, 0, 0]), tf.constant([0, 1.0, 1.0])
    found = [float(ssdh.rank_loss(margin, a, p, n)) for margin in (0.5, 1.0, 1.5, 3.0)]
    assert found == [0, 0, 0.25, 1.0]


def test_the_contrastive_form_by_hand():
    """d(a, p)² = 4, d(a, n) = 5 (3, 4, 5): (4 + max(0, m - 5)²) / 2; squared it would be 25."""
    a, p, n = tf.constant([0.0, 0.0]), tf.constant([0.0, 2.0]), tf.constant([3.0, 4.0])
    found = [float(ssdh.contrastive_loss(margin, a, p, n)) for margin in (0.0, 5.0, 6.0, 8.0)]
    assert found == pytest.approx([2, 2, 2.5, 6.5])


def test_the_gradient_of_the_contrastive_form():
    """By hand: a - p from the first part, and -(m - d) (a - n) / d from the second."""
    rng = np.random.default_rng(0)
    a, p, n = (tf.constant(rng.normal(size=3), tf.float32) for _ in range(3))
    distance = math.dist(a.numpy(), n.numpy())
    margin = distance + 0.7
    with tf.GradientTape() as tape:
        tape.watch([a, p, n])
        loss = ssdh.contrastive_loss(margin, a, p, n)
    of_a, of_p, of_n = tape.gradient(loss, [a, p, n])
    push = 0.7 * (a - n).numpy() / distance
    np.testing.assert_allclose(of_p, p - a, rtol=1e-5)
    np.testing.assert_allclose(of_n, push, rtol=1e-5)
    np.testing.assert_allclose(of_a, (a - p).numpy() - push, rtol=1e-4)


@pytest.mark.parametrize("apart", [0.0, 1e-25])
def test_the_contrastive_form_has_a_gradient_where_codes_are_the_same(apart):
    """The square of 1e-25 is 0 in float32 too. The loss is m² / 2."""
    a, n = tf.fill([1, 3], 0.5), tf.fill([1, 3], 0.5) + apart
    if apart:
        a, n = tf.zeros([1, 3]), tf.fill([1, 3], apart)
    with tf.GradientTape() as tape:
        tape.watch([a, n])
        loss = ssdh.contrastive_loss(3.0, a, a, n)
    assert float(loss[0]) == pytest.approx(4.5)
    for gradient in tape.gradient(loss, [a, n]):
        np.testing.assert_array_equal(gradient, np.zeros((1, 3)))
