"""ITQ: its projection is PCA, its codes those of the rotation."""

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.methods.itq import ITQ, ITQConfig


def scaled(hasher, image_set):
    return hasher.standardise(hasher.describe(image_set)).numpy().astype(np.float64)


def test_the_scores_are_rotated_principal_components(learned, real_digits):
    """Their covariance has the k largest eigenvalues of the features', which a rotation keeps."""
    image_set, parts = real_digits
    hasher = learned(ITQ, ITQConfig(), bits=8)
    features = np.delete(scaled(hasher, image_set), parts.query, axis=0)
    scores = features @ hasher.parameters["projection"] + hasher.parameters["offset"]
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-4)
    of_scores = np.linalg.eigvalsh(np.cov(scores.T))
    of_features = np.linalg.eigvalsh(np.cov(features.T))[-8:]
    np.testing.assert_allclose(of_scores, of_features, rtol=1e-4)


def test_iterations_lower_the_quantization_loss(learned, real_digits):
    image_set, parts = real_digits

    def loss(iterations):
        hasher = learned(ITQ, ITQConfig(iterations=iterations))
        features = np.delete(scaled(hasher, image_set), parts.query, axis=0)
        scores = features @ hasher.parameters["projection"] + hasher.parameters["offset"]
        return np.mean((np.sign(scores) - scores) ** 2)

    assert loss(50) < loss(5) < loss(0)


def test_it_beats_lsh(learned, map_of, lsh_map):
    assert map_of(learned(ITQ, ITQConfig())) > lsh_map + 0.05


def test_it_needs_no_labels(check_it_needs_no_labels):
    check_it_needs_no_labels(ITQ, ITQConfig())


def test_round_trip(check_round_trip):
    check_round_trip(ITQ, ITQConfig())


def test_more_bits_than_features_are_a_users_mistake(learned):
    with pytest.raises(UserError, match="`code_length`: 800; .* at most 768"):
        learned(ITQ, ITQConfig(), bits=800)


def test_a_negative_number_of_iterations_is_a_users_mistake():
    with pytest.raises(UserError, match="`iterations`: -1"):
        ITQConfig(iterations=-1)
