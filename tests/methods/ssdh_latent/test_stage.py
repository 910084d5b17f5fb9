"""SSDH's latent layer: its terms by hand and by loops, and what each of them reaches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.methods.ssdh_latent import (
    LatentStage,
    SSDHLatentConfig,
    binarisation_loss,
    half_on_loss,
)
from tfhash.networks.hash_layer import HashNetwork

BITS, WIDTH, CLASSES = 4, 3, 3
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
