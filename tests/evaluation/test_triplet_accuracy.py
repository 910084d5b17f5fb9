"""triplet_accuracy, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.codes import pack
from tfhash.evaluation.triplet_accuracy import triplet_accuracy


def test_order_ties_and_several_bytes():
    """Of 10 bits: nearer (distances 1 < 2), a tie (9 and 9), farther (10 > 0), a tie of 0."""
    zeros, ones = np.zeros(10, np.uint8), np.ones(10, np.uint8)
    one, two, nine = (np.uint8(np.arange(10) < count) for count in (1, 2, 9))
    triplets = [(zeros, one, two), (zeros, nine, nine[::-1]), (ones, zeros, ones), (one,) * 3]
    codes = pack(np.array(triplets).reshape(12, 10)).reshape(4, 3, 2)
    assert triplet_accuracy(codes) == (1 + 0.5 + 0 + 0.5) / 4


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((0, 3, 1), np.uint8),
        np.zeros((2, 2, 1), np.uint8),
        np.zeros((3, 1), np.uint8),
        np.zeros((2, 3, 1)),
        [[[0], [1], [1]]],
    ],
)
def test_other_arrays_are_refused(codes):
    with pytest.raises(ValueError, match=r"codes must be packed codes of query, .*, got ") as error:
        triplet_accuracy(codes)
    assert "\n" not in str(error.value)
