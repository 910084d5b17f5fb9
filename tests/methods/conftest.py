"""What the tests of methods share: real digits, tiny images, and checks that hold for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import tfhash
from tfhash.data import sources, splits
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.evaluation import retrieval
from tfhash.hashers.base import Hasher
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.hashers.gan import GANHasher
from tfhash.hashers.shallow import FeatureHasher, ShallowSettings
from tfhash.methods.lsh import LSH, LSHConfig
from tfhash.training.run import Run


@pytest.fixture(scope="session")
def real_digits() -> tuple[ImageSet, RetrievalSplits]:
    """scikit-learn's digits: 20 queries and 10 labelled images a class."""
    image_set = sources.load("digits")
    return image_set, splits.make(image_set, seed=0, queries_per_class=20, labelled_per_class=10)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits, uint8 [1797, 8, 8, 3] in [0, 255], and their classes, int [1797]."""
    found = load_digits()
    images = np.repeat(np.uint8(found.images * 15)[..., None], 3, axis=-1)
    for array in (images, found.target):
        array.setflags(write=False)  # other tests have them too
    return images, found.target


@pytest.fixture(scope="session")
def map_of_others(digits) -> Callable[[HashNetworkHasher], float]:
    """mAP of what learned from the first 300 digits or fewer: 50 others in 450. Chance is .1."""
    images, labels = digits

    def judge(hasher: HashNetworkHasher) -> float:
        codes = hasher.encode(images[300:800])
        found = tfhash.evaluate(
            codes[:50], codes[50:], labels[300:350], labels[350:800], code_length=hasher.code_length
        )
        return found.map[None]

    return judge


@pytest.fixture(scope="session")
def learned(real_digits, tmp_path_factory) -> Callable[..., FeatureHasher]:
    """learned(Hasher, config, bits=24, seed=0, image_set=None, **settings): learned on pixels."""
    cache = str(tmp_path_factory.mktemp("features"))

    def learn(hasher_class, config, bits=24, seed=0, image_set=None, **settings):
        original, parts = real_digits
        settings = ShallowSettings(**{"features": "pixels", "cache_dir": cache, **settings})
        hasher = hasher_class.of(config, settings, code_length=bits, image_size=16, seed=seed)
        hasher.learn(image_set or original, parts, Run(Path(cache)))
        return hasher

    return learn


@pytest.fixture(scope="session")
def map_of(real_digits) -> Callable[[Hasher], float]:
    """mAP of a learned method on the digits."""
    image_set, parts = real_digits

    def judge(hasher: Hasher) -> float:
        packed = hasher.encode_set(image_set)
        return retrieval.evaluate(
            packed[parts.query],
            packed[parts.database],
            image_set.labels[parts.query],
            image_set.labels[parts.database],
            code_length=hasher.code_length,
        ).map[None]

    return judge


@pytest.fixture(scope="session")
def lsh_map(learned, map_of) -> float:
    """What every method has to beat: LSH of 24 bits, the mean of five seeds."""
    return np.mean([map_of(learned(LSH, LSHConfig(), seed=seed)) for seed in range(5)])


@pytest.fixture
def check_round_trip(learned, real_digits, tmp_path) -> Callable[..., None]:
    """Learns twice, saves, loads and encodes in every way: always the same codes."""
    image_set, _ = real_digits

    def check(hasher_class: type[FeatureHasher], config, bits: int = 24) -> None:
        hasher = learned(hasher_class, config, bits)
        packed = hasher.encode_set(image_set)
        assert packed.shape == (len(image_set.ids), -(-bits // 8)) and packed.dtype == np.uint8
        assert len(np.unique(packed, axis=0)) > 100  # else most of the checks below say little
        again = learned(hasher_class, config, bits).encode_set(image_set)
        np.testing.assert_array_equal(again, packed)
        hasher.save_weights(tmp_path)
        other = hasher_class.of(config, hasher.settings, code_length=bits, image_size=16, seed=9)
        other.load_weights(tmp_path)
        np.testing.assert_array_equal(other.encode_set(image_set), packed)
        # The graph computes features in other batches, so its last digits may differ.
        embedding = other.embed(image_set.images[:200])
        expected = hasher.embed_features(hasher.describe(image_set))[:200]
        np.testing.assert_allclose(embedding, expected, atol=1e-4)

    return check


@pytest.fixture(scope="session")
def check_it_needs_no_labels(learned, real_digits) -> Callable[..., None]:
    """The codes of an unsupervised method stay the same when labels change hands."""
    image_set, _ = real_digits
    labels = np.random.default_rng(1).permutation(image_set.labels)
    shuffled = dataclasses.replace(image_set, labels=labels)

    def check(hasher_class: type[FeatureHasher], config) -> None:
        codes = learned(hasher_class, config).encode_set(image_set)
        other = learned(hasher_class, config, image_set=shuffled).encode_set(image_set)
        np.testing.assert_array_equal(other, codes)

    return check


@pytest.fixture(scope="session")
def tiny_images() -> tuple[ImageSet, RetrievalSplits]:
    """36 images of noise of 24 px, 12 a class: 6 queries, 15 labelled, 3 watched, 12 unlabelled."""
    images = np.random.default_rng(0).integers(0, 256, (36, 24, 24, 3), np.uint8)
    labels = np.eye(3, dtype=np.uint8)[np.arange(36) % 3]
    image_set = ImageSet("noise", images, labels, tuple("abc"), tuple(map(str, range(36))))
    ends = {"query": (0, 6), "labelled": (6, 21), "validation": (21, 24), "unlabelled": (24, 36)}
    parts = {name: np.arange(*bounds) for name, bounds in ends.items()}
    database = np.arange(6, 36)
    return image_set, RetrievalSplits(
        protocol="by hand", seed=0, database=database, fingerprint="0" * 16, **parts
    )


@pytest.fixture
def check_both_stages(tiny_images, tmp_path) -> Callable[..., None]:
    """check_both_stages(hasher, terms): learns from images of 24 px, whatever size its GAN has.

    terms: what it tells of each stage, by the stage's name.
    """
    image_set, parts = tiny_images

    def check(hasher: GANHasher, terms: dict[str, set[str]]) -> None:
        size = hasher.config.gan_size
        assert hasher.space.item_shape == (24, 24, 3)
        assert hasher.space.gan_shape == (size, size, 3)
        hasher.learn(image_set, parts, Run(tmp_path))
        assert set(hasher.history) == set(terms) == {"gan", "hash"}
        for stage, of_stage in terms.items():
            assert of_stage <= set(hasher.history[stage])
            assert all(np.isfinite(values).all() for values in hasher.history[stage].values())
        packed = hasher.encode(image_set.images)
        assert packed.shape == (36, 2) and packed.dtype == np.uint8
        direct = hasher.encoder(image_set.images.astype(np.float32)).numpy()
        np.testing.assert_allclose(hasher.embed(image_set.images), direct, atol=1e-5)
        assert all(path.is_file() for path in hasher.draw(image_set, parts, tmp_path))

    return check
