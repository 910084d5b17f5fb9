"""DHN as a Hasher: what it learns, hands over and refuses."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfhash.data.learning import LearningData
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.methods.dhn import (
    DHN,
    DHNConfig,
)
from tfhash.training.strategies import precision

BITS, CLASSES, SIZE = 4, 3, 8
NONE = np.empty(0, np.int64)


def splits_of(labelled: int) -> RetrievalSplits:
    parts = {"query": NONE, "database": NONE, "labelled": np.arange(labelled)}
    parts |= {"validation": np.arange(12, 18), "unlabelled": np.arange(18, 30)}
    return RetrievalSplits(protocol="by hand", seed=0, fingerprint="0" * 16, **parts)


def image_set(labels, triplets=None) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (30, SIZE, SIZE, 3)).astype(np.uint8)
    names, ids = tuple("abcde"[: labels.shape[1]]), tuple(map(str, range(30)))
    return ImageSet("noise", images, labels, names, ids, triplets=triplets)


def make(seed=0, settings=None, **options) -> DHN:
    settings = DeepSettings(backbone="small_cnn", **(settings or {"batch_size": 6, "steps": 3}))
    return DHN.of(DHNConfig(**options), settings, code_length=BITS, image_size=SIZE, seed=seed)


def learning(hasher, labels=None) -> LearningData:
    labels = np.eye(CLASSES, dtype=np.uint8)[np.arange(30) % 3] if labels is None else labels
    return hasher.learning_data(image_set(labels), splits_of(12))


def test_the_stage_has_the_hash_network_the_settings_and_the_seed():
    hasher = make(seed=5, inner_scale=1.0)
    stage = hasher.make_stage(learning(hasher))
    assert stage.hash_network is hasher.hash_network
    assert (stage.config, stage.seed) == (hasher.config, 5)


def test_a_batch_has_labelled_images_with_their_labels_and_all_pairs_of_a_group():
    hasher = make(settings={"batch_size": 8, "unlabelled_batch_size": 8, "groups": 2, "shift": 0})
    data = learning(hasher)
    batches = hasher.make_batches(data, 1)
    seen = set()
    for step in range(20):
        batch = batches(step)
        assert batch["images"].shape == (2, 4, SIZE, SIZE, 3)
        pairs = np.stack(np.triu_indices(4, 1), axis=1)
        np.testing.assert_array_equal(batch["pairs"], [pairs, pairs])
        for group in range(2):
            for image, label in zip(batch["images"][group], batch["labels"][group], strict=True):
                (position,) = (n for n in range(30) if np.array_equal(data.inputs[n, 0], image))
                np.testing.assert_array_equal(label, data.labels[position])
                seen.add(position)
    assert seen == set(range(12))


@pytest.mark.parametrize("labels", [np.ones((30, 1)), np.eye(30)], ids=["one class", "no pair"])
def test_pairs_of_one_kind_alone_are_refused(labels):
    hasher = make()
    with pytest.raises(UserError, match="`labelled_per_class`: the 12 labelled images make pairs"):
        hasher.make_batches(LearningData(np.zeros((30, 1, 1)), labels, splits_of(12)), 1)


def test_what_the_others_are_does_not_help():
    """Labelled images of one class; validation and unlabelled ones have another."""
    hasher = make()
    with pytest.raises(UserError, match="`labelled_per_class`"):
        hasher.make_batches(learning(hasher, np.eye(2, dtype=np.uint8)[np.arange(30) // 12 % 2]), 1)


def test_a_batch_of_one_image_is_refused():
    hasher = make(settings={"batch_size": 1})
    with pytest.raises(UserError, match="`batch_size`: 1 images a group; at least 2"):
        hasher.make_batches(learning(hasher), 1)


def test_triplets_are_refused():
    labels = np.eye(2, dtype=np.uint8)[np.arange(30) % 2]
    with pytest.raises(UserError, match="`triplets_csv`: not with `method`=dhn"):
        make().learning_data(image_set(labels, np.array([[0, 2, 1]])), splits_of(12))


def test_no_labels_are_refused():
    with pytest.raises(UserError, match="labels: none; DHN learns from labelled images"):
        make().learning_data(image_set(np.zeros((30, 2), np.uint8)), splits_of(0))


@pytest.mark.parametrize(
    ("name", "value"),
    [("inner_scale", 0.0), ("weight_quantisation", -0.1)],
)
def test_bad_values_are_refused(name, value):
    with pytest.raises(UserError, match=f"`{name}`: .*allowed"):
        DHNConfig(**{name: value})


def test_the_defaults():
    """Of the paper that no pair is weighted, of a port the half and the .1."""
    config = DHNConfig()
    assert (config.inner_scale, config.weight_quantisation) == (0.5, 0.1)
    assert config.balanced_pairs is False


def test_the_terms_are_float32_under_bfloat16():
    hasher = make(settings={"batch_size": 6, "mixed_bfloat16": True})
    with precision(hasher.settings.policy):
        data = learning(hasher)
        stage = hasher.compile(hasher.make_stage(data))
    batch = {name: tf.constant(a) for name, a in hasher.make_batches(data, 1)(0).items()}
    assert {value.dtype for value in stage.forward(batch).values()} == {tf.float32}


# What it learns


SMALL = {
    "code_length": 12,
    "backbone": "small_cnn",
    "batch_size": 32,
    "hash_optimizer": "adamw",
    "hash_learning_rate": 1e-3,
    "shift": 0,
}


def test_codes_follow_the_classes(digits, map_of_others):
    images, labels = digits
    hasher = DHN(**SMALL, steps=120, checkpoint_every=60).fit(images[:300], labels[:300])
    assert map_of_others(hasher) > 0.4
    first, last = hasher.history["hash"]["loss"]
    assert last < first
