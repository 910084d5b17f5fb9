"""SSH: each way of learning against its objective, written out in loops."""

import dataclasses

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.hashers.shallow import FeatureData
from tfhash.methods import ssh
from tfhash.methods.lsh import LSH, LSHConfig
from tfhash.methods.ssh import SSH, SSHConfig

ANGLES = np.linspace(0, np.pi, 100_001)


@pytest.fixture
def tiny():
    """Twelve points in the plane, the first six labelled, in three classes."""
    points = np.random.default_rng(0).standard_normal((12, 2)).astype(np.float32)
    points -= points.mean(axis=0)
    classes = [0, 0, 1, 1, 2, 2]
    pairs = np.array([[1 if a == b else -1 for a in classes] for b in classes], np.float32)
    return points, pairs


def best_of_all(labelled, pairs, points, eta):
    """The unit vector that maximises the objective, by trying every angle."""
    directions = np.stack([np.cos(ANGLES), np.sin(ANGLES)])
    objective = eta * ((points @ directions) ** 2).mean(axis=0)
    for i, x in enumerate(labelled):
        for j, y in enumerate(labelled):
            objective += pairs[i, j] * (x @ directions) * (y @ directions) / len(labelled) ** 2
    return directions[:, objective.argmax()]


def assert_same_line(one, other):
    assert abs(one @ other) == pytest.approx(1, abs=1e-6)


def test_sequential_directions_are_the_best_for_what_is_left(tiny):
    points, pairs = tiny
    points = points / np.sqrt((points**2).sum(axis=1).mean())
    labelled, eta, alpha = points[:6], 0.5, 0.7
    found = ssh.sequential(labelled, pairs, points.T @ points / 12, 2, eta, alpha)
    first = best_of_all(labelled, pairs, points, eta)
    assert_same_line(found[:, 0], first)

    left = pairs.copy()
    wrong = 0
    for i, x in enumerate(labelled):
        for j, y in enumerate(labelled):
            if (x @ first) * (y @ first) * pairs[i, j] < 0:
                left[i, j] -= alpha * (x @ first) * (y @ first)
                wrong += 1
    assert 0 < wrong < 36
    without_first = points - np.outer(points @ first, first)
    assert_same_line(found[:, 1], best_of_all(labelled, left, without_first, eta))
    assert abs(first @ found[:, 1]) > 0.01  # they may be oblique


def test_wrong_pairs_gain_weight_and_right_ones_keep_theirs():
    """p = (1, -2): the second pair is one class apart, the last two are right."""
    pairs = np.array([[1, 1], [-1, 1]], np.float32)
    ssh.reweigh(pairs, np.array([[1], [-2]], np.float32), alpha=0.5)
    np.testing.assert_array_equal(pairs, [[1, 2], [-1, 1]])


def test_orthogonal_directions_are_the_best(tiny):
    points, pairs = tiny
    adjusted = ssh.agreement(points[:6], pairs) + 0.3 * points.T @ points / 12
    found = ssh.top_eigenvectors(adjusted, 1)[:, 0]
    assert_same_line(found, best_of_all(points[:6], pairs, points, 0.3))
    both = ssh.top_eigenvectors(adjusted, 2)
    np.testing.assert_allclose(both.T @ both, np.eye(2), atol=1e-12)
    assert_same_line(both[:, 0], found)


def test_all_nonorthogonal_directions_make_the_gradient_zero():
    """Central differences of the objective at W = L U; it is a maximum along each coordinate."""
    rng = np.random.default_rng(1)
    adjusted = rng.standard_normal((4, 4))
    adjusted = (adjusted + adjusted.T) / 2
    rho = 1.5 - np.linalg.eigvalsh(adjusted)[0]

    def objective(w):
        penalty = ((w.T @ w - np.eye(4)) ** 2).sum()
        return np.trace(w.T @ adjusted @ w) / 2 - rho * penalty / 4

    found = ssh.nonorthogonal(adjusted, 4, rho)
    for step in 1e-4 * np.eye(16).reshape(16, 4, 4):
        slope = (objective(found + step) - objective(found - step)) / 2e-4
        assert slope == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(ssh.nonorthogonal(adjusted, 2, rho), found[:, :2])


