"""DHN's terms by hand and by loops over pairs and bits, and what they reach."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.methods.dhn import (
    DHNConfig,
    PairStage,
    balance,
    inner_products,
    of_pairs,
    quantisation_loss,
)
from tfhash.networks.hash_layer import HashNetwork

BITS, WIDTH = 4, 3
PAIRS = np.stack(np.triu_indices(5, 1), axis=1).astype(np.int32)  # of five items
# The second one of the rows has two labels, the last none, so it is similar to nobody.
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)


def make_stage(dropout=0.0, seed=0, **options):
    """Items are vectors; weights so large that every gradient shows."""
    network = HashNetwork(BITS, hidden_units=(5,), dropout=dropout)
    network.build((None, WIDTH))
    rng = np.random.default_rng(1)
    for variable in network.trainable_variables:
        variable.assign(rng.normal(0, 0.7, variable.shape))
    stage = PairStage(network, DHNConfig(**options), seed)
    stage.compile({"hash": (keras.optimizers.SGD(0.1), network.trainable_variables)})
    return stage


def make_batch():
    """Two groups of five items; the second has the labels the other way round."""
    images = np.random.default_rng(0).normal(size=(2, 5, WIDTH))
    return {
        "images": tf.constant(images, tf.float32),
        "labels": tf.constant(np.stack([LABELS, LABELS[::-1]])),
        "pairs": tf.constant(np.stack([PAIRS, PAIRS])),
    }


def scores_of(stage, batch, **options):
    flat = tf.reshape(batch["images"], (-1, WIDTH))
    return stage.hash_network.scores(flat, **options)


# The terms


def test_quantisation_by_hand():
    """z of 0, 1, -1, 3, -.5: log cosh of -1, 0, 0, 2 and -1/2."""
    found = quantisation_loss(tf.constant([[0.0, 1.0, -1.0, 3.0, -0.5]]))
    expected = [[math.log(math.cosh(x)) for x in (-1, 0, 0, 2, -0.5)]]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_quantisation_does_not_overflow():
    """log cosh x is |x| - log 2 there, where cosh itself is infinite in float32; its slope is 1."""
    z = tf.constant([1000.0, -1000.0])
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = quantisation_loss(z)
    np.testing.assert_allclose(loss, 2 * [999 - math.log(2)], rtol=1e-6)
    np.testing.assert_array_equal(tape.gradient(loss, z), [1, -1])


def test_the_slope_of_quantisation_is_a_tanh():
    """d/dz log cosh(|z| - 1) = sign(z) tanh(|z| - 1)."""
    z = np.array([0.3, -0.3, 0.9, -2.0], np.float32)
    with tf.GradientTape() as tape:
        x = tf.constant(z)
        tape.watch(x)
        loss = quantisation_loss(x)
    expected = np.sign(z) * np.tanh(np.abs(z) - 1)
    np.testing.assert_allclose(tape.gradient(loss, x), expected, atol=1e-6)


def test_balance_by_hand():
    """Four pairs: one similar weighs 4, two weigh 2 each, four 1 each; none: all weigh 1."""
    similar = tf.constant([[0, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], tf.float32)
    expected = [[1, 4, 1, 1], [2, 1, 1, 2], [1, 1, 1, 1], [1, 1, 1, 1]]
    np.testing.assert_array_equal(balance(similar), expected)


def test_entries_of_pairs():
    """In row and column of the pair, each group in its own matrix."""
    matrices = tf.reshape(tf.range(18.0), (2, 3, 3))
    pairs = tf.constant([[[0, 1], [2, 0]], [[1, 2], [1, 1]]], tf.int32)
    np.testing.assert_array_equal(of_pairs(matrices, pairs), [[1, 6], [14, 13]])


def test_inner_products_and_their_gradient():
    """By a loop; the gradient, of another weight for each entry, is that of the plain product."""
    rng = np.random.default_rng(0)
    z, weights = rng.normal(size=(2, 3, BITS)), rng.normal(size=(2, 3, 3))
    found = inner_products(tf.constant(z))
    for group, i, j in np.ndindex(2, 3, 3):
        assert float(found[group, i, j]) == pytest.approx(z[group, i] @ z[group, j])

    def gradient(product):
        with tf.GradientTape() as tape:
            x = tf.constant(z)
            tape.watch(x)
            total = tf.reduce_sum(weights * product(x))
        return tape.gradient(total, x)

    plain = gradient(lambda x: tf.matmul(x, x, transpose_b=True))
    np.testing.assert_allclose(gradient(inner_products), plain)


@pytest.mark.parametrize("balanced", [False, True])
def test_terms_by_loops_over_pairs_and_bits(balanced):
    """z = tanh(u); -log p(s | z'z / 4); two images are similar where they share any label."""
    stage = make_stage(balanced_pairs=balanced, inner_scale=0.25, weight_quantisation=0.7)
    batch = make_batch()
    terms = {name: float(value) for name, value in stage.forward(batch).items()}
    z = np.tanh(scores_of(stage, batch).numpy().astype(np.float64)).reshape(2, 5, BITS)
    pairs = quantisation = share = 0.0
    for group, labels in enumerate(batch["labels"].numpy()):
        similar = {(i, j): any(labels[i] * labels[j]) for i, j in PAIRS}
        assert 0 < sum(similar.values()) < 10
        for (i, j), alike in similar.items():
            chance = 1 / (1 + math.exp(-0.25 * z[group, i] @ z[group, j]))
            weight = 10 / sum(similar.values()) if alike and balanced else 1.0
            pairs -= weight * math.log(chance if alike else 1 - chance) / 20
            share += alike / 20
        for bit in z[group].ravel():
            quantisation += math.log(math.cosh(abs(bit) - 1)) / (2 * 5 * BITS)
    expected = {"pairs": pairs, "quantisation": quantisation, "similar_share": share}
    expected["loss"] = pairs + 0.7 * quantisation
    assert terms == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("balanced", [False, True])
def test_a_batch_is_the_mean_of_its_groups(balanced):
    """So replicas, which share a batch by its groups, learn what one device does."""
    stage, batch = make_stage(balanced_pairs=balanced), make_batch()
    whole = stage.forward(batch)
    halves = [stage.forward({name: a[g : g + 1] for name, a in batch.items()}) for g in range(2)]
    for term, value in whole.items():
        assert float(value) == pytest.approx(np.mean([float(half[term]) for half in halves]))


def test_the_balance_of_a_group_is_its_own():
    """Its pairs weigh the same, whoever else is in the batch: by a group of other labels."""
    stage, batch = make_stage(balanced_pairs=True), make_batch()
    first = {name: a[:1] for name, a in batch.items()}
    alone = float(stage.forward(first)["pairs"])
    labels = tf.ones_like(batch["labels"][:1])  # all similar, so all weigh 1
    of_other = float(stage.forward(first | {"labels": labels})["pairs"])
    both = {name: tf.concat([a, a], 0) for name, a in first.items()}
    both["labels"] = tf.concat([first["labels"], labels], 0)
    assert float(stage.forward(both)["pairs"]) == pytest.approx((alone + of_other) / 2)


def test_large_scores_stay_finite():
    """z'z is k at most, and no pair and no bit overflows."""
    stage, batch = make_stage(inner_scale=100.0), make_batch()
    batch["images"] = 1e4 * batch["images"]
    gradients, terms = stage.gradients(batch)
    assert all(np.isfinite(float(value)) for value in terms.values())
    assert all(np.isfinite(gradient).all() for gradient in gradients["hash"])


# What learns of which term


@pytest.mark.parametrize("balanced", [False, True])
def test_the_gradient_is_that_of_the_loss(balanced):
    """By a central difference, in an entry of each variable."""
    stage = make_stage(balanced_pairs=balanced, weight_quantisation=0.7)
    batch = make_batch()
    gradients = stage.gradients(batch)[0]["hash"]
    for variable, gradient in zip(stage.hash_network.trainable_variables, gradients, strict=True):
        start, entry, values = variable.numpy(), (0,) * len(variable.shape), []
        for step in (1e-2, -1e-2):
            moved = start.copy()
            moved[entry] += step
            variable.assign(moved)
            values.append(float(stage.forward(batch)["loss"]))
        variable.assign(start)
        expected = (values[0] - values[1]) / 2e-2
        assert float(gradient[entry]) == pytest.approx(expected, abs=2e-3)


def test_either_term_alone_reaches_every_variable():
    """Pairs alone, then both: the difference is what quantisation adds."""
    batch = make_batch()
    pairs, both = (
        make_stage(weight_quantisation=weight).gradients(batch)[0]["hash"] for weight in (0.0, 1.0)
    )
    assert len(pairs) == 4
    for one, other in zip(pairs, both, strict=True):
        assert np.abs(one).max() > 1e-3 and np.abs(other - one).max() > 1e-3


def test_labels_reach_the_pairs_and_not_the_quantisation():
    stage, batch = make_stage(), make_batch()
    other = batch | {"labels": batch["labels"][:, ::-1]}
    first, second = stage.forward(batch), stage.forward(other)
    assert float(first["pairs"]) != float(second["pairs"])
    assert float(first["quantisation"]) == float(second["quantisation"])


def test_a_frozen_backbone_gets_no_gradient():
    """Only the layers that the hash network lets learn are among what the stage trains."""
    backbone = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(5)])
    backbone.trainable = False
    network = HashNetwork(BITS, backbone)
    network.build((None, WIDTH))
    stage = PairStage(network, DHNConfig(), 0)
    stage.compile({"hash": (keras.optimizers.SGD(0.1), network.trainable_variables)})
    (gradients,) = stage.gradients(make_batch())[0].values()
    assert [gradient.shape for gradient in gradients] == [(5, BITS), (BITS,)]


def test_dropped_units_follow_from_the_seed_and_the_step():
    stage, batch = make_stage(dropout=0.5, seed=3), make_batch()
    found = []
    for _ in range(2):
        dropped = scores_of(stage, batch, training=True, dropout_seed=stage.step_seed(0))
        found.append(float(stage.forward(batch)["quantisation"]))
        expected = tf.reduce_mean(quantisation_loss(tf.tanh(dropped)))
        assert found[-1] == pytest.approx(float(expected))
        stage.optimizer.iterations.assign_add(1)
    assert found[0] != found[1]
    other = make_stage(dropout=0.5, seed=4).forward(batch)["quantisation"]
    assert float(other) not in found
