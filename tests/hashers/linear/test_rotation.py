"""The rotation of ITQ, by hand in two dimensions and by its promises in more."""

import numpy as np
import pytest

from tfhash.hashers.linear.rotation import (
    iterative_quantization,
    quantization_loss,
    random_rotation,
)


def turn(degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def test_loss_by_hand():
    """(2, -.5) is 1 from sign 1 and .5 from -1: 1 + .25; (1, 1) is a code: 0."""
    data = np.array([[2.0, -0.5], [1.0, 1.0]])
    assert quantization_loss(data, np.eye(2)) == pytest.approx((1.25 + 0) / 2)


def test_it_turns_the_corners_of_a_square_back():
    """Corners turned by 30 degrees: turning them by -30, up to quarter turns, leaves no loss."""
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], float)
    found = iterative_quantization(corners @ turn(30), np.eye(2), iterations=20)
    assert quantization_loss(corners @ turn(30), found) == pytest.approx(0, abs=1e-12)
    assert quantization_loss(corners @ turn(30), np.eye(2)) > 0.2


def test_one_step_is_the_best_rotation_for_the_codes_of_the_last():
    """Among all turns and reflections of the plane, a fine grid of them, none is better."""
    data = np.random.default_rng(0).normal(size=(50, 2)) * [2, 0.5]
    codes = np.where(data > 0, 1, -1)
    found = iterative_quantization(data, np.eye(2), iterations=1)
    reflection = np.diag([1.0, -1.0])
    grid = [turn(a) @ r for a in np.arange(0, 360, 0.25) for r in (np.eye(2), reflection)]
    best = min(((codes - data @ rotation) ** 2).sum() for rotation in grid)
    assert ((codes - data @ found) ** 2).sum() <= best + 1e-9


def test_the_loss_never_grows_and_the_matrix_stays_orthogonal():
    data = np.random.default_rng(1).normal(size=(300, 8)) @ np.diag(np.arange(1, 9)) / 4
    rotation = random_rotation(8, seed=0)
    losses = [quantization_loss(data, rotation)]
    for _ in range(15):
        rotation = iterative_quantization(data, rotation, iterations=1)
        losses.append(quantization_loss(data, rotation))
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(8), atol=1e-9)
    assert (np.diff(losses) <= 1e-9).all() and losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("size", [1, 5])
def test_a_random_rotation_is_orthogonal_and_its_seed_decides(size):
    one = random_rotation(size, seed=3)
    np.testing.assert_allclose(one @ one.T, np.eye(size), atol=1e-12)
    np.testing.assert_array_equal(one, random_rotation(size, seed=3))
