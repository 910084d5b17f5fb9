"""Which network each of DSH-GANs' objectives reaches, and which way it goes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.methods.dsh_gan.tiny_stage import (
    CLASSES,
    LABELLED,
    NOISE,
    UNLABELLED,
    either_form,
    either_kind_of_labels,
    for_h,
    make_batch,
    make_generator,
    make_stage_1,
    make_stage_2,
)
from tests.methods.numeric import numeric_gradient


def assert_descends(stage, batch, optimizer, objective):
    """Its gradient is that of the objective, in one entry of each of its variables."""
    gradients, _ = stage.gradients(batch)
    of_optimizer = zip(stage.variables_by_optimizer()[optimizer], gradients[optimizer], strict=True)
    for variable, gradient in of_optimizer:
        entry = (1,) * len(variable.shape) if variable.shape[-1] > 1 else (0,) * len(variable.shape)
        expected = numeric_gradient(stage, batch, objective, variable, entry)
        np.testing.assert_allclose(gradient[entry], expected, atol=5e-4, err_msg=variable.path)
        assert np.abs(gradient).max() > 1e-3, variable.path


@either_form
@either_kind_of_labels
@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_each_player_of_stage_1_descends_its_own_objective(player, several, minimax):
    stage = make_stage_1(several, minimax=minimax, weight_class=0.7)
    assert_descends(stage, make_batch(several), player, lambda terms: terms[player])


@either_kind_of_labels
def test_g_minimises_l_c_minus_l_a(several):
    """In the minimax form: l_a of all images is D's mean, of which those of G are one half."""
    stage = make_stage_1(several, minimax=True, weight_class=0.0)
    batch = make_batch(several)
    assert_descends(stage, batch, "generator", lambda terms: -2 * terms["discriminator"])


@either_kind_of_labels
@pytest.mark.parametrize("real_fraction", [0.0, 0.5])
def test_the_cnn_descends_eq_8(several, real_fraction):
    """triplet + l_a + l_c, here with weights: from the real and from the synthetic images."""
    stage = make_stage_2(
        several, real_fraction=real_fraction, weight_adversary=0.7, weight_class=0.4
    )
    assert_descends(
        stage,
        make_batch(several),
        "hash",
        lambda terms: terms["triplet"] + 0.7 * terms["adversary"] + 0.4 * terms["class"],
    )


@either_form
@either_kind_of_labels
def test_the_generator_descends_eq_9(several, minimax):
    """triplet - l_a + l_c with minimax; otherwise -log P(real) stands in the place of -l_a."""
    stage = make_stage_2(several, minimax=minimax, weight_adversary=0.7, weight_class=0.4)

    def objective(terms):
        adversary = -terms["adversary"] if minimax else terms["fooling"]
        return terms["triplet"] + 0.7 * adversary + 0.4 * terms["class"]

    assert_descends(stage, make_batch(several), "generator", objective)


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


@pytest.mark.parametrize(
    ("options", "trained", "terms"),
    [
        ({}, {"hash_network", "source", "classes", "generator"}, {"adversary", "class"}),
        ({"classification": False}, {"hash_network", "source", "generator"}, {"adversary"}),
        ({"train_generator": False}, {"hash_network", "source", "classes"}, {"adversary", "class"}),
        ({"real_fraction": 1.0}, {"hash_network", "classes"}, {"class"}),
        ({"real_fraction": 1.0, "classification": False}, {"hash_network"}, set()),
    ],
    ids=["dsh_gan", "without_classes", "frozen_generator", "real", "triplets_alone"],
)
def test_each_variant_trains_its_networks_and_no_other(options, trained, terms):
    stage = make_stage_2(**options)
    parts = {
        "hash_network": stage.streams.hash_network,
        "source": stage.streams.source,
        "classes": stage.streams.classes,
    }
    if hasattr(stage, "generator"):
        parts["generator"] = stage.generator
    before = {name: flat(part.trainable_variables) for name, part in parts.items()}
    found = stage.gradients(make_batch())[1]
    assert {"adversary", "class"} & set(found) == terms
    stage.train_step(make_batch())
    moved = {
        name
        for name, part in parts.items()
        if (flat(part.trainable_variables) != before[name]).any()
    }
    assert moved == trained


def test_stage_1_gives_each_optimizer_one_network():
    stage = make_stage_1()
    variables = stage.variables_by_optimizer()
    assert list(variables) == ["discriminator", "generator"]  # D first: it counts the steps
    for name, of_optimizer in variables.items():
        network = getattr(stage, name)
        assert [id(v) for v in of_optimizer] == [id(v) for v in network.trainable_variables]


def test_without_classification_eq_8_and_9_lose_l_c_alone():
    batch = make_batch()
    stage = make_stage_2(classification=False, weight_adversary=0.7)
    for optimizer, adversary in (("hash", "adversary"), ("generator", "fooling")):
        assert_descends(
            stage, batch, optimizer, lambda terms, a=adversary: terms["triplet"] + 0.7 * terms[a]
        )


