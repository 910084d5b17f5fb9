"""DSH-GANs' objectives by loops over single images."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.methods.dsh_gan.tiny_stage import (
    CLASSES,
    GAN_ITEM,
    GROUPS,
    ITEM,
    LABELLED,
    NOISE,
    UNLABELLED,
    TinySpace,
    compiled,
    either_form,
    either_kind_of_labels,
    for_d,
    for_h,
    hits,
    loss_of_class,
    loss_of_source,
    make_batch,
    make_generator,
    make_stage_1,
    make_stage_2,
    spread,
    synthesise,
)
from tfhash.methods.dsh_gan.config import DSHGANConfig
from tfhash.methods.dsh_gan.stage import SemiSupervisedGAN, accuracy, choose
from tfhash.networks.discriminators import SourceClassDiscriminator


def loop_over_stage_1(stage, batch, several, minimax, weight):
    """l_a over all images, real and synthetic; l_c over those that have or were made of a label."""
    of_source, fooling, right_sources = [], [], []
    of_class = {"real": [], "synthetic": []}
    right_classes = {"real": [], "synthetic": []}
    for group in range(GROUPS):
        images = [*batch["images"][group].numpy(), *batch["unlabelled"][group].numpy()]
        nothing = [np.zeros(CLASSES, np.float32)] * batch["unlabelled"].shape[1]
        labels = [*batch["labels"][group].numpy(), *nothing]
        for x, C, z in zip(images, labels, batch["noise"][group].numpy(), strict=True):
            items = {"real": for_d(x), "synthetic": synthesise(stage, C, z)}
            for name, item in items.items():
                source, classes = (answer[0].numpy() for answer in stage.discriminator(item[None]))
                of_source.append(loss_of_source(source, name == "real"))
                right_sources.append((source > 0) == (name == "real"))
                if name == "synthetic":
                    loss = -loss_of_source(source, False) if minimax else loss_of_source(source, 1)
                    fooling.append(loss)
                if C.any():
                    of_class[name].append(loss_of_class(classes, C, several))
                    right_classes[name].append(hits(classes, C, several))
    means = {name: np.mean(losses) for name, losses in of_class.items()}
    return {
        "discriminator": np.mean(of_source) + weight * (means["real"] + means["synthetic"]) / 2,
        "generator": np.mean(fooling) + weight * means["synthetic"],
        "source_accuracy": np.mean(right_sources),
        "class_accuracy": np.mean(right_classes["real"]),
        "class_accuracy_syn": np.mean(right_classes["synthetic"]),
    }


@pytest.mark.parametrize("unlabelled", [UNLABELLED, 0])
@either_form
@either_kind_of_labels
def test_terms_of_stage_1_by_loops(several, minimax, unlabelled):
    stage = make_stage_1(several, minimax=minimax, weight_class=0.7)
    batch = make_batch(several, unlabelled)
    terms = stage.gradients(batch)[1]
    expected = loop_over_stage_1(stage, batch, several, minimax, 0.7)
    assert terms.keys() == expected.keys()
    for term, value in expected.items():
        np.testing.assert_allclose(terms[term], value, rtol=1e-5, err_msg=term)


def make_stage_1_as_trained(seed=0):
    """With batch normalisation in G and D, and with dropout in D."""
    trunk = [keras.layers.Dense(5), keras.layers.BatchNormalization(momentum=0.0)]
    discriminator = SourceClassDiscriminator(trunk, CLASSES, 0.5, 0)
    discriminator(tf.zeros((1, GAN_ITEM)))
    networks = {"generator": make_generator(True), "discriminator": spread(discriminator, 2)}
    stage = SemiSupervisedGAN(networks, TinySpace(), DSHGANConfig(), multi_label=False, seed=seed)
    return compiled(stage)


def test_stage_1_drops_units_of_d_by_seed_and_step():
    batch = make_batch()
    first, same, other = (
        float(make_stage_1_as_trained(seed).gradients(batch)[1]["discriminator"])
        for seed in (0, 0, 1)
    )
    assert first == same != other
    stage = make_stage_1_as_trained()
    stage.optimizer.iterations.assign(1)
    assert float(stage.gradients(batch)[1]["discriminator"]) != first


def test_stage_1_normalises_real_and_synthetic_items_together():
    """Without momentum the statistics of D are those of its last batch: both halves at once."""
    stage, batch = make_stage_1_as_trained(), make_batch()
    before = [np.copy(v) for v in stage.generator.non_trainable_variables]
    stage.gradients(batch)
    real = tf.reshape(tf.concat([batch["images"], batch["unlabelled"]], 1), (-1, ITEM))
    labels = tf.pad(batch["labels"], [[0, 0], [0, UNLABELLED], [0, 0]])
    made_of = tf.reshape(tf.concat([labels, batch["noise"]], -1), (-1, CLASSES + NOISE))
    synthetic = tf.tanh(stage.generator(made_of, training=True))
    dense, normalisation = stage.discriminator.trunk.layers
    hidden = dense(tf.concat([for_d(real), synthetic], 0)).numpy()
    np.testing.assert_allclose(normalisation.moving_mean, hidden.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(normalisation.moving_variance, hidden.var(axis=0), rtol=1e-4)
    after = stage.generator.non_trainable_variables
    assert all((a != b).all() for a, b in zip(before, map(np.copy, after), strict=True))


def loop_over_stage_2(stage, batch, several, minimax, margin):
    """Eq. 3, 4 and 7 triplet by triplet; what replaces a synthetic image brings its own label."""
    replaced = stage._replaced(batch["triplets"]).numpy()
    hinges, of_source, fooling, of_class, right_sources = [], [], [], [], []
    for group in range(GROUPS):
        real = batch["images"][group].numpy()
        C = batch["labels"][group].numpy()
        noise = batch["noise"][group].numpy()
        synthetic = [for_h(synthesise(stage, C[i], noise[i])) for i in range(LABELLED)]
        triplets = batch["triplets"][group].numpy()
        for (q, p, n), (real_p, real_n) in zip(triplets, replaced[group], strict=True):
            positive = (real[p], C[p], True) if real_p else (synthetic[q], C[q], False)
            negative = (real[n], C[n], True) if real_n else (synthetic[n], C[n], False)
            codes, losses_a, losses_c, fools = [], [], [], []
            for image, labels, is_real in ((real[q], C[q], True), positive, negative):
                code, source, classes = (answer[0].numpy() for answer in stage.streams(image[None]))
                codes.append(code)
                losses_a.append(loss_of_source(source, is_real))
                losses_c.append(loss_of_class(classes, labels, several))
                right_sources.append((source > 0) == is_real)
                fooled = -loss_of_source(source, 0) if minimax else loss_of_source(source, 1)
                fools.append(0 if is_real else fooled)
            x, x_positive, x_negative = codes
            gap = ((x - x_negative) ** 2).sum() - ((x - x_positive) ** 2).sum()
            hinges.append(max(0, margin - gap))
            of_source.append(sum(losses_a) / 3)
            of_class.append(sum(losses_c) / 3)
            fooling.append(sum(fools) / 3)
    return {
        "triplet": np.mean(hinges),
        "triplet_active": np.mean(np.array(hinges) > 0),
        "adversary": np.mean(of_source),
        "fooling": np.mean(fooling),
        "source_accuracy": np.mean(right_sources),
        "class": np.mean(of_class),
    }


@pytest.mark.parametrize("real_fraction", [0.0, 0.5])
@either_form
@either_kind_of_labels
def test_terms_of_stage_2_by_loops(several, minimax, real_fraction):
    stage = make_stage_2(several, minimax=minimax, real_fraction=real_fraction, margin=0.3)
    batch = make_batch(several)
    replaced = stage._replaced(batch["triplets"]).numpy()
    both = {(0.0, 0.0)} if real_fraction == 0 else {(0.0, 1.0), (1.0, 0.0)}
    assert both <= {tuple(row) for row in replaced.reshape(-1, 2)}
    terms = stage.gradients(batch)[1]
    expected = loop_over_stage_2(stage, batch, several, minimax, 0.3)
    assert 0 < expected["triplet_active"]
    assert terms.keys() - expected.keys() == {"bit_balance", "class_accuracy"}
    for term, value in expected.items():
        np.testing.assert_allclose(terms[term], value, rtol=1e-5, err_msg=term)


@either_kind_of_labels
def test_class_accuracy_and_bit_balance_are_of_the_real_images(several):
    stage, batch = make_stage_2(several), make_batch(several)
    terms = stage.gradients(batch)[1]
    codes, _, classes = stage.streams(tf.reshape(batch["images"], (-1, ITEM)))
    labels = tf.reshape(batch["labels"], (-1, CLASSES)).numpy()
    pairs = zip(classes.numpy(), labels, strict=True)
    accuracy = np.mean([hits(*pair, several) for pair in pairs])
    np.testing.assert_allclose(terms["class_accuracy"], accuracy, rtol=1e-6)
    balance = np.abs((codes.numpy() > 0.5).mean(axis=0) - 0.5).mean()
    np.testing.assert_allclose(terms["bit_balance"], balance, rtol=1e-6)


def test_right_by_hand():
    """The largest of [1, 3, 2] is its second; of several labels, two of three signs agree."""
    logits = tf.constant([[1.0, 3.0, -2.0]])
    assert accuracy(logits, tf.constant([[0.0, 1.0, 0.0]]), False) == 1
    assert accuracy(logits, tf.constant([[1.0, 0.0, 0.0]]), False) == 0
    np.testing.assert_allclose(accuracy(logits, tf.constant([[0.0, 1.0, 0.0]]), True), 2 / 3)


def test_choose_by_hand():
    real, synthetic = tf.constant([[[1.0, 2.0], [3.0, 4.0]]]), tf.zeros((1, 2, 2))
    use_real = tf.constant([[0.0, 1.0]])
    assert choose(real, synthetic, use_real).numpy().tolist() == [[[0, 0], [3, 4]]]
    assert choose(real[..., 0], synthetic[..., 0], use_real).numpy().tolist() == [[0, 3]]


def test_real_fraction_is_the_share_of_positives_and_of_negatives_that_are_real():
    """Of 4000 draws of each role 30 % within 5 deviations of .0072; each role has its own."""
    many = tf.zeros((2, 2000, 3), tf.int32)
    replaced = make_stage_2(real_fraction=0.3)._replaced(many).numpy()
    assert np.abs(replaced.mean(axis=(0, 1)) - 0.3).max() < 5 * 0.0072
    assert abs(replaced.prod(axis=-1).mean() - 0.09) < 5 * 0.0045
    assert not make_stage_2()._replaced(many).numpy().any()


def test_which_images_are_real_changes_with_the_step():
    stage = make_stage_2(real_fraction=0.5)
    batch, many = make_batch(), tf.zeros((1, 50, 3), tf.int32)
    first = stage._replaced(many).numpy()
    np.testing.assert_array_equal(stage._replaced(many), first)
    stage.train_step(batch)
    assert stage._replaced(many).numpy().tolist() != first.tolist()
