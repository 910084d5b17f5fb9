"""No step of learning or encoding holds all features in memory, where they are to be on disk."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.methods.lsh import LSH, LSHConfig
from tfhash.networks import features
from tfhash.training.run import Run

COUNT = 2000
ALL_FEATURES = COUNT * 16 * 16 * 3 * 4  # bytes: 6.1 million


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (COUNT, 16, 16, 3), np.uint8)
    labels = np.eye(2, dtype=np.uint8)[np.arange(COUNT) % 2]
    ids = tuple(str(number) for number in range(COUNT))
    parts = np.split(np.arange(COUNT), [10, 1000])
    none = np.empty(0, np.int64)
    splits = RetrievalSplits(
        "by hand", 0, none, none, parts[0], none, np.r_[parts[1], parts[2]], ""
    )
    return ImageSet("noise", pixels, labels, ("a", "b"), ids), splits


def most_memory(images, kind, folder):
    """Bytes that NumPy and Python held at once while LSH learned and encoded."""
    image_set, splits = images
    settings = LSH.Settings(cache_dir=str(folder), images_in=kind)
    hasher = LSH.of(LSHConfig(), settings, code_length=8, image_size=16, seed=0)
    tracemalloc.start()
    try:
        hasher.learn(image_set, splits, Run())
        codes = hasher.encode_set(image_set)
        return tracemalloc.get_traced_memory()[1], codes
    finally:
        tracemalloc.stop()


def test_features_are_never_all_in_memory(images, tmp_path, monkeypatch):
    """On disk less than a half of them at once, in parts of 64; in memory at least all of them."""
    monkeypatch.setattr(features, "CHUNK", 64)
    monkeypatch.setattr("tfhash.hashers.shallow._CHUNK", 64)
    most_memory(images, "disk", tmp_path / "traced")  # what Keras keeps of its first network
    on_disk, codes = most_memory(images, "disk", tmp_path / "disk")
    in_memory, expected = most_memory(images, "memory", tmp_path / "memory")
    np.testing.assert_array_equal(codes, expected)
    assert on_disk < ALL_FEATURES / 2 < ALL_FEATURES <= in_memory
