"""SSDH's latent layer: its terms by hand and by loops, what each of them reaches, and its wires."""

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
    LatentStage,
    SSDHLatent,
    SSDHLatentConfig,
    binarisation_loss,
    half_on_loss,
)
from tfhash.networks.hash_layer import HashNetwork
from tfhash.training.strategies import precision

BITS, WIDTH, CLASSES, SIZE = 4, 3, 3, 8
NONE = np.empty(0, np.int64)
ONE_LABEL = np.eye(CLASSES, dtype=np.float32)[[0, 1, 2, 1]]
SEVERAL_LABELS = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]], np.float32)
WEIGHTS = {"weight_class": 0.7, "weight_binarisation": 3.0, "weight_half_on": 5.0}


def make_stage(multi_label=False, dropout=0.0, seed=0, **options):
    """Items are vectors; weights so large that every gradient shows."""
    network = HashNetwork(BITS, hidden_units=(5,), dropout=dropout)
    network.build((None, WIDTH))
    classifier = keras.layers.Dense(CLASSES)
    classifier.build((None, BITS))
    rng = np.random.default_rng(1)
    for variable in network.trainable_variables + classifier.trainable_variables:
        variable.assign(rng.normal(0, 0.7, variable.shape))
    config = SSDHLatentConfig(**options)
    stage = LatentStage(network, classifier, config, multi_label=multi_label, seed=seed)
    variables = stage.variables_by_optimizer()["hash"]
    stage.compile({"hash": (keras.optimizers.SGD(0.5), variables)})
    return stage


def make_batch(labels=ONE_LABEL):
    """Two groups of four items; the second has the labels the other way round."""
    images = np.random.default_rng(0).normal(size=(2, len(labels), WIDTH))
    return {
        "images": tf.constant(images, tf.float32),
        "labels": tf.constant(np.stack([labels, labels[::-1]])),
    }


def activations_of(stage, batch, **options):
    return stage.hash_network(tf.reshape(batch["images"], (-1, WIDTH)), **options)


# The terms


def test_binarisation_by_hand():
    """(a - .5)²: 1/4, 1/4, 0, 1/16, whose mean is 9/64; half of it, negative."""
    found = binarisation_loss(tf.constant([[0.0, 1.0], [0.5, 0.25]]))
    assert float(found) == -9 / 128


def test_half_on_by_hand():
    """(s - .5)²: 0, 1/4, 1/16, whose mean is 5/48; half of it."""
    found = half_on_loss(tf.constant([0.5, 1.0, 0.25]))
    assert float(found) == pytest.approx(5 / 96)


def loop_over_class_loss(logits, labels, several):
    """One image: -log softmax at its label; of several, the sum of the cross entropies."""
    logits = np.asarray(logits, np.float64)
    if not labels.any():
        return 0.0
    if not several:
        return np.log(np.exp(logits).sum()) - logits[labels.argmax()]
    chances = 1 / (1 + np.exp(-logits))
    return -sum(np.log(p if y else 1 - p) for p, y in zip(chances, labels, strict=True))


@pytest.mark.parametrize("several", [False, True])
def test_terms_by_loops_over_images_and_bits(several):
    """The classifier is linear in the activations; an image without a label has no class term."""
    stage = make_stage(several, **WEIGHTS)
    batch = make_batch(SEVERAL_LABELS if several else ONE_LABEL)
    terms = {name: float(value) for name, value in stage.forward(batch).items()}
    activations = activations_of(stage, batch).numpy().astype(np.float64)
    kernel, bias = (variable.numpy() for variable in stage.classifier.trainable_variables)
    labels = batch["labels"].numpy().reshape(-1, CLASSES)
    of_class = binarisation = half_on = 0.0
    for a, y in zip(activations, labels, strict=True):
        of_class += loop_over_class_loss(a @ kernel + bias, y, several) / 8
        half_on += (a.mean() - 0.5) ** 2 / (2 * 8)
        for bit in a:
            binarisation -= (bit - 0.5) ** 2 / (2 * BITS * 8)
    expected = {"class": of_class, "binarisation": binarisation, "half_on": half_on}
    expected["loss"] = 0.7 * of_class + 3 * binarisation + 5 * half_on
    assert terms == pytest.approx(expected, rel=1e-5)


