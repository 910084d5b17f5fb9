"""KSH: each part of its greedy optimisation against dense matrices, and what it learns."""

import itertools

import numpy as np
import pytest
import scipy.linalg

from tfhash.errors import UserError
from tfhash.hashers.linear.similarity import similarity_factors
from tfhash.hashers.shallow import FeatureData
from tfhash.methods import ksh
from tfhash.methods.ksh import KSH, KSHConfig

LABELS = np.eye(3, dtype=np.uint8)[[0, 0, 0, 1, 1, 1, 2, 2, 2, 2]]
SIMILAR = np.where(LABELS @ LABELS.T > 0, 1.0, -1.0)


@pytest.fixture
def kernel():
    kernel = np.random.default_rng(0).standard_normal((10, 4))
    return kernel - kernel.mean(axis=0)


def test_whitening_is_that_of_the_squared_norm_with_the_ridge(kernel):
    mean, whitening = ksh.whiten(kernel + 3, ridge=0.7)
    np.testing.assert_allclose(mean, 3)
    gram = kernel.T @ kernel + 0.7 * np.eye(4)
    np.testing.assert_allclose(whitening.T @ gram @ whitening, 10 * np.eye(4), atol=1e-10)


def test_spectral_directions_solve_the_generalised_eigenproblem_of_the_residue(kernel):
    """K'RK a = e (K'K + ridge) a with a dense R, which loses hh' after each bit."""
    ridge = 0.3
    _, whitening = ksh.whiten(kernel, ridge)
    directions = ksh.learn_directions(
        kernel @ whitening, *similarity_factors(LABELS), bits=3, iterations=0
    )
    residue = 3 * SIMILAR
    for direction in (whitening @ directions).T:
        gram = kernel.T @ kernel + ridge * np.eye(4)
        _, vectors = scipy.linalg.eigh(kernel.T @ residue @ kernel, gram)
        expected = vectors[:, -1]
        cosine = direction @ expected / np.linalg.norm(direction) / np.linalg.norm(expected)
        assert abs(cosine) == pytest.approx(1, abs=1e-4)
        assert direction @ gram @ direction == pytest.approx(10, rel=1e-4)
        code = np.sign(kernel @ direction)
        residue -= np.outer(code, code)


def test_the_smoothed_objective_and_its_gradient(kernel):
    """-b'Rb with a dense R, and its central differences."""
    factors, weights = similarity_factors(LABELS)
    scale = 10**2 * np.abs(weights).max()
    objective = ksh.smoothed(kernel, factors, weights)
    direction = np.random.default_rng(1).standard_normal(4)
    value, gradient = objective(direction)
    b = 2 / (1 + np.exp(-kernel @ direction)) - 1
    assert value == pytest.approx(-b @ SIMILAR @ b / scale)
    for position, step in enumerate(1e-5 * np.eye(4)):
        slope = (objective(direction + step)[0] - objective(direction - step)[0]) / 2e-5
        assert gradient[position] == pytest.approx(slope, abs=1e-8)


def test_the_descent_finds_the_minimum_of_a_quadratic():
    """x'Ax / 2 - b'x is least where Ax = b: at (2, 0.02). Its curvatures differ by 100."""
    curvature, b = np.array([1.0, 100.0]), np.array([2.0, 2.0])

    def quadratic(x):
        return x @ (curvature * x) / 2 - b @ x, curvature * x - b

    found = ksh.descend(quadratic, np.array([-3.0, 1.0]), 1000)
    np.testing.assert_allclose(found, [2, 0.02], rtol=0.02)


def test_the_first_bit_is_the_best_of_all_sign_vectors_where_all_can_be_had():
    """Ten images and ten directions: the optimum of h'Sh over all 2^10 h."""
    best = max(h @ SIMILAR @ h for h in map(np.array, itertools.product((-1.0, 1.0), repeat=10)))
    axes, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((10, 10)))
    kernel = axes * np.sqrt(10)
    direction = ksh.learn_directions(kernel, *similarity_factors(LABELS), bits=1, iterations=100)
    code = np.sign(kernel @ direction[:, 0])
    assert code @ SIMILAR @ code == best


def test_no_bit_is_worse_than_its_spectral_or_its_smoothed_solution(kernel, monkeypatch):
    kernel = kernel.astype(np.float32)
    bad = np.array([1, 0, 0, 0], np.float32)
    spectral = ksh.learn_directions(kernel, *similarity_factors(LABELS), bits=1, iterations=0)
    monkeypatch.setattr(ksh, "descend", lambda *_: bad)
    kept = ksh.learn_directions(kernel, *similarity_factors(LABELS), bits=1, iterations=9)
    np.testing.assert_array_equal(kept, spectral)
    monkeypatch.undo()
    monkeypatch.setattr(ksh, "top_eigenvector", lambda _: bad)
    monkeypatch.setattr(ksh, "descend", lambda *_: spectral[:, 0])
    kept = ksh.learn_directions(kernel, *similarity_factors(LABELS), bits=1, iterations=9)
    np.testing.assert_array_equal(kept, spectral)


def test_smoothing_helps(learned, map_of):
    assert map_of(learned(KSH, KSHConfig())) > map_of(learned(KSH, KSHConfig(iterations=0)))


def test_it_beats_lsh(learned, map_of, lsh_map):
    assert map_of(learned(KSH, KSHConfig())) > lsh_map + 0.3


def test_round_trip(check_round_trip):
    check_round_trip(KSH, KSHConfig())


def test_a_bound_on_the_labelled_images_draws_by_the_seed(learned):
    config = KSHConfig(labelled_images=40)
    one, same, other = (learned(KSH, config, seed=s).parameters["projection"] for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_one_class_is_refused():
    data = FeatureData.of(np.eye(4, dtype=np.float32), np.ones((4, 1), np.uint8), np.eye(4))
    with pytest.raises(UserError, match="needs two classes"):
        KSH.of(KSHConfig(), KSH.Settings(), code_length=2, image_size=8, seed=0).learn_functions(
            data
        )


@pytest.mark.parametrize(
    ("field", "value"), [("anchors", 0), ("labelled_images", 1), ("iterations", -1), ("ridge", 0)]
)
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"`{field}`: "):
        KSHConfig(**{field: value})
