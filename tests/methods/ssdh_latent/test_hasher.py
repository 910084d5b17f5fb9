"""SSDH's latent layer as a Hasher: what it learns, hands over and refuses."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.data.learning import LearningData
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.methods.ssdh_latent import (
    SSDHLatent,
    SSDHLatentConfig,
)
from tfhash.training.strategies import precision

BITS, CLASSES, SIZE = 4, 3, 8
NONE = np.empty(0, np.int64)


def image_data(labels=None, labelled=12) -> LearningData:
    """30 images of noise: 12 labelled ones, then validation and unlabelled ones."""
    images = np.random.default_rng(0).integers(0, 256, (30, 1, SIZE, SIZE, 3)).astype(np.uint8)
    labels = np.eye(CLASSES, dtype=np.uint8)[np.arange(30) % 3] if labels is None else labels
    return LearningData(images, labels, splits_of(labelled))


def splits_of(labelled: int) -> RetrievalSplits:
    parts = {"query": NONE, "database": NONE, "labelled": np.arange(labelled)}
    parts |= {"validation": np.arange(12, 18), "unlabelled": np.arange(18, 30)}
    return RetrievalSplits(protocol="by hand", seed=0, fingerprint="0" * 16, **parts)


def make(seed=0, settings=None, **options) -> SSDHLatent:
    settings = DeepSettings(backbone="small_cnn", **(settings or {"batch_size": 6, "steps": 3}))
    config = SSDHLatentConfig(**options)
    return SSDHLatent.of(config, settings, code_length=BITS, image_size=SIZE, seed=seed)


def with_several(rows) -> np.ndarray:
    """One label an image, but for these rows, which have two."""
    labels = np.eye(CLASSES, dtype=np.uint8)[np.arange(30) % 3]
    labels[rows] = [1, 1, 0]
    return labels


@pytest.mark.parametrize(
    ("class_loss", "rows", "expected"),
    [
        ("auto", [], False),
        ("auto", [3], True),
        ("auto", [12, 18], False),  # of images that are not learned from
        ("sigmoid", [], True),
        ("sigmoid", [3], True),
        ("softmax", [], False),
    ],
)
def test_which_class_loss(class_loss, rows, expected):
    stage = make(class_loss=class_loss).make_stage(image_data(with_several(rows)))
    assert stage.multi_label is expected


def test_a_softmax_cannot_have_several_labels():
    with pytest.raises(UserError, match="`class_loss`: softmax.*several labels; allowed: auto"):
        make(class_loss="softmax").make_stage(image_data(with_several([3])))


def test_the_classifier_starts_from_the_seed_and_the_deviation():
    def kernel(**options):
        hasher = make(**options)
        keras.utils.set_random_seed(len(options))  # what else draws, does not move it
        classifier = hasher.make_stage(image_data()).classifier
        assert not classifier.bias.numpy().any()
        return classifier.kernel.numpy()

    first = kernel()
    assert first.shape == (BITS, CLASSES) and 0.05 < first.std() < 0.4
    np.testing.assert_array_equal(kernel(), first)
    assert not np.array_equal(kernel(seed=1), first)
    np.testing.assert_allclose(kernel(classifier_deviation=0.6), 3 * first, rtol=1e-5)


def test_the_classifier_stays_in_float32():
    hasher = make(settings={"batch_size": 6, "mixed_bfloat16": True})
    with precision(hasher.settings.policy):
        stage = hasher.make_stage(image_data())
    assert stage.classifier.compute_dtype == "float32"
    batch = {name: tf.constant(a) for name, a in hasher.make_batches(image_data(), 1)(0).items()}
    stage = hasher.compile(stage)
    assert {value.dtype for value in stage.forward(batch).values()} == {tf.float32}


def test_the_stage_has_the_hash_network_the_settings_and_the_seed():
    hasher = make(seed=5, weight_half_on=0.25)
    stage = hasher.make_stage(image_data())
    assert stage.hash_network is hasher.hash_network
    assert (stage.config, stage.seed) == (hasher.config, 5)


def test_a_batch_has_labelled_images_with_their_labels_and_no_others():
    data = image_data()
    hasher = make(settings={"batch_size": 8, "unlabelled_batch_size": 8, "groups": 2, "shift": 0})
    batches = hasher.make_batches(data, 1)
    seen = set()
    for step in range(20):
        batch = batches(step)
        assert batch["images"].shape == (2, 4, SIZE, SIZE, 3)
        pairs = zip(batch["images"], batch["labels"], strict=True)
        for image, label in itertools.chain(*(zip(*pair, strict=True) for pair in pairs)):
            (position,) = (n for n in range(30) if np.array_equal(data.inputs[n, 0], image))
            np.testing.assert_array_equal(label, data.labels[position])
            seen.add(position)
    assert seen == set(range(12))


def image_set(labels, triplets=None) -> ImageSet:
    images = np.zeros((30, SIZE, SIZE, 3), np.uint8)
    names, ids = tuple("abcde"[: labels.shape[1]]), tuple(map(str, range(30)))
    return ImageSet("noise", images, labels, names, ids, triplets=triplets)


def test_images_of_one_class_are_refused():
    """Those with a label are of class 0; that others have another one, does not help."""
    labels = np.eye(2, dtype=np.uint8)[np.arange(30) // 12 % 2]
    with pytest.raises(UserError, match="all 12 labelled images have the same; SSDHLatent needs"):
        make().learning_data(image_set(labels), splits_of(12))


def test_triplets_are_refused():
    labels = np.eye(2, dtype=np.uint8)[np.arange(30) % 2]
    with pytest.raises(UserError, match="`triplets_csv`: not with `method`=ssdh_latent"):
        make().learning_data(image_set(labels, np.array([[0, 2, 1]])), splits_of(12))


def test_no_labels_are_refused():
    with pytest.raises(UserError, match="labels: none; SSDHLatent learns from labelled images"):
        make().learning_data(image_set(np.zeros((30, 2), np.uint8)), splits_of(0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight_class", -0.1),
        ("weight_binarisation", -0.1),
        ("weight_half_on", -0.1),
        ("classifier_deviation", 0.0),
        ("class_loss", "hinge"),
    ],
)
def test_bad_values_are_refused(name, value):
    with pytest.raises(UserError, match=f"`{name}`: .*allowed"):
        SSDHLatentConfig(**{name: value})


def test_the_optimizer_is_that_of_the_authors_code():
    """Momentum .9, .001, a tenth of it after 25,000 updates, decay 5e-4, on the classifier too."""
    hasher = make()
    stage = hasher.compile(hasher.make_stage(image_data()))
    rate = stage.optimizer._learning_rate
    assert [float(rate(step)) for step in (24_999, 25_000)] == pytest.approx([1e-3, 1e-4])
    assert stage.optimizer.decay == 5e-4
    batch = {name: tf.constant(a) for name, a in hasher.make_batches(image_data(), 1)(0).items()}
    before = stage.classifier.kernel.numpy()
    stage.train_step(batch)
    assert not np.array_equal(stage.classifier.kernel.numpy(), before)


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
    hasher = SSDHLatent(**SMALL, steps=120, checkpoint_every=60).fit(images[:300], labels[:300])
    assert map_of_others(hasher) > 0.5
    for term in ("loss", "class", "binarisation"):
        first, last = hasher.history["hash"][term]
        assert last < first
