"""DRSCH's stage: its terms by loops, and what a gradient reaches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.methods.drsch import DRSCHConfig
from tfhash.methods.drsch.stage import (
    LAPLACIAN_TERMS,
    RANKING_TERMS,
    DRSCHStage,
    all_triplets,
    laplacian,
    nearest_others,
    ranking_hinges,
    steep_tanh,
    weighted_distances,
)
from tfhash.networks.hash_layer import HashNetwork

BITS, ITEM, HIDDEN = 4, 6, 5
ONE_LABEL = np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 2]]
SEVERAL_LABELS = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 1]], np.float32)
RNG = np.random.default_rng(0)
CODES = RNG.uniform(-1, 1, (2, 5, BITS)).astype(np.float32)
WEIGHTS = np.array([1.0, 0.5, 2.0, -1.5], np.float32)
ITEMS = RNG.normal(size=(2, 5, ITEM)).astype(np.float32)


# Loops over single images, which the terms are compared with.


def distance(one, other, weights):
    return sum(w**2 * (1 - a * b) / 2 for a, b, w in zip(one, other, weights, strict=True))


def triplets_of(labels):
    """(i, j, k) of one group: i and j share a label, i and k none."""
    shares = [[bool((a * b).any()) for b in labels] for a in labels]
    everyone = range(len(labels))
    return [
        (i, j, k)
        for i in everyone
        for j in everyone
        for k in everyone
        if i != j and shares[i][j] and not shares[i][k]
    ]


def neighbours_of(items, count):
    """For each item of one group the positions of the others that are nearest to it."""
    found = []
    for i, item in enumerate(items):
        others = [j for j in range(len(items)) if j != i]
        found.append(sorted(others, key=lambda j, x=item: ((items[j] - x) ** 2).sum())[:count])
    return found


def triplet_by_loops(codes, labels, weights, margin):
    """The mean hinge and the share of active triplets: means over groups of means over triplets."""
    means, active = [], []
    for group, of_images in zip(codes, labels, strict=True):
        hinges = [
            max(
                0.0,
                margin
                + distance(group[i], group[j], weights)
                - distance(group[i], group[k], weights),
            )
            for i, j, k in triplets_of(of_images)
        ]
        means.append(np.mean(hinges))
        active.append(np.mean(np.array(hinges) > 0))
    return np.mean(means), np.mean(active)


def laplacian_by_loops(codes, items, weights, count):
    apart = [
        sum(weights**2 * (group[i] - group[j]) ** 2) / 4
        for group, of_group in zip(codes, items, strict=True)
        for i, near in enumerate(neighbours_of(of_group, count))
        for j in near
    ]
    return np.mean(apart)


def test_the_tanh_by_hand():
    """beta = 2, v = 1: (1 - e^-2) / (1 + e^-2) = .76159; of large beta v the sign."""
    found = steep_tanh(tf.constant([0.0, 1.0, -1.0]), tf.constant(2.0))
    np.testing.assert_allclose(found, [0, 0.7615942, -0.7615942], rtol=1e-6)
    assert list(steep_tanh(tf.constant([0.5, -1e6]), tf.constant(1000.0)).numpy()) == [1, -1]


def test_distances_by_hand():
    """Codes [1, 1, 1, 1] and [1, -1, -1, 1]: w² of the second and the third bit, 1/4 + 4."""
    codes = tf.constant([[[1.0, 1, 1, 1], [1, -1, -1, 1]]])
    found = weighted_distances(codes, tf.constant(WEIGHTS))
    np.testing.assert_allclose(found, [[[0, 4.25], [4.25, 0]]], atol=1e-6)


def test_distances_by_loops():
    found = weighted_distances(tf.constant(CODES), tf.constant(WEIGHTS)).numpy()
    for group in range(2):
        for i in range(5):
            for j in range(5):
                expected = distance(CODES[group, i], CODES[group, j], WEIGHTS)
                assert found[group, i, j] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [ONE_LABEL, SEVERAL_LABELS], ids=["one", "several"])
def test_triplets_by_loops(labels):
    similar = tf.constant([(labels @ labels.T > 0).astype(np.float32)])
    found = [tuple(row[1:]) for row in np.argwhere(all_triplets(similar).numpy())]
    assert found == triplets_of(labels) and len(found) > 4


def test_an_image_without_a_label_is_in_no_triplet_as_the_first_or_the_second():
    """Labels a, a, none: (0, 1, 2) and (1, 0, 2) alone."""
    similar = tf.constant([[[1.0, 1, 0], [1, 1, 0], [0, 0, 0]]])
    found = np.argwhere(all_triplets(similar).numpy())[:, 1:]
    np.testing.assert_array_equal(found, [[0, 1, 2], [1, 0, 2]])


def test_hinges_by_hand():
    """d(0, 1) = 1 and d(0, 2) = 4 with margin 5: 5 + 1 - 4, the other way round 5 + 4 - 1."""
    distances = tf.constant([[[0.0, 1, 4], [1, 0, 9], [4, 9, 0]]])
    found = ranking_hinges(distances, 5.0).numpy()[0]
    assert (found[0, 1, 2], found[0, 2, 1], found[1, 0, 2]) == (2, 8, 0)


@pytest.mark.parametrize("count", [1, 3])
def test_neighbours_by_loops(count):
    found = nearest_others(tf.constant(ITEMS), count).numpy()
    for group, items in zip(found, ITEMS, strict=True):
        expected = np.zeros((5, 5))
        for i, near in enumerate(neighbours_of(items, count)):
            expected[i, near] = 1
        np.testing.assert_array_equal(group, expected)


def test_no_item_is_its_own_neighbour_and_images_may_be_uint8():
    """Three equal images: of each the two others, by their pixels."""
    found = nearest_others(tf.zeros((1, 3, 2, 2, 3), tf.uint8), 2).numpy()
    np.testing.assert_array_equal(found, [1 - np.eye(3)])


def test_the_laplacian_by_hand_by_loops_and_as_a_trace():
    """By hand: codes [1, 1, 1, 1] and [1, -1, -1, 1] as neighbours differ by w² of two bits."""
    codes = tf.constant([[[1.0, 1, 1, 1], [1, -1, -1, 1]]])
    both = tf.constant([[[0.0, 1], [1, 0]]])
    np.testing.assert_allclose(laplacian(codes, tf.constant(WEIGHTS), both), 4.25, rtol=1e-6)
    neighbours = nearest_others(tf.constant(ITEMS), 2)
    found = float(laplacian(tf.constant(CODES), tf.constant(WEIGHTS), neighbours))
    assert found == pytest.approx(laplacian_by_loops(CODES, ITEMS, WEIGHTS, 2), rel=1e-5)
    traces = []
    for group, adjacent in zip(CODES, neighbours.numpy(), strict=True):
        s = (adjacent + adjacent.T) / 2
        r = group * WEIGHTS
        traces.append(np.trace(r.T @ (np.diag(s.sum(1)) - s) @ r) / (2 * s.sum()))
    assert found == pytest.approx(np.mean(traces), rel=1e-5)


# The stage.


def make_stage(steps=4, **options) -> DRSCHStage:
    """Five hidden units, and weights so large that every gradient shows."""
    options = {"beta": (2.0,), "neighbours": 2, "margin": 0.5, **options}
    config = DRSCHConfig(**options)
    network = HashNetwork(BITS, None, (HIDDEN,), config.dropout)
    network.build((None, ITEM))
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0, 0.5, w.shape) for w in network.get_weights()])
    stage = DRSCHStage(network, config, code_length=BITS, steps=steps, seed=0)
    stage.bit_weights.assign(WEIGHTS)
    stage.compile({"hash": (keras.optimizers.SGD(0.01), stage.variables_by_optimizer()["hash"])})
    return stage


def make_batch(labels=ONE_LABEL, scale=1.0):
    of_images = np.stack([labels, labels[::-1]])
    return {"images": tf.constant(scale * ITEMS), "labels": tf.constant(of_images)}


@pytest.mark.parametrize("labels", [ONE_LABEL, SEVERAL_LABELS], ids=["one", "several"])
@pytest.mark.parametrize("neighbours_by", ["features", "inputs"])
def test_terms_by_loops(labels, neighbours_by):
    stage = make_stage(neighbours_by=neighbours_by, weight_laplacian=0.3, beta=(3.0,))
    batch = make_batch(labels)
    terms = stage.gradients(batch)[1]
    flat = tf.reshape(batch["images"], (-1, ITEM))
    scores = stage.hash_network.scores(flat).numpy().reshape(2, 5, BITS)
    features = stage.hash_network.features(flat).numpy().reshape(2, 5, HIDDEN)
    codes = np.tanh(1.5 * scores)
    triplet, active = triplet_by_loops(codes, batch["labels"].numpy(), WEIGHTS, 0.5)
    items = features if neighbours_by == "features" else ITEMS
    close = laplacian_by_loops(codes, items, WEIGHTS, 2)
    expected = {
        "triplet": triplet,
        "triplet_active": active,
        "laplacian": close,
        "loss": triplet + 0.3 * close,
        "bit_balance": np.abs((scores > 0).mean(axis=(0, 1)) - 0.5).mean(),
        "beta": 3.0,
        "bit_weight_least": 0.25,
        "bit_weight_most": 4.0,
    }
    assert set(terms) == set(expected) == {*RANKING_TERMS, *LAPLACIAN_TERMS}
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, err_msg=name)
    assert 0 < active < 1


def test_the_two_kinds_of_neighbours_are_others_here():
    """Else the test before would not tell them apart."""
    found = [
        make_stage(neighbours_by=by).gradients(make_batch())[1] for by in ("features", "inputs")
    ]
    assert found[0]["laplacian"] != found[1]["laplacian"]


def test_dsch_is_drsch_without_the_term():
    terms = make_stage(variant="dsch").gradients(make_batch())[1]
    whole = make_stage(variant="drsch").gradients(make_batch())[1]
    assert set(terms) == set(RANKING_TERMS)
    assert terms["loss"] == terms["triplet"] == whole["triplet"] != whole["loss"]


def test_the_margin_is_half_the_bits_by_default_and_0_is_a_margin():
    assert make_stage(margin=None).margin == BITS / 2
    assert make_stage(margin=0.0).margin == 0


def gradients(stage, batch, term):
    """Of one term, for the kernel and bias of the hidden and the hash layer, and for w."""
    variables = [v.value for v in [*stage.hash_network.trainable_variables, stage.bit_weights]]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        value = stage.forward(batch)[term]
    return tape.gradient(value, variables)


@pytest.mark.parametrize("term", ["triplet", "laplacian", "loss"])
def test_h_and_the_weights_of_bits_have_a_gradient_of_each_term(term):
    *of_h, of_weights = gradients(make_stage(), make_batch(), term)
    assert len(of_h) == 4 and all(np.abs(gradient).max() > 1e-4 for gradient in of_h)
    assert of_weights.shape == (BITS,) and (np.abs(of_weights) > 1e-4).all()


@pytest.mark.parametrize("term", ["triplet_active", "bit_balance", "beta"])
def test_what_is_only_told_has_no_gradient(term):
    found = gradients(make_stage(), make_batch(), term)
    assert all(g is None or np.abs(g).max() == 0 for g in found)


def test_satisfied_triplets_and_a_saturated_tanh_give_none():
    """Images of one class alone make no triplet; scores of hundreds have no slope left."""
    alone = make_batch(np.ones((5, 1), np.float32))
    assert all(np.abs(g).max() == 0 for g in gradients(make_stage(), alone, "triplet"))
    *of_h, of_weights = gradients(make_stage(beta=(1000.0,)), make_batch(scale=100.0), "loss")
    assert all(np.abs(g).max() == 0 for g in of_h) and np.abs(of_weights).max() > 0


def test_which_images_are_neighbours_has_no_gradient():
    """The Laplacian's gradient for the hidden layer is that with its neighbours held fixed."""
    stage, batch = make_stage(neighbours_by="features"), make_batch()
    network, flat = stage.hash_network, tf.reshape(ITEMS, (-1, ITEM))
    fixed = nearest_others(tf.reshape(network.features(flat), (2, 5, HIDDEN)), 2)
    kernel = network.hidden_layers[0].kernel.value
    with tf.GradientTape() as tape:
        codes = tf.reshape(tf.tanh(network.scores(flat)), (2, 5, BITS))
        value = laplacian(codes, tf.constant(WEIGHTS), fixed)
    expected = tape.gradient(value, kernel)
    found = gradients(stage, batch, "laplacian")[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_optimizer_learns_h_and_the_weights_of_bits_unless_these_are_fixed():
    for learned in (True, False):
        stage = make_stage(learn_bit_weights=learned)
        of_optimizer, _ = stage.gradients(make_batch())
        assert list(of_optimizer) == ["hash"] and len(of_optimizer["hash"]) == 4 + learned
        before = stage.hash_network.hash_layer.kernel.numpy()
        stage.train_step(make_batch())
        assert (stage.bit_weights.numpy() != WEIGHTS).any() == learned
        assert (stage.hash_network.hash_layer.kernel.numpy() != before).any()
        assert stage.bit_weights.trainable == learned


def test_bits_weigh_the_same_at_the_start():
    config = DRSCHConfig()
    network = HashNetwork(BITS)
    network.build((None, ITEM))
    stage = DRSCHStage(network, config, code_length=BITS, steps=1, seed=0)
    np.testing.assert_array_equal(stage.bit_weights, [1, 1, 1, 1])


def test_beta_grows_in_equal_parts_of_the_training():
    """Three values over seven steps: step s has number floor(3 s / 7), and the last one stays."""
    stage = make_stage(steps=7, beta=(2.0, 5.0, 9.0))
    found = []
    for _ in range(8):
        found.append(float(stage.train_step(make_batch())["beta"]))
        stage.reset_metrics()
    assert found == [2, 2, 2, 5, 5, 9, 9, 9]


def test_dropout_follows_the_step_and_the_seed():
    found = [make_stage(dropout=0.5).gradients(make_batch())[1]["loss"] for _ in range(2)]
    assert found[0] == found[1] != make_stage().gradients(make_batch())[1]["loss"]
