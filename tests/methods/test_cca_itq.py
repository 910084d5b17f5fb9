"""CCA-ITQ: canonical directions against their definition, and what it learns from labels."""

import dataclasses

import numpy as np
import pytest
from scipy import linalg

from tfhash.errors import UserError
from tfhash.methods.cca_itq import CCAITQ, CCAITQConfig, canonical_directions

CONFIG = CCAITQConfig(regularisation=10.0)  # 90 images, 768 features


def test_directions_solve_the_equation_as_it_stands():
    """The generalised eigenproblem in the space of the features, without the detour."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    y = np.stack([x[:, 0] + 0.5 * rng.normal(size=200), rng.normal(size=200)], axis=1)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    of_x, of_y = x.T @ x / 200 + 0.1 * np.eye(6), y.T @ y / 200 + 0.1 * np.eye(2)
    cross = x.T @ y / 200
    squares, vectors = linalg.eigh(cross @ np.linalg.inv(of_y) @ cross.T, of_x)
    found = canonical_directions(x, y, 0.1)
    for column, (square, vector) in enumerate(zip(squares[:-3:-1], vectors.T[:-3:-1], strict=True)):
        w = found[:, column]
        assert w @ of_x @ w == pytest.approx(square)  # as long as its correlation
        assert abs(w @ of_x @ vector) == pytest.approx(np.sqrt(square))  # and along the eigenvector


def test_one_feature_that_tells_the_classes_is_found():
    """x_0 is the label up to scale, x_1 noise: w lies along x_0, its correlation is 1."""
    label = np.repeat([-1.0, 1.0], 50)
    x = np.stack([3 * label, np.tile([-1.0, 1.0], 50)], axis=1)
    w = canonical_directions(x, label[:, None], 1e-9)[:, 0]
    np.testing.assert_allclose(np.abs(w), [1 / 3, 0], atol=1e-6)  # 3 w has variance 1 = lambda²


@pytest.mark.parametrize("bits", [4, 24])
def test_it_beats_lsh_with_fewer_and_more_bits_than_classes(learned, map_of, lsh_map, bits):
    assert map_of(learned(CCAITQ, CONFIG, bits)) > lsh_map + 0.05


def test_unlabelled_images_decide_nothing(learned, real_digits):
    """Only the labelled images make the directions: other labels of the rest change nothing."""
    image_set, parts = real_digits
    labels = image_set.labels.copy()
    rest = np.setdiff1d(np.arange(len(labels)), parts.labelled)
    labels[rest] = labels[rest][:, ::-1]
    other = dataclasses.replace(image_set, labels=labels)
    codes = learned(CCAITQ, CONFIG).encode_set(image_set)
    codes_of_other = learned(CCAITQ, CONFIG, image_set=other).encode_set(image_set)
    np.testing.assert_array_equal(codes_of_other, codes)


def test_labels_decide(learned, real_digits):
    image_set, _ = real_digits
    rng = np.random.default_rng(1)
    other = dataclasses.replace(image_set, labels=rng.permutation(image_set.labels))
    codes = learned(CCAITQ, CONFIG).encode_set(image_set)
    assert (learned(CCAITQ, CONFIG, image_set=other).encode_set(image_set) != codes).any()


def test_round_trip(check_round_trip):
    check_round_trip(CCAITQ, CONFIG)


def test_one_class_is_a_users_mistake(learned, real_digits):
    image_set, _ = real_digits
    labels = np.zeros_like(image_set.labels)
    labels[:, 3] = 1
    one_class = dataclasses.replace(image_set, labels=labels)
    with pytest.raises(UserError, match="2 are needed"):
        learned(CCAITQ, CONFIG, image_set=one_class)


def test_wrong_hyperparameters_are_a_users_mistake():
    with pytest.raises(UserError, match="`regularisation`: 0"):
        dataclasses.replace(CONFIG, regularisation=0)
