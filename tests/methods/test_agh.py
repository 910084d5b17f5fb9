"""AGH: the anchor graph written out as a dense matrix over all images."""

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

from tfhash.errors import UserError
from tfhash.hashers.linear.anchors import anchor_graph
from tfhash.hashers.shallow import FeatureData
from tfhash.methods import agh
from tfhash.methods.agh import AGH, AGHConfig

# 300 anchors for the 1,600 digits leave some with one image, and parts of the graph unlinked.
CONFIG = AGHConfig(anchors=100)


@pytest.fixture
def points():
    return np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)


@pytest.fixture
def graph(points):
    """Links Z to the first 12 points, 3 each, and A = Z diag(Z'1)^-1 Z'."""
    weights, _ = anchor_graph(points, points[:12], 3)
    dense = weights.toarray()
    return weights, dense @ np.diag(1 / dense.sum(axis=0)) @ dense.T


def test_functions_are_the_eigenvectors_of_the_graph(graph):
    """A is doubly stochastic: its first eigenvector is constant, and the next ones are taken."""
    weights, dense = graph
    np.testing.assert_allclose(dense.sum(axis=0), 1)
    found = weights @ agh.graph_functions(weights, 5)
    values = np.linalg.eigvalsh(dense)[::-1]
    assert values[0] == pytest.approx(1)
    np.testing.assert_allclose(dense @ found, found * values[1:6], atol=1e-9)
    np.testing.assert_allclose(found.T @ found, 60 * np.eye(5), atol=1e-8)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-8)


def test_the_constant_is_left_out_of_a_graph_in_two_parts():
    """Two parts give eigenvalue 1 twice: the function that tells them apart is the first."""
    weights = scipy.sparse.csr_array(np.kron(np.eye(2), np.ones((3, 1))))
    found = weights @ agh.graph_functions(weights, 1)
    np.testing.assert_allclose(np.abs(found[:, 0]), 1)
    assert found[:3, 0] == pytest.approx(-found[3:, 0])


def test_more_functions_than_the_graph_has_are_refused():
    """Two anchors with the same links are one: rank 2, of which one is constant."""
    links = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    with pytest.raises(UserError, match="the graph of 3 anchors has 1 functions, 2 are needed"):
        agh.graph_functions(scipy.sparse.csr_array(links), 2)


def test_thresholds_cut_the_graph_least(graph):
    """The minimum found by a numerical optimiser on the dense Laplacian I - A."""
    weights, dense = graph
    functions = weights @ agh.graph_functions(weights, 4)
    found = agh.thresholds(weights, functions)
    laplacian = np.eye(60) - dense
    for y, pair in zip(functions.T, found.T, strict=True):

        def shifted(both, y=y):
            return np.where(y > 0, y - both[0], both[1] - y)

        best = scipy.optimize.minimize(
            lambda both: shifted(both) @ laplacian @ shifted(both),
            x0=[0.1, -0.2],
            constraints={"type": "eq", "fun": lambda both: shifted(both).sum()},
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(pair, best.x, atol=1e-4)
        assert shifted(pair).sum() == pytest.approx(0, abs=1e-9)


def test_without_links_across_zero_the_thresholds_are_means():
    """Values 1, 3 | -2, -2, 0 on two parts without a link: means 2 and -4/3."""
    weights = scipy.sparse.csr_array(np.kron(np.eye(2), np.ones((3, 1)))[1:])
    functions = np.array([[1], [3], [-2], [-2], [0]])
    np.testing.assert_allclose(agh.thresholds(weights, functions), [[2], [-4 / 3]])


def test_the_second_layer_parts_each_side_of_the_first(learned, real_digits):
    """First bit [y > 0], second [y > upper] or [y < lower]; seven bits need four functions."""
    image_set, _ = real_digits
    hasher = learned(AGH, CONFIG, bits=7)
    features = hasher.standardise(hasher.describe(image_set)).numpy()
    parameters = {name: value.astype(float) for name, value in hasher.parameters.items()}
    expected = np.zeros((200, 8))
    for row, x in zip(expected, features.astype(float), strict=False):
        distances = ((parameters["anchors"] - x) ** 2).sum(axis=1)
        near = np.argsort(distances)[:2]
        z = np.exp(-distances[near] / parameters["width"])
        y = z / z.sum() @ parameters["projection"][near]
        upper, lower = parameters["thresholds"]
        row[:4] = y > 0
        row[4:] = np.where(y > 0, y > upper, y < lower)
    bits = np.unpackbits(hasher.encode_set(image_set)[:200], axis=1)
    assert (bits[:, :7] == expected[:, :7]).mean() > 0.99  # a y near 0 may round to either side
    assert 0.1 < expected.mean() < 0.9


@pytest.mark.parametrize("layers", [1, 2])
def test_it_beats_lsh(learned, map_of, lsh_map, layers):
    config = AGHConfig(anchors=100, layers=layers)
    assert map_of(learned(AGH, config)) > lsh_map + 0.1


def test_it_needs_no_labels(check_it_needs_no_labels):
    check_it_needs_no_labels(AGH, CONFIG)


@pytest.mark.parametrize("layers", [1, 2])
def test_round_trip(check_round_trip, layers):
    check_round_trip(AGH, AGHConfig(anchors=100, layers=layers))


def fit(config, bits, features):
    """Learns from `features`, the first row labelled."""
    data = FeatureData.of(features[:1], np.ones((1, 1), np.uint8), features[1:])
    return AGH.of(config, AGH.Settings(), code_length=bits, image_size=8, seed=0).learn_functions(
        data
    )


def test_more_bits_than_functions_are_refused(points):
    config = AGHConfig(anchors=5)
    assert fit(config, 8, points)["projection"].shape == (5, 4)
    with pytest.raises(UserError, match="`code_length`: 9; at most 8 is allowed with 5 anchors"):
        fit(config, 9, points)


@pytest.mark.parametrize(("anchors", "images"), [(4, 60), (300, 4)])
def test_more_links_than_anchors_are_refused(points, anchors, images):
    with pytest.raises(UserError, match="`nearest`: 5; at most 4, the number of anchors"):
        fit(AGHConfig(anchors=anchors, nearest=5), 2, points[:images])


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_images_that_are_all_alike_are_refused(points):
    with pytest.raises(UserError, match="`nearest`: 2; each image equals so many anchors"):
        fit(AGHConfig(), 4, np.ones_like(points))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 3}, "`layers`: 3; allowed: 1, 2"),
        ({"nearest": 1}, "`nearest`: 1; allowed: at least 2"),
        ({"anchors": 1}, "`anchors`: 1; allowed: at least 2"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        AGHConfig(**values)
