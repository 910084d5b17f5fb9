"""KLSH: its directions against the feature space itself, and its codes against loops by hand."""

import numpy as np
import pytest
import scipy.linalg

from tfhash.errors import UserError
from tfhash.hashers.linear import kernels
from tfhash.hashers.shallow import FeatureData
from tfhash.methods import klsh
from tfhash.methods.klsh import KLSH, KLSHConfig


@pytest.fixture
def points():
    return np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)


def fit(features, config=None, bits=6, seed=0):
    """Parameters learned from `features`, the first row labelled."""
    data = FeatureData.of(features[:1], np.ones((1, 1), np.uint8), features[1:])
    config = config or KLSHConfig(anchors=8, anchors_per_bit=3)
    hasher = KLSH.of(config, KLSH.Settings(), code_length=bits, image_size=8, seed=seed)
    return hasher.learn_functions(data)


def test_directions_of_a_linear_kernel_are_whitened_means_in_the_space_itself():
    """Kernel XX' of 7 points in 2 dimensions, where phi(x) = x can be written down.

    With the covariance C = X'X / 7 of centred points, K^-1/2 e_S is X (X'X)^-3/2 X' e_S, so that
    the normal of the hyperplane is X'w = sqrt(6/3) (X'X)^-1/2 X'e_S = sqrt(6/3) C^-1/2 X'e_S /
    sqrt(7): the whitened sum of the chosen three. K has 5 eigenvalues of 0.
    """
    x = np.random.default_rng(1).normal(3, 2, (7, 2))
    chosen = np.zeros((7, 1), bool)
    chosen[[0, 2, 5]] = True
    weights = klsh.random_directions(x @ x.T, chosen)
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / 7
    root = np.real(scipy.linalg.sqrtm(np.linalg.inv(covariance)))
    expected = np.sqrt(6 / 3) * root @ centred[[0, 2, 5]].sum(axis=0) / np.sqrt(7)
    np.testing.assert_allclose(centred.T @ weights[:, 0], expected, rtol=1e-8)


def test_two_anchors_by_hand():
    """K = [[1, c], [c, 1]] centred is (1 - c)/2 [[1, -1], [-1, 1]]: eigenvalues 1 - c and 0.

    K^-1/2 is [[1, -1], [-1, 1]] / (2 sqrt(1 - c)). With c = 3/4, t = 1 and e_S = (1, 0), w is
    sqrt(1/1) (1, -1).
    """
    kernel = np.array([[1, 0.75], [0.75, 1]])
    found = klsh.random_directions(kernel, np.array([[True], [False]]))
    np.testing.assert_allclose(found, [[1], [-1]], rtol=1e-12)


def test_eigenvalues_next_to_zero_are_left_out():
    """Of a centred diagonal basis with eigenvalues 1 and 1e-9, the second one counts nothing."""
    axes = np.linalg.qr(np.column_stack([np.ones(3), [1, 0, 0], [0, 1, 0]]))[0][:, 1:]
    chosen = np.array([[False], [True], [False]])
    with_both = klsh.random_directions(axes @ np.diag([1, 1e-9]) @ axes.T, chosen)
    alone = klsh.random_directions(np.outer(axes[:, 0], axes[:, 0]), chosen)
    np.testing.assert_allclose(with_both, alone, atol=1e-9)
    larger = klsh.random_directions(axes @ np.diag([1, 1e-7]) @ axes.T, chosen)
    assert np.abs(larger - alone).max() > 100


def test_scores_are_those_of_the_kernel_centred_both_ways(points):
    """In loops, with the kernel of an image centred as that of the anchors is:

    kappa(x, a) - mean_b kappa(x, b) - mean_b kappa(b, a) + mean_bc kappa(b, c), times W.
    """
    found = fit(points)
    anchors, width = found["anchors"].astype(float), found["width"]

    def kappa(x, y):
        return np.exp(-((x - y) ** 2).sum() / (2 * width**2))

    among = np.array([[kappa(a, b) for b in anchors] for a in anchors])
    scores = kernels.kernel_scores(points, {n: np.float32(v) for n, v in found.items()}).numpy()
    for x, score in zip(points.astype(float), scores, strict=True):
        of_x = np.array([kappa(x, a) for a in anchors])
        centred = of_x - of_x.mean() - among.mean(axis=0) + among.mean()
        np.testing.assert_allclose(score, centred @ found["projection"], atol=1e-4)


def test_each_bit_has_the_whitened_mean_of_some_anchors(points):
    """K^1/2 W / sqrt((p-1)/t) is E without the mean of its columns: t entries 1 - t/p, others -t/p.

    p = 8, t = 3: 5/8 three times and -3/8 five times, other anchors from bit to bit.
    """
    found = fit(points)
    exact = found["anchors"].astype(float)
    kernel = kernels.rbf(exact, exact, found["width"])
    centring = np.eye(8) - 1 / 8
    root = np.real(scipy.linalg.sqrtm(centring @ kernel @ centring))
    subsets = root @ found["projection"] / np.sqrt(7 / 3)
    np.testing.assert_allclose(np.sort(subsets, axis=0)[:5], -3 / 8, atol=1e-5)
    np.testing.assert_allclose(np.sort(subsets, axis=0)[5:], 5 / 8, atol=1e-5)
    assert len({tuple(column > 0) for column in subsets.T}) > 3


def test_the_width_is_the_typical_distance_of_all_images(points):
    found = fit(points)
    distances = [[((x - a) ** 2).sum() for a in found["anchors"]] for x in points]
    assert found["width"] == pytest.approx(np.sqrt(np.mean(distances)), rel=1e-5)
    rows = {tuple(row) for row in points}
    assert found["anchors"].shape == (8, 3) and {tuple(row) for row in found["anchors"]} < rows


def test_seeds_give_other_anchors_and_other_directions(points):
    one, same, other = (fit(points, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one["projection"], same["projection"])
    assert not np.array_equal(one["anchors"], other["anchors"])
    assert klsh.choose_subsets(9, 4, 5, np.random.default_rng(0)).sum(axis=0).tolist() == [4] * 5


def test_it_is_above_chance(learned, map_of):
    """A class is a tenth of the digits. Whitening costs it what LSH has on these: .43."""
    assert map_of(learned(KLSH, KLSHConfig())) > 0.3


def test_bits_are_balanced(learned, real_digits):
    """About half of the images have a bit, as kernels are centred: not so in the port."""
    image_set, _ = real_digits
    hasher = learned(KLSH, KLSHConfig(), bits=64)
    share = np.unpackbits(hasher.encode_set(image_set), axis=1).mean(axis=0)
    assert 0.25 < share.min() and share.max() < 0.75


def test_it_needs_no_labels(check_it_needs_no_labels):
    check_it_needs_no_labels(KLSH, KLSHConfig())


def test_round_trip(check_round_trip):
    check_round_trip(KLSH, KLSHConfig())


@pytest.mark.parametrize(("config", "images", "anchors"), [({}, 30, 30), ({"anchors": 9}, 40, 9)])
def test_as_many_anchors_a_bit_as_anchors_are_refused(points, config, images, anchors):
    """Their mean is the centre, and would part nothing."""
    message = f"`anchors_per_bit`: 30; allowed: below {anchors}, the number of anchors"
    with pytest.raises(UserError, match=message):
        fit(points[:images], KLSHConfig(**config))
    assert fit(points[:31], KLSHConfig())["projection"].shape == (31, 6)


@pytest.mark.parametrize(("field", "value"), [("anchors", 1), ("anchors_per_bit", 0)])
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"`{field}`: {value}; allowed: at least {value + 1}"):
        KLSHConfig(**{field: value})
