"""Kernels on anchors: NumPy and TensorFlow against the formula in loops."""

import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.hashers.linear import kernels

POINTS = np.array([[0, 0], [3, 4], [1, 0]], np.float32)
ANCHORS = np.array([[0, 0], [0, 1]], np.float32)


def test_the_typical_distance_is_the_root_of_the_mean_square():
    """Squared distances: 0, 1; 25, 18; 1, 2."""
    assert kernels.typical_distance(POINTS, ANCHORS) == pytest.approx(np.sqrt(47 / 6))


def test_images_that_are_all_the_same_are_a_users_mistake():
    with pytest.raises(UserError, match="`features`: .* the same"):
        kernels.typical_distance(POINTS[[0, 0]], POINTS[[0]])


def test_the_kernel_is_the_formula():
    expected = np.exp(-np.array([[0, 1], [25, 18], [1, 2]]) / 8)
    got = kernels.rbf(POINTS, ANCHORS, width=2.0)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_scores_in_a_graph_are_those_of_the_kernel():
    projection, offset = np.array([[1, -2], [3, 0.5]]), np.array([0.25, -1])
    parameters = {"anchors": ANCHORS, "width": 2.0, "projection": projection, "offset": offset}
    parameters = {name: tf.constant(value, tf.float32) for name, value in parameters.items()}
    scores = tf.function(lambda x: kernels.kernel_scores(x, parameters))(POINTS).numpy()
    expected = np.exp(-np.array([[0, 1], [25, 18], [1, 2]]) / 8) @ projection + offset
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_anchors_are_different_rows_and_repeat_with_the_seed():
    rows = np.arange(20).reshape(10, 2)
    one, same, other = (
        kernels.choose_anchors(rows, 4, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert set(map(tuple, one)) < set(map(tuple, rows)) and len(np.unique(one, axis=0)) == 4
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_too_few_images_are_all_anchors_and_it_is_said(capsys):
    chosen = kernels.choose_anchors(POINTS, 300, np.random.default_rng(0))
    np.testing.assert_array_equal(chosen, POINTS)
    assert "3 anchors" in capsys.readouterr().out
