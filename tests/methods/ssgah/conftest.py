"""Data for SSGAH's tests."""

from __future__ import annotations

import pytest

from tfhash.data import sources, splits


@pytest.fixture(scope="module")
def few_digits():
    image_set = sources.load("digits")
    return image_set, splits.make(
        image_set, seed=0, queries_per_class=5, labelled_per_class=10, validation_fraction=0.2
    )