def test_too_small_a_rho_is_refused():
    with pytest.raises(UserError, match=r"`rho`: 0.5; allowed for these pairs: above 2"):
        ssh.nonorthogonal(np.diag([1.0, -2.0]), 1, 0.5)


def test_it_beats_lsh(learned, map_of, lsh_map):
    assert map_of(learned(SSH, SSHConfig())) > lsh_map + 0.1


@pytest.mark.parametrize("learning", ["orthogonal", "nonorthogonal"])
def test_the_other_ways_beat_it_where_bits_are_few(learned, map_of, learning):
    """Long codes of theirs fall behind, as in the paper: the last directions hold little."""
    lsh = np.mean([map_of(learned(LSH, LSHConfig(), bits=8, seed=seed)) for seed in range(5)])
    assert map_of(learned(SSH, SSHConfig(learning=learning), bits=8)) > lsh + 0.05


def test_it_learns_from_labels_of_labelled_images_only(learned, real_digits):
    image_set, parts = real_digits
    order = np.arange(len(image_set.ids))
    others = np.setdiff1d(order, parts.labelled)
    order[others] = np.random.default_rng(2).permutation(others)
    shuffled = dataclasses.replace(image_set, labels=image_set.labels[order])
    expected = learned(SSH, SSHConfig(), bits=6).encode_set(image_set)
    got = learned(SSH, SSHConfig(), bits=6, image_set=shuffled).encode_set(image_set)
    np.testing.assert_array_equal(got, expected)
    order[parts.labelled] = np.random.default_rng(2).permutation(parts.labelled)
    shuffled = dataclasses.replace(image_set, labels=image_set.labels[order])
    other = learned(SSH, SSHConfig(), bits=6, image_set=shuffled).encode_set(image_set)
    assert (other != expected).any()


def test_round_trip(check_round_trip):
    check_round_trip(SSH, SSHConfig(), bits=10)


def test_a_bound_on_the_labelled_images_draws_by_the_seed(learned):
    config = SSHConfig(labelled_images=40)
    one, same, other = (learned(SSH, config, bits=2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.parameters["projection"], same.parameters["projection"])
    assert not np.allclose(one.parameters["projection"], other.parameters["projection"])


def test_more_bits_than_features_are_refused():
    data = FeatureData.of(
        np.eye(4, 3, dtype=np.float32), np.eye(4, dtype=np.uint8), np.ones((2, 3))
    )
    hasher = SSH.of(SSHConfig(), SSH.Settings(), code_length=4, image_size=8, seed=0)
    with pytest.raises(UserError, match="`code_length`: 4; `method`=ssh allows 1 to 3"):
        hasher.learn_functions(data)


def test_features_that_never_vary_are_refused():
    data = FeatureData.of(np.zeros((4, 3), np.float32), np.eye(4, dtype=np.uint8), np.zeros((2, 3)))
    hasher = SSH.of(SSHConfig(), SSH.Settings(), code_length=2, image_size=8, seed=0)
    with pytest.raises(UserError, match="`method`=ssh: all images have the same features"):
        hasher.learn_functions(data)


def test_one_class_is_refused():
    data = FeatureData.of(np.eye(4, dtype=np.float32), np.ones((4, 1), np.uint8), np.eye(4))
    hasher = SSH.of(SSHConfig(), SSH.Settings(), code_length=2, image_size=8, seed=0)
    with pytest.raises(UserError, match="needs two classes"):
        hasher.learn_functions(data)


@pytest.mark.parametrize(
    ("field", "value"), [("learning", "greedy"), ("eta", -1.0), ("rho", 0.0), ("alpha", -0.1)]
)
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"`{field}`: "):
        SSHConfig(**{field: value})
