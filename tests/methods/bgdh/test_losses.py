"""The losses of BGDH, by hand and in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfhash.methods import bgdh


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def test_pair_loss_by_hand():
    """u = (2, 0), (1, 1), (0, -2): theta of (0, 1) is 1, of (0, 2) 0, of (1, 2) -1.

    The first two share a label: log(1 + e) - 1, log 2 and log(1 + 1/e).
    """
    u = tf.constant([[[2.0, 0], [1, 1], [0, -2]]])
    labels = tf.constant([[[1.0, 0], [1, 0], [0, 1]]])
    pairs = tf.constant([[[0, 1], [0, 2], [1, 2]]])
    expected = [math.log(1 + math.e) - 1, math.log(2), math.log(1 + 1 / math.e)]
    for count in (1, 2, 3):
        found = bgdh.pair_loss(u, pairs[:, :count], labels)
        assert found.numpy() == pytest.approx(np.mean(expected[:count]), rel=1e-6)
    balanced = bgdh.pair_loss(u, pairs, labels, balanced=True).numpy()
    assert balanced == pytest.approx((expected[0] + (expected[1] + expected[2]) / 2) / 2, rel=1e-6)
    one_kind = bgdh.pair_loss(u, pairs[:, 1:], labels, balanced=True).numpy()
    assert one_kind == pytest.approx((expected[1] + expected[2]) / 4, rel=1e-6)


def test_pair_loss_in_loops_and_with_several_labels():
    """Items that share any label are similar; one without a label is so to none."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(2, 5, 3)).astype(np.float32)
    labels = (rng.random((2, 5, 4)) < 0.5).astype(np.float32)
    labels[0, 0] = 0
    pairs = rng.integers(0, 5, (2, 6, 2)).astype(np.int32)
    total = 0.0
    for group in range(2):
        for i, j in pairs[group]:
            similar = any(labels[group, i] * labels[group, j])
            theta = u[group, i].astype(float) @ u[group, j] / 2
            total -= log_sigmoid(theta) if similar else log_sigmoid(-theta)
    assert bgdh.pair_loss(u, pairs, labels).numpy() == pytest.approx(total / 12, rel=1e-5)


def test_pair_loss_of_great_scores_is_finite():
    """theta = 4e4 of a pair that is not similar costs 4e4, of a similar one nothing."""
    u, pairs = tf.fill([1, 2, 2], 200.0), tf.constant([[[0, 1]]])
    unlike, like = tf.eye(2)[tf.newaxis], tf.ones([1, 2, 1])
    assert bgdh.pair_loss(u, pairs, unlike).numpy() == pytest.approx(4e4)
    assert bgdh.pair_loss(u, pairs, like).numpy() == pytest.approx(0)


def test_graph_loss_by_hand():
    """e = (1, 2). A context (1, 0) has w'e = 1, negatives (0, 1) and (-1, 0) have 2 and -1."""
    e, near = tf.constant([[[1.0, 2]]]), tf.constant([[[[1.0, 0]]]])
    far = tf.constant([[[[0.0, 1], [-1, 0]]]])
    expected = -(log_sigmoid(1) + log_sigmoid(-2) + log_sigmoid(1)) / 3
    assert bgdh.graph_loss(e, near, far).numpy() == pytest.approx(expected, rel=1e-6)


def test_graph_loss_in_loops():
    rng = np.random.default_rng(0)
    e, near, far = (rng.normal(size=(2, 3, *more, 4)) for more in ((), (2,), (5,)))
    total, count = 0.0, 0
    for group in range(2):
        for image in range(3):
            triples = [(w, 1) for w in near[group, image]] + [(w, -1) for w in far[group, image]]
            for w, gamma in triples:
                total -= log_sigmoid(gamma * (w @ e[group, image]))
                count += 1
    found = bgdh.graph_loss(*(tf.constant(part, tf.float32) for part in (e, near, far)))
    assert found.numpy() == pytest.approx(total / count, rel=1e-5)
    assert np.isfinite(bgdh.graph_loss(*(tf.fill(part.shape, 1e3) for part in (e, near, far))))


def test_rows_of_a_table_have_a_dense_gradient():
    """Place 2 comes twice, so its row gets both."""
    table, places = tf.Variable(tf.reshape(tf.range(8.0), [4, 2])), tf.constant([[2, 0], [2, 3]])
    with tf.GradientTape() as tape:
        rows = bgdh.rows_of(tf.convert_to_tensor(table), places)
        loss = tf.reduce_sum(rows * tf.constant([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]]))
    np.testing.assert_array_equal(rows, [[[4, 5], [0, 1]], [[4, 5], [6, 7]]])
    gradient = tape.gradient(loss, table)
    assert isinstance(gradient, tf.Tensor)
    np.testing.assert_array_equal(gradient, [[3, 4], [0, 0], [6, 8], [7, 8]])
