"""Pairs of a batch with all labelled images: the terms, their weights, and who is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfhash.data.pairs import count_similar
from tfhash.hashers import buffered_pairs
from tfhash.hashers.buffered_pairs import pairs_with_all


@pytest.fixture
def several() -> dict[str, np.ndarray]:
    """A batch of three and all seven images, four bits, up to three labels each."""
    rng = np.random.default_rng(0)
    all_labels = (rng.uniform(size=(7, 4)) < 0.4).astype(np.float32)
    all_labels[all_labels.sum(1) == 0, 0] = 1
    rows = [4, 0, 2]
    return {
        "scores": rng.normal(size=(3, 4)).astype(np.float32),
        "labels": all_labels[rows],
        "all_scores": rng.normal(size=(7, 4)).astype(np.float32),
        "all_labels": all_labels,
    }


def test_the_loss_of_pairs_by_hand():
    """u = (2, 0) with (1, 0), (0, 1), (-1, 0): theta is 1, 0, -1; the first shares its label."""
    found = pairs_with_all(
        tf.constant([[2.0, 0.0]]),
        tf.constant([[1.0, 0.0]]),
        tf.constant([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
        tf.constant([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]),
    )
    expected = (math.log(1 + math.e) - 1 + math.log(2) + math.log(1 + 1 / math.e)) / 3
    assert found.numpy() == pytest.approx(expected)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 0.5)])
def test_the_loss_of_pairs_and_its_gradient_by_loops(several, weights):
    """dL/du_i = 1 / (2 b n) sum over j of w (sigmoid(theta) - s) v_j; all_scores have none."""
    u, v = several["scores"].astype(float), several["all_scores"].astype(float)
    total, gradient = 0.0, np.zeros_like(u)
    for i, j in np.ndindex(3, 7):
        theta = u[i] @ v[j] / 2
        similar = (several["labels"][i] * several["all_labels"][j]).any()
        weight = weights[0] if similar else weights[1]
        total += weight * (math.log1p(math.exp(theta)) - similar * theta) / 21
        gradient[i] += weight * (1 / (1 + math.exp(-theta)) - similar) * v[j] / 42
    given = {name: tf.constant(value) for name, value in several.items()}
    with tf.GradientTape() as tape:
        tape.watch([given["scores"], given["all_scores"]])
        loss = pairs_with_all(**given, weights=weights)
    found, of_all = tape.gradient(loss, [given["scores"], given["all_scores"]])
    assert loss.numpy() == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)
    assert of_all is None


def test_large_scores_do_not_overflow():
    """theta is 1e6 and -1e6 for pairs that share a label: 0 and 1e6."""
    one, two = tf.constant([[1e3, 1e3]]), tf.constant([[1e3, 1e3], [-1e3, -1e3]])
    found = pairs_with_all(one, tf.ones([1, 1]), two, tf.ones([2, 1])).numpy()
    assert found == pytest.approx(5e5)


@pytest.mark.parametrize("most", [1, 3])
def test_similar_pairs_are_counted_as_loops_do(most):
    rng = np.random.default_rng(most)
    labels = np.zeros((30, 5), np.uint8)
    for row in labels:
        row[rng.choice(5, rng.integers(1, most + 1), replace=False)] = 1
    expected = sum(bool((a & b).any()) for a in labels for b in labels)
    assert count_similar(labels) == expected
    of_similar, of_others = buffered_pairs.balancing_weights(labels)
    assert of_similar * expected == pytest.approx(450) == of_others * (900 - expected)
