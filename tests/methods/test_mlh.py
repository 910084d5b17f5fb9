"""MLH: loss-augmented inference and its bound against all pairs of codes, and what it learns."""

import itertools

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.hashers.shallow import FeatureData
from tfhash.methods import mlh
from tfhash.methods.mlh import MLH, MLHConfig

CODES = np.array(list(itertools.product((-1, 1), repeat=4)))


def test_the_hinge_losses():
    """rho = 1.5, lambda = .5: a similar pair is free up to d = .5, a dissimilar one from 2.5."""
    expected = [[0, 0.5, 1.5, 2.5], [1.25, 0.75, 0.25, 0]]
    np.testing.assert_allclose(mlh.hinge_losses(3, rho=1.5, dissimilar_weight=0.5), expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.3, 1, 3])
def test_the_worst_codes_are_the_worst_of_all(seed, scale):
    p, q = np.random.default_rng(seed).standard_normal((2, 2, 4))
    losses = scale * mlh.hinge_losses(4, rho=1.5, dissimilar_weight=0.5)

    def value(row, g, h):
        return losses[row, (g != h).sum()] + g @ p[row] + h @ q[row]

    got = mlh.worst_codes(p, q, losses)
    for row in range(2):
        worst = max(value(row, g, h) for g in CODES for h in CODES)
        assert value(row, got[0][row], got[1][row]) == pytest.approx(worst)


def bound(first, second, projection, losses):
    """The mean of the bound over pairs, each maximum by all codes."""
    values = []
    for x, y, of_pair in zip(first, second, losses, strict=True):
        p, q = x @ projection, y @ projection
        augmented = max(of_pair[(g != h).sum()] + g @ p + h @ q for g in CODES for h in CODES)
        values.append(augmented - np.abs(p).sum() - np.abs(q).sum())
    return np.mean(values)


@pytest.fixture
def pairs():
    """Four pairs of three features, projections to four bits, and losses of both kinds."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 4, 3))
    losses = np.repeat(mlh.hinge_losses(4, rho=1.5, dissimilar_weight=0.5), 2, axis=0)
    return first, second, rng.standard_normal((3, 4)), losses


def test_the_direction_is_the_slope_of_the_bound(pairs):
    """By central differences: the bound is piecewise linear."""
    first, second, projection, losses = pairs
    direction = mlh.descent_direction(first, second, projection, losses)
    assert np.abs(direction).max() > 0.1
    for position in np.ndindex(projection.shape):
        step = np.zeros_like(projection)
        step[position] = 1e-6
        higher, lower = (bound(first, second, projection + s, losses) for s in (step, -step))
        assert direction[position] == pytest.approx((lower - higher) / 2e-6, abs=1e-6)


def test_the_bound_is_above_the_loss(pairs):
    first, second, projection, losses = pairs
    differ = (first @ projection > 0) != (second @ projection > 0)
    loss = np.mean([row[d] for row, d in zip(losses, differ.sum(axis=1), strict=True)])
    assert bound(first, second, projection, losses) >= loss > 0


def test_pairs_that_are_right_leave_the_projection_alone():
    """Scores of 10 outweigh any loss: g and h are the codes themselves."""
    points = np.array([[10.0, 10], [10, -10]])
    losses = mlh.hinge_losses(2, rho=1, dissimilar_weight=1)
    got = mlh.descent_direction(points, points[::-1], np.eye(2), losses)
    np.testing.assert_array_equal(got, 0)


def test_the_pairs_of_each_kind():
    relevant = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
    similar, dissimilar = mlh.pairs_of_each_kind(relevant)
    np.testing.assert_array_equal(similar, [2])  # 0 and 2
    np.testing.assert_array_equal(dissimilar, [1, 5])  # 0 and 1, 1 and 2


def test_features_get_mean_squared_norm_1():
    """Squared norms 25 and 1, mean 13."""
    got, norm = mlh.with_unit_norm(np.array([[3.0, 4], [0, 1]]))
    assert norm == pytest.approx(np.sqrt(13))
    np.testing.assert_allclose(got, np.array([[3, 4], [0, 1]]) / norm)
    with pytest.raises(UserError, match="`features`: .* are 0"):
        mlh.with_unit_norm(np.zeros((2, 3)))


def test_directions_have_length_1(learned):
    projection = learned(MLH, MLHConfig(updates=10)).parameters["projection"]
    np.testing.assert_allclose(np.linalg.norm(projection, axis=0), 1, rtol=1e-5)


def test_an_offset_is_learned_where_a_setting_asks_for_it():
    """Classes at 2 and 3 on a line: no code without an offset tells them apart, for all are > 0.

    A direction of length 1 over (x / norm, 1) is (projection, offset / norm).
    """
    points = np.float32([[2], [2], [3], [3]]).repeat(5, axis=0)
    labels = np.eye(2, dtype=np.uint8)[[0, 0, 1, 1]].repeat(5, axis=0)
    data = FeatureData.of(points, labels, points[:0])

    def learn(**settings):
        config = MLHConfig(updates=500, **settings)
        hasher = MLH.of(config, MLH.Settings(), code_length=8, image_size=8, seed=0)
        return hasher.learn_functions(data)

    def codes_of(functions):
        scores = np.float32([[2], [3]]) @ functions["projection"] + functions["offset"]
        return (scores > 0).sum(axis=0) == 1  # which bits tell the classes apart

    without, learned = learn(), learn(learned_offset=True)
    assert not without["offset"].any() and not codes_of(without).any()
    assert codes_of(learned).any()
    offsets = learned["offset"] / np.sqrt(np.mean(points**2))
    lengths = np.square(learned["projection"]).sum(axis=0) + np.square(offsets)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_it_beats_lsh(learned, map_of, lsh_map):
    assert map_of(learned(MLH, MLHConfig(updates=1000))) > lsh_map + 0.1


def test_round_trip(check_round_trip):
    check_round_trip(MLH, MLHConfig(updates=100))


def test_images_without_a_label_change_nothing():
    features = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    labels = np.eye(2, dtype=np.uint8)[[0, 0, 0, 1, 1, 1, 1, 0]]
    hasher = MLH.of(MLHConfig(updates=20), MLH.Settings(), code_length=5, image_size=8, seed=0)
    without, those = (
        hasher.learn_functions(FeatureData.of(features, labels, rest))
        for rest in (features[:0], features + 1)
    )
    np.testing.assert_array_equal(without["projection"], those["projection"])


@pytest.mark.parametrize(
    ("labels", "missing"), [(np.ones((4, 1), np.uint8), "no"), (np.eye(4, dtype=np.uint8), "a")]
)
def test_pairs_of_one_kind_alone_are_refused(labels, missing):
    data = FeatureData.of(np.eye(4, dtype=np.float32), labels, np.eye(4))
    with pytest.raises(UserError, match=f"no two labelled images share {missing} label"):
        MLH.of(MLHConfig(), MLH.Settings(), code_length=2, image_size=8, seed=0).learn_functions(
            data
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rho", 0.0),
        ("dissimilar_weight", -1.0),
        ("loss_scale", 0.0),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("pairs", 1),
        ("updates", -1),
        ("labelled_images", 1),
    ],
)
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"`{field}`: "):
        MLHConfig(**{field: value})
