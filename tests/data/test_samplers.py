"""Samplers that know of no relation between images."""

from __future__ import annotations

import numpy as np

from tfhash.data.samplers import RandomImages


def test_images_are_drawn_without_repeating_where_there_are_enough():
    sampler = RandomImages(6, 6)
    first = sampler.sample(np.random.default_rng(1))["images"]
    assert sorted(first) == list(range(6)) and first.dtype == np.int64
    again = sampler.sample(np.random.default_rng(1))["images"]
    np.testing.assert_array_equal(again, first)
    assert not np.array_equal(sampler.sample(np.random.default_rng(2))["images"], first)
    few = RandomImages(2, 5).sample(np.random.default_rng(0))["images"]
    assert len(few) == 5 and set(few) == {0, 1}
    assert sampler.group_size == 6
