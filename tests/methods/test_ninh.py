"""NINH: its threshold and loss, what a gradient reaches, and codes that follow the classes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfhash
from tfhash.data.learning import LearningData
from tfhash.methods.ninh import NINH, TERMS, NINHConfig, NINHStage, piecewise_threshold
from tfhash.networks import backbones
from tfhash.networks.divided import DividedHashNetwork

BITS, ITEM = 4, 6
# Two groups of five items, of which these are query, positive and negative.
TRIPLETS = np.array([[[0, 1, 2], [3, 4, 0], [1, 0, 3]], [[4, 2, 1], [0, 3, 4], [2, 1, 0]]])


def make_stage(**options) -> NINHStage:
    """Two ReLU units a bit, with weights so large that every gradient shows."""
    config = NINHConfig(**options)
    network = DividedHashNetwork(BITS, None, (2 * BITS,), config.dropout)
    network.build((None, ITEM))
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0, 0.5, w.shape) for w in network.get_weights()])
    stage = NINHStage(network, config, seed=0)
    stage.compile({"hash": (keras.optimizers.SGD(0.1), network.trainable_variables)})
    return stage


def make_batch(scale=1.0):
    images = scale * np.random.default_rng(1).normal(size=(2, 5, ITEM))
    return {"images": tf.constant(images, tf.float32), "triplets": tf.constant(TRIPLETS, tf.int32)}


def by_loops(codes, margin):
    """The terms from codes [B, m, k], triplet by triplet."""
    hinges, positives, negatives = [], [], []
    for group, triplets in zip(codes, TRIPLETS, strict=True):
        for q, p, n in triplets:
            positives.append(((group[q] - group[p]) ** 2).sum())
            negatives.append(((group[q] - group[n]) ** 2).sum())
            hinges.append(max(0.0, margin + positives[-1] - negatives[-1]))
    return {
        "loss": np.mean(hinges),
        "triplet_active": np.mean(np.array(hinges) > 0),
        "positive_distance": np.mean(positives),
        "negative_distance": np.mean(negatives),
    }


def test_the_threshold_by_hand():
    """Of .2: below .3 it is 0, above .7 it is 1, and between the two it is what came."""
    came = tf.constant([[0.0, 0.29, 0.31], [0.5, 0.69, 0.71]])
    with tf.GradientTape() as tape:
        tape.watch(came)
        found = piecewise_threshold(came, 0.2)
    np.testing.assert_array_equal(found, np.float32([[0, 0, 0.31], [0.5, 0.69, 1]]))
    np.testing.assert_array_equal(tape.gradient(found, came), [[0, 0, 1], [1, 1, 0]])


def test_a_triplet_by_hand():
    """Activations of all bits are 1/2, 1/2 and sigmoid(2): d(q, p) = 0, d(q, n) = 4 (.3808)²."""
    stage = make_stage(margin=1.5)
    weights = stage.hash_network.get_weights()
    stage.hash_network.set_weights([np.zeros_like(w) for w in weights])
    kernel, slices = np.zeros((ITEM, 2 * BITS)), np.ones((BITS, 2))
    kernel[0] = 1.0  # both units of a bit are the first number of an item
    stage.hash_network.set_weights([kernel, np.zeros(2 * BITS), slices, np.zeros(BITS)])
    images = np.zeros((1, 3, ITEM), np.float32)
    images[0, 2, 0] = 1.0
    batch = {"images": tf.constant(images), "triplets": tf.constant([[[0, 1, 2]]])}
    terms = stage.gradients(batch)[1]
    assert terms["loss"].numpy() == pytest.approx(1.5 - 4 * (0.880797 - 0.5) ** 2, rel=1e-5)
    assert terms["positive_distance"] == 0 and terms["triplet_active"] == 1
    # Of the three images the third alone has ones, in each bit: |1/3 - 1/2|.
    assert terms["bit_balance"].numpy() == pytest.approx(1 / 6)


@pytest.mark.parametrize("options", [{}, {"margin": 0.05}, {"threshold": 0.1, "margin": 0.6}])
def test_terms_by_loops_over_triplets(options):
    stage, batch = make_stage(**options), make_batch(5.0)
    terms = stage.gradients(batch)[1]
    codes = stage.hash_network(tf.reshape(batch["images"], (-1, ITEM))).numpy()
    if "threshold" in options:
        codes = np.where(codes < 0.4, 0, np.where(codes > 0.6, 1, codes))
    expected = by_loops(codes.reshape(2, 5, BITS), options.get("margin", 1.0))
    assert set(terms) == set(TERMS)
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)
    if options == {"margin": 0.05}:  # else the share could be of anything
        assert 0 < expected["triplet_active"] < 1


def test_every_weight_has_a_gradient_and_satisfied_triplets_give_none():
    stage = make_stage()
    gradients, _ = stage.gradients(make_batch())
    assert list(gradients) == ["hash"]
    assert len(gradients["hash"]) == 4  # kernel and bias of the hidden layer, slices and bias
    assert all(np.abs(gradient).max() > 0 for gradient in gradients["hash"])
    batch = make_batch() | {"triplets": tf.constant([[[0, 0, 0]]] * 2)}
    satisfied, terms = make_stage(margin=0.0).gradients(batch)
    assert terms["triplet_active"] == 0
    assert all(np.abs(gradient).max() == 0 for gradient in satisfied["hash"])


def test_the_threshold_has_no_gradient_outside_of_its_band():
    """Scores of many tens all lie outside; without the threshold, those of 1 have a gradient."""
    gradients, terms = make_stage(threshold=0.01).gradients(make_batch(100.0))
    assert terms["loss"] > 0 and all(np.abs(g).max() == 0 for g in gradients["hash"])


def test_the_gradient_by_differences():
    stage, batch, step = make_stage(), make_batch(), 1e-2
    slices = stage.hash_network.hash_layer.slices
    found = stage.gradients(batch)[0]["hash"][2][1, 0]
    start, values = slices.numpy(), []
    for sign in (1, -1):
        moved = start.copy()
        moved[1, 0] += sign * step
        slices.assign(moved)
        values.append(float(stage.gradients(batch)[1]["loss"]))
    np.testing.assert_allclose(found, (values[0] - values[1]) / (2 * step), atol=1e-3)


def test_dropout_follows_the_step_and_the_seed():
    """Dropped units are those of the stage's seed: the same in a second stage, not without it."""
    found = [make_stage(dropout=0.5).gradients(make_batch())[1]["loss"] for _ in range(2)]
    assert found[0] == found[1] != make_stage().gradients(make_batch())[1]["loss"]


