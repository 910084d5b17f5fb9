"""SH: which eigenfunctions it takes, and what they are."""

import numpy as np

from tfhash.methods.lsh import LSH, LSHConfig
from tfhash.methods.sh import SH, SHConfig, smoothest


def test_the_smoothest_eigenfunctions_by_hand():
    """Ranges 4, 1, 3: m / r is .25 .5 .75 1 ..., 1 2 ..., .33 .67 1 ...; the least first.

    1 stands there three times: mode 1 of direction 1, mode 3 of direction 2, mode 4 of direction 0;
    of equal ones the lower mode goes first.
    """
    direction, mode = smoothest(np.array([4.0, 1.0, 3.0]), 6)
    np.testing.assert_array_equal(direction, [0, 2, 0, 2, 0, 1])
    np.testing.assert_array_equal(mode, [1, 1, 2, 2, 3, 1])


def test_the_order_is_that_of_the_papers_eigenvalues():
    ranges = np.random.default_rng(0).uniform(1, 3, 5)
    direction, mode = smoothest(ranges, 12)
    eigenvalues = 1 - np.exp(-0.5 * (mode * np.pi / ranges[direction]) ** 2 * 0.01)
    others = 1 - np.exp(-0.5 * (np.arange(1, 60)[:, None] * np.pi / ranges) ** 2 * 0.01)
    np.testing.assert_allclose(eigenvalues, np.sort(others, axis=None)[:12])


def test_bits_are_eigenfunctions_along_principal_directions(learned, real_digits):
    """Bit by bit cos(m pi (x - a) / (b - a)), x from a singular value decomposition."""
    image_set, parts = real_digits
    hasher = learned(SH, SHConfig(), bits=12)
    features = hasher.standardise(hasher.describe(image_set)).numpy().astype(np.float64)
    known = np.delete(features, parts.query, axis=0)
    axes = np.linalg.svd(known - known.mean(axis=0), full_matrices=False)[2][:12]
    x = (features - known.mean(axis=0)) @ axes.T
    of_known = np.delete(x, parts.query, axis=0)
    low, high = of_known.min(axis=0), of_known.max(axis=0)
    direction, mode = smoothest(high - low, 12)
    phase = mode * np.pi * ((x - low) / (high - low))[:, direction]
    bits = np.unpackbits(hasher.encode_set(image_set), axis=-1)[:, :12].astype(bool)
    different = (bits != (np.cos(phase) > 0)).mean(axis=0)
    # The sign of an axis is not determined. Turned around it gives cos(m pi - phase): for odd m
    # every bit is the other.
    different = np.where(mode % 2, np.minimum(different, 1 - different), different)
    assert different.max() < 1e-2


def test_it_beats_lsh(learned, map_of):
    """On centred pixels, few bits. Standardised ones have outliers, which make its ranges wide."""
    arguments = {"bits": 12, "feature_scaling": "centre"}
    lsh = np.mean([map_of(learned(LSH, LSHConfig(), seed=seed, **arguments)) for seed in range(5)])
    assert map_of(learned(SH, SHConfig(), **arguments)) > lsh + 0.02


def test_more_bits_than_features(learned, real_digits):
    """There are modes enough: SH has no bound on the bits."""
    image_set, _ = real_digits
    assert learned(SH, SHConfig(), bits=1000).encode_set(image_set).shape == (1797, 125)


def test_it_needs_no_labels(check_it_needs_no_labels):
    check_it_needs_no_labels(SH, SHConfig())


def test_round_trip(check_round_trip):
    check_round_trip(SH, SHConfig())


def test_one_direction_gives_as_many_modes_as_bits():
    """Along a single direction mode m has the m-th least eigenvalue."""
    direction, mode = smoothest(np.array([2.0]), 4)
    assert direction.tolist() == [0, 0, 0, 0] and mode.tolist() == [1, 2, 3, 4]