def test_a_batch_is_the_mean_of_its_groups():
    """So replicas, which share a batch by its groups, learn what one device does."""
    stage, batch = make_stage(), make_batch()
    whole = stage.forward(batch)
    halves = [stage.forward({name: a[g : g + 1] for name, a in batch.items()}) for g in range(2)]
    for term, value in whole.items():
        assert float(value) == pytest.approx(np.mean([float(half[term]) for half in halves]))


# What learns of which term


def gradients_of(weight):
    """By variable, the gradient where only this term has a weight."""
    weights = dict.fromkeys(WEIGHTS, 0.0) | {weight: 1.0}
    stage = make_stage(**weights)
    gradients = stage.gradients(make_batch())[0]["hash"]
    variables = stage.variables_by_optimizer()["hash"]
    assert len(gradients) == len(variables) == 6
    return {v.path: g.numpy() for v, g in zip(variables, gradients, strict=True)}


def test_the_class_term_reaches_every_variable():
    assert all(np.abs(gradient).max() > 1e-3 for gradient in gradients_of("weight_class").values())


@pytest.mark.parametrize("weight", ["weight_binarisation", "weight_half_on"])
def test_what_is_asked_of_bits_reaches_the_hash_network_and_not_the_classifier(weight):
    *of_hash, kernel, bias = gradients_of(weight).values()
    assert all(np.abs(gradient).max() > 1e-4 for gradient in of_hash)
    assert not kernel.any() and not bias.any()


def test_the_gradient_is_that_of_the_loss():
    """By a central difference, in an entry of each variable."""
    stage, batch = make_stage(**WEIGHTS), make_batch()
    gradients = stage.gradients(batch)[0]["hash"]
    for variable, gradient in zip(stage.variables_by_optimizer()["hash"], gradients, strict=True):
        start, entry, values = variable.numpy(), (0,) * len(variable.shape), []
        for step in (1e-2, -1e-2):
            moved = start.copy()
            moved[entry] += step
            variable.assign(moved)
            values.append(float(stage.forward(batch)["loss"]))
        variable.assign(start)
        expected = (values[0] - values[1]) / 2e-2
        assert float(gradient[entry]) == pytest.approx(expected, abs=2e-3)


def test_a_step_of_each_term_does_what_it_is_for():
    """Binarisation moves activations away from .5, the other one an image's mean towards it."""
    batch = make_batch()
    for weight, measure in (
        ("weight_binarisation", lambda a: -np.square(a - 0.5).mean()),
        ("weight_half_on", lambda a: np.square(a.mean(axis=1) - 0.5).mean()),
    ):
        stage = make_stage(**(dict.fromkeys(WEIGHTS, 0.0) | {weight: 1.0}))
        before = measure(activations_of(stage, batch).numpy())
        stage.train_step(batch)
        assert measure(activations_of(stage, batch).numpy()) < before - 1e-5


def test_dropped_units_follow_from_the_seed_and_the_step():
    stage, batch = make_stage(dropout=0.5, seed=3), make_batch()
    found = []
    for _ in range(2):
        dropped = activations_of(stage, batch, training=True, dropout_seed=stage.step_seed(0))
        found.append(float(stage.forward(batch)["binarisation"]))
        assert found[-1] == pytest.approx(float(binarisation_loss(dropped)))
        stage.optimizer.iterations.assign_add(1)
    assert found[0] != found[1]
    other = make_stage(dropout=0.5, seed=4).forward(batch)["binarisation"]
    assert float(other) not in found


# The hasher


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