def test_real_triplets_alone_have_no_adversary():
    stage = make_stage_2(real_fraction=1.0, weight_class=0.4)
    batch = make_batch()
    gradients, _ = stage.gradients(batch)
    assert set(gradients) == {"hash"}
    assert_descends(stage, batch, "hash", lambda terms: terms["triplet"] + 0.4 * terms["class"])


def test_g_learns_through_synthetic_images_alone():
    """Where each of them is replaced by a real one G has no gradient, and the CNN still has."""
    stage, batch = make_stage_2(real_fraction=1 - 1e-7), make_batch()
    assert stage._replaced(batch["triplets"]).numpy().all()
    gradients, terms = stage.gradients(batch)
    assert all(not gradient.numpy().any() for gradient in gradients["generator"])
    assert all(gradient.numpy().any() for gradient in gradients["hash"])
    assert terms["fooling"] == 0


@pytest.mark.parametrize("train_generator", [True, False])
def test_a_generator_that_does_not_train_stays_as_it_is_to_the_last_statistic(train_generator):
    generator = make_generator(batch_norm=True)
    before = generator.get_weights()
    stage = make_stage_2(generator=generator, train_generator=train_generator)
    stage.train_step(make_batch())
    same = [(a == b).all() for a, b in zip(before, generator.get_weights(), strict=True)]
    assert not any(same) if train_generator else all(same)


@either_kind_of_labels
def test_an_unlabelled_image_has_no_say_in_classes(several):
    """D's class layer has the same gradient whatever the unlabelled images show; its source layer
    has not."""
    stage, batch = make_stage_1(several), make_batch(several)
    other = batch | {"unlabelled": batch["unlabelled"] + 1.0}
    variables = [id(v) for v in stage.discriminator.trainable_variables]
    first, second = (stage.gradients(b)[0]["discriminator"] for b in (batch, other))
    for head in ("classes", "source"):
        index = variables.index(id(getattr(stage.discriminator, head).kernel))
        difference = np.abs(first[index] - second[index]).max()
        assert difference == 0 if head == "classes" else difference > 1e-3


def small_step(stage, batch, optimizer, rate=0.05):
    """One step of plain gradient descent of one player alone."""
    gradients, _ = stage.gradients(batch)
    of_optimizer = stage.variables_by_optimizer()[optimizer]
    for variable, gradient in zip(of_optimizer, gradients[optimizer], strict=True):
        variable.assign(variable - rate * gradient)


def mean_source_of_stage_1(stage, batch):
    labels = tf.pad(batch["labels"], [[0, 0], [0, UNLABELLED], [0, 0]])
    made_of = tf.reshape(tf.concat([labels, batch["noise"]], -1), (-1, CLASSES + NOISE))
    source, _ = stage.discriminator(tf.tanh(stage.generator(made_of)))
    return float(tf.reduce_mean(source))


@either_form
def test_in_stage_1_g_makes_d_take_its_images_for_real_and_d_does_not_let_it(minimax):
    batch = make_batch()
    for player, sign in (("generator", 1), ("discriminator", -1)):
        stage = make_stage_1(minimax=minimax, weight_class=0.0)
        before = mean_source_of_stage_1(stage, batch)
        small_step(stage, batch, player)
        assert sign * (mean_source_of_stage_1(stage, batch) - before) > 1e-3, player


def mean_source_of_stage_2(stage, batch):
    noise = batch["noise"][:, :LABELLED]
    made_of = tf.reshape(tf.concat([batch["labels"], noise], -1), (-1, CLASSES + NOISE))
    synthetic = for_h(tf.tanh(stage.generator(made_of)))
    return float(tf.reduce_mean(stage.streams(synthetic)[1]))


@either_form
def test_in_stage_2_g_makes_the_cnn_take_its_images_for_real_and_the_cnn_does_not_let_it(minimax):
    """What l_a adds to a step: that with a weight of 100 for it, where the others hardly count."""
    batch = make_batch()
    for player, sign in (("generator", 1), ("hash", -1)):
        stage = make_stage_2(minimax=minimax, weight_class=0.0, weight_adversary=100.0)
        before = mean_source_of_stage_2(stage, batch)
        small_step(stage, batch, player, rate=5e-4)
        assert sign * (mean_source_of_stage_2(stage, batch) - before) > 1e-3, player


def test_x_plus_is_made_of_the_noise_of_x_and_x_minus_of_that_of_the_other_image():
    """So each labelled image has one synthetic twin a step: other noise for image 4, which is a
    positive alone, moves no term; for image 2, a negative alone, it does."""
    plain = make_stage_2().gradients(make_batch())[1]
    for image, moves in ((4, False), (2, True)):
        batch = make_batch()
        bump = np.zeros(batch["noise"].shape, np.float32)
        bump[:, image] = 1.0
        terms = make_stage_2().gradients(batch | {"noise": batch["noise"] + bump})[1]
        assert (abs(float(terms["adversary"] - plain["adversary"])) > 1e-4) == moves, image