SETTINGS = {
    "code_length": 16,
    "slice_units": 8,
    "steps": 100,
    "checkpoint_every": 50,
    "hash_optimizer": "adamw",
    "hash_learning_rate": 2e-3,
    "image_size": 16,
    "batch_size": 48,
}


@pytest.fixture(scope="module")
def learned(digits) -> NINH:
    images, labels = digits
    return NINH(**SETTINGS).fit(images[:300], labels[:300])


def test_codes_follow_the_classes(learned, map_of_others):
    assert map_of_others(learned) > 0.4
    first, last = learned.history["hash"]["loss"]
    assert last < first and set(TERMS) <= set(learned.history["hash"])


def test_a_bit_has_a_slice_of_its_own(learned):
    network = learned.encoder
    assert type(network) is DividedHashNetwork
    assert [layer.units for layer in network.hidden_layers] == [16 * 8]
    assert network.hash_layer.slices.shape == (16, 8)


TINY = SETTINGS | {"steps": 2, "checkpoint_every": 2, "batch_size": 12, "image_size": 8}


def fitted(digits, labels=None, **settings) -> NINH:
    images, of_images = digits
    labels = of_images[:40] if labels is None else labels
    return NINH(**{**TINY, **settings}).fit(images[:40], labels)


def built(tiny_images, **settings) -> tuple[NINH, LearningData]:
    """A hasher that has not learned, and what it would learn from."""
    hasher = NINH(**{**TINY, "image_size": 24, **settings})
    hasher.build(24)
    return hasher, hasher.learning_data(*tiny_images)


