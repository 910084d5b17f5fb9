"""Stage 2 of CNNH: its terms in loops, and which layer hears of which."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.methods import cnnh
from tfhash.methods.cnnh import CNNHConfig, CNNHStage, bit_loss
from tfhash.networks.hash_layer import HashNetwork

BITS, WIDTH, CLASSES = 3, 5, 4


def test_the_loss_of_bits():
    """log(1 + e^-2) + log(1 + e^3) for scores 2, 3 and bits 1, -1; 1e4 wrong costs 1e4."""
    found = bit_loss(tf.constant([[2.0, 3.0], [-1e4, 1e4]]), tf.constant([[1.0, -1.0], [1.0, 1.0]]))
    expected = [math.log1p(math.exp(-2)) + math.log1p(math.exp(3)), 1e4]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def make_stage(class_outputs=True, multi_label=False, dropout=0.0, **options):
    keras.utils.set_random_seed(0)
    network = HashNetwork(BITS, None, (7,), dropout)
    network.build((None, WIDTH))
    classes = None
    if class_outputs:
        classes = keras.layers.Dense(CLASSES)
        classes.build((None, network.width))
    rng = np.random.default_rng(1)
    codes = rng.choice([-1.0, 1.0], (6, BITS))
    config = CNNHConfig(class_outputs=class_outputs, **options)
    stage = CNNHStage(network, config, codes, classes=classes, multi_label=multi_label, seed=0)
    optimizer = keras.optimizers.SGD(0.1)
    stage.compile({"hash": (optimizer, stage.variables_by_optimizer()["hash"])})
    return stage


def make_batch(several=False):
    """Two groups of three of the six images, in another order than the buffer has."""
    rng = np.random.default_rng(2)
    labels = np.eye(CLASSES)[[0, 1, 2, 3, 0, 1]]
    if several:
        labels[:, 3] = 1
    return {
        "images": tf.constant(rng.normal(size=(2, 3, WIDTH)), tf.float32),
        "unlabelled": tf.zeros((2, 0, WIDTH)),
        "places": tf.constant([[5, 0, 3], [1, 4, 0]], tf.int64),
        "labels": tf.constant(labels.reshape(2, 3, CLASSES), tf.float32),
    }


@pytest.mark.parametrize("several", [False, True])
def test_the_terms_in_loops(several):
    """One label: a softmax over the classes; several: a logistic regression of each."""
    stage, batch = make_stage(multi_label=several, weight_class=0.3), make_batch(several)
    terms = stage.gradients(batch)[1]
    hidden, last = stage.hash_network.hidden_layers[0], stage.hash_network.hash_layer
    bits = of_class = right = 0.0
    for group in range(2):
        for item in range(3):
            x = batch["images"][group, item].numpy()
            features = np.maximum(x @ hidden.kernel.numpy() + hidden.bias.numpy(), 0)
            scores = features @ last.kernel.numpy() + last.bias.numpy()
            logits = features @ stage.classes.kernel.numpy() + stage.classes.bias.numpy()
            code = stage.codes.numpy()[batch["places"][group, item]]
            label = batch["labels"][group, item].numpy()
            for score, bit in zip(scores, code, strict=True):
                probability = 1 / (1 + np.exp(-score))
                bits -= np.log(probability if bit > 0 else 1 - probability) / 6
                right += ((score > 0) == (bit > 0)) / (6 * BITS)
            each = 1 / (1 + np.exp(-logits))
            if several:
                of_class -= np.log(np.where(label > 0, each, 1 - each)).sum() / 6
            else:
                of_class -= np.log(np.exp(logits[label > 0][0]) / np.exp(logits).sum()) / 6
    np.testing.assert_allclose(terms["bits"], bits, rtol=1e-5)
    np.testing.assert_allclose(terms["class"], of_class, rtol=1e-5)
    np.testing.assert_allclose(terms["bit_accuracy"], right, rtol=1e-5)
    np.testing.assert_allclose(terms["loss"], bits + 0.3 * of_class, rtol=1e-5)


def gradient_of(stage, term):
    """|gradient| of one term by the owner of the variable; None where there is none at all."""
    stage.objectives = lambda terms: {"hash": terms[term]}
    owners = {
        "hidden": stage.hash_network.hidden_layers[0],
        "hash": stage.hash_network.hash_layer,
        "classes": stage.classes,
    }
    gradients, _ = stage.gradients(make_batch())
    variables = stage.variables_by_optimizer()["hash"]
    found = {id(v): g for v, g in zip(variables, gradients["hash"], strict=True)}
    return {
        name: float(tf.reduce_max(tf.abs(found[id(layer.kernel)])))
        for name, layer in owners.items()
    }


def test_which_layer_hears_of_which_term():
    """The features hear of both; the bits' layer of the bits alone, the classes' of the classes."""
    of_bits, of_class = gradient_of(make_stage(), "bits"), gradient_of(make_stage(), "class")
    assert of_bits["hidden"] > 1e-3 and of_class["hidden"] > 1e-3
    assert of_bits["hash"] > 1e-3 and of_class["hash"] == 0
    assert of_bits["classes"] == 0 and of_class["classes"] > 1e-3


def test_everything_is_trained_but_the_codes():
    stage = make_stage()
    before = [v.numpy() for v in stage.variables_by_optimizer()["hash"]]
    codes = stage.codes.numpy()
    stage.train_step(make_batch())
    after = [v.numpy() for v in stage.variables_by_optimizer()["hash"]]
    assert len(before) == 6
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))
    np.testing.assert_array_equal(stage.codes.numpy(), codes)


def test_without_class_outputs_there_is_no_class():
    stage = make_stage(class_outputs=False)
    gradients, terms = stage.gradients(make_batch())
    assert set(terms) == set(cnnh.TERMS) == set(stage.averages) and len(gradients["hash"]) == 4
    assert float(terms["loss"]) == float(terms["bits"])
    np.testing.assert_allclose(terms["bits"], make_stage().gradients(make_batch())[1]["bits"])
    assert set(make_stage().averages) == {*cnnh.TERMS, "class"}


def test_dropout_is_on_in_training():
    """Half of the features are dropped, by the seed of the step: another in the next step."""
    values = [
        float(make_stage(dropout=rate).gradients(make_batch())[1]["bits"]) for rate in (0, 0.5, 0.5)
    ]
    assert values[0] != values[1] == values[2]
    stage = make_stage(dropout=0.5)
    stage.optimizer.iterations.assign(1)
    assert float(stage.gradients(make_batch())[1]["bits"]) != values[1]
