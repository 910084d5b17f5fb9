"""LSH: what random hyperplanes promise."""

import numpy as np

from tfhash.methods.lsh import LSH, LSHConfig


def test_bits_are_signs_of_the_products(learned, real_digits):
    image_set, _ = real_digits
    hasher = learned(LSH, LSHConfig(), bits=10)
    features = hasher.describe(image_set)
    scaled = hasher.standardise(features).numpy().astype(np.float64)
    expected = scaled @ hasher.parameters["projection"] > 0
    bits = np.unpackbits(hasher.encode_set(image_set), axis=-1)[:, :10]
    assert (bits != expected).mean() < 1e-3  # products near 0 may round to either side


def test_the_share_of_different_bits_estimates_the_angle(learned, real_digits):
    """Charikar: a random hyperplane parts two vectors with probability angle / pi."""
    image_set, _ = real_digits
    hasher = learned(LSH, LSHConfig(), bits=4096)
    x, y = hasher.standardise(hasher.describe(image_set)).numpy()[:2].astype(np.float64)
    angle = np.arccos(x @ y / np.sqrt((x @ x) * (y @ y)))
    one, other = hasher.encode_set(image_set)[:2]
    share = np.bitwise_count(one ^ other).sum() / 4096
    assert abs(share - angle / np.pi) < 3 * 0.5 / np.sqrt(4096)


def test_it_is_above_chance(lsh_map):
    assert lsh_map > 0.3  # a class is a tenth of the digits


def test_it_needs_no_labels(check_it_needs_no_labels):
    check_it_needs_no_labels(LSH, LSHConfig())


def test_round_trip(check_round_trip):
    check_round_trip(LSH, LSHConfig())


def test_seeds_give_other_directions(learned):
    one, other = (learned(LSH, LSHConfig(), seed=seed).parameters["projection"] for seed in (0, 1))
    assert not np.allclose(one, other)