def test_a_hidden_layer_comes_before_the_slices(tiny_images):
    hasher, _ = built(tiny_images, hidden_units=7, slice_units=3, dropout=0.5)
    network = hasher.networks["hash_network"]
    assert [layer.units for layer in network.hidden_layers] == [7, 3 * 16]
    assert network.dropout == 0.5


def test_the_stage_has_the_settings_and_the_seed_of_the_hasher(tiny_images):
    hasher, data = built(tiny_images, margin=3.0, threshold=0.05, seed=7)
    stage = hasher.make_stage(data)
    assert (stage.config, stage.seed) == (hasher.config, 7)
    assert (stage.config.margin, stage.config.threshold) == (3.0, 0.05)
    assert stage.hash_network is hasher.networks["hash_network"]


@pytest.mark.parametrize(
    ("settings", "shape"),
    [({"triplets_per_query": 2}, (1, 24, 3)), ({"triplets": "sampled", "groups": 2}, (2, 2, 3))],
)
def test_a_batch_is_made_of_triplets_as_asked(tiny_images, settings, shape):
    """Twelve images: twice each is a query, or each of two groups has six, two triplets."""
    hasher, data = built(tiny_images, **settings)
    assert hasher.make_batches(data, 1)(0)["triplets"].shape == shape


def test_defaults_of_the_optimizer_are_the_reproduction_s():
    config = NINHConfig()
    assert (config.hash_optimizer, config.hash_learning_rate) == ("sgd", 1e-3)
    assert (config.hash_schedule, config.hash_decay_steps) == ("step", 60_000)
    assert (config.weight_decay, config.margin, config.slice_units) == (5e-4, 1.0, 50)


def test_images_may_have_several_labels(digits):
    """Triplets of images that share a label or none: here the digit, and whether it is even."""
    _, labels = digits
    several = np.zeros((40, 12), int)
    several[np.arange(40), labels[:40]] = 1
    several[np.arange(40), 10 + labels[:40] % 2] = 1
    assert np.isfinite(fitted(digits, labels=several).history["hash"]["loss"]).all()


def test_bfloat16_leaves_the_loss_in_float32(digits):
    hasher = fitted(digits, mixed_bfloat16=True)
    assert hasher.encoder.hidden_layers[0].compute_dtype == "bfloat16"
    assert hasher.encoder.hash_layer.compute_dtype == "float32"
    assert np.isfinite(hasher.history["hash"]["loss"]).all()


@pytest.mark.parametrize(
    ("settings", "labels", "line"),
    [
        ({}, np.full(40, -1), "labels: none; NINH learns from labelled images"),
        ({}, np.zeros(40, int), "`labelled_per_class`: no triplet can be made of the 40 labelled"),
        ({}, np.arange(40), "`labelled_per_class`: no triplet can be made of the 40 labelled"),
        ({"batch_size": 2}, None, "`batch_size`: 2 labelled images a group; at least 3"),
    ],
)
def test_what_it_cannot_learn_from_is_one_line(digits, settings, labels, line):
    with pytest.raises(tfhash.UserError, match=line) as raised:
        fitted(digits, labels=labels, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"threshold": 0.6}, {"slice_units": 0}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(tfhash.UserError, match=f"`{next(iter(wrong))}`: .*allowed"):
        NINH(**wrong)


def test_it_learns_on_features_of_a_frozen_backbone(digits, tmp_path):
    """The slices are cut of a layer on these features; the encoder has all of it."""
    trunk = backbones.build("small_cnn").get_layer("small_cnn")
    arrays = {f"{layer.name}/{w.name}": w.numpy() for layer in trunk.layers for w in layer.weights}
    np.savez(tmp_path / "small.npz", **arrays)
    weights = str(tmp_path / "small.npz")
    hasher = fitted(digits, space="features", weights=weights, batch_size=48, steps=4)
    images = digits[0][:40]
    assert hasher.networks["hash_network"].backbone is None
    direct = hasher.encoder(images.astype(np.float32)).numpy()
    np.testing.assert_allclose(hasher.embed(images), direct, atol=1e-5)
    assert len(np.unique(hasher.encode(images), axis=0)) > 5
