"""What DSH-GANs' class stream learns of unlabelled images, and what G makes of a trunk."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.methods.dsh_gan.tiny_stage import (
    BITS,
    CLASSES,
    GAN_ITEM,
    GROUPS,
    ITEM,
    LABELLED,
    NOISE,
    TRIPLETS,
    loss_of_class,
    make_batch,
    make_stage_2,
)


def with_weak_views(batch):
    rng = np.random.default_rng(1)
    shape = batch["unlabelled"].shape
    return batch | {"other_unlabelled": tf.constant(rng.normal(size=shape), tf.float32)}


def test_the_class_stream_learns_of_unlabelled_images_by_loops():
    """-log of the probability of the class that the weak view has; as many as are sure of one."""
    batch = with_weak_views(make_batch())
    stage = make_stage_2(unlabelled_confidence=0.6, weight_unlabelled=0.5)
    expected, sure = [], 0
    for group in range(GROUPS):
        pairs = (batch[name][group] for name in ("unlabelled", "other_unlabelled"))
        for item, weak in zip(*pairs, strict=True):
            logits, of_weak = (stage.streams(x[None])[2][0].numpy() for x in (item, weak))
            chances = np.exp(of_weak) / np.exp(of_weak).sum()
            sure += chances.max() >= 0.6
            named = np.eye(CLASSES)[chances.argmax()]
            loss = loss_of_class(logits, named, False)
            expected.append(loss if chances.max() >= 0.6 else 0.0)
    assert 0 < sure < len(expected)
    terms = stage.gradients(batch)[1]
    np.testing.assert_allclose(terms["unlabelled"], np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose(terms["unlabelled_kept"], sure / len(expected), rtol=1e-6)
    plain = make_stage_2().gradients(batch)[1]
    assert terms.keys() - plain.keys() == {"unlabelled", "unlabelled_kept"}
    hash_objective = stage.objectives(terms)["hash"] - make_stage_2().objectives(plain)["hash"]
    np.testing.assert_allclose(hash_objective, 0.5 * terms["unlabelled"], rtol=1e-4)


def test_only_the_cnn_hears_of_unlabelled_images():
    batch = with_weak_views(make_batch())
    of = [
        make_stage_2(unlabelled_confidence=0.6, weight_unlabelled=weight).gradients(batch)[0]
        for weight in (0.0, 1.0)
    ]
    for one, other in zip(*(gradients["generator"] for gradients in of), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(
        np.abs(one - other).max() > 1e-5
        for one, other in zip(*(gradients["hash"] for gradients in of), strict=True)
    )


def test_no_unlabelled_images_are_no_loss():
    batch = with_weak_views(make_batch(unlabelled=0))
    terms = make_stage_2(unlabelled_confidence=0.6).gradients(batch)[1]
    assert (float(terms["unlabelled"]), float(terms["unlabelled_kept"])) == (0, 0)


def test_what_g_makes_of_a_trunk_is_seen_above_the_backbone():
    """G's items are as wide as the backbone answers, 5; so its codes are those of the layer."""
    stage, batch = make_stage_2(), make_batch()
    stage.space.made_features = True
    stage.space._to_hash = lambda synthetic: 2 * synthetic
    terms = stage.gradients(batch)[1]
    C_z = tf.concat([batch["labels"], batch["noise"][:, :LABELLED]], -1)
    made = tf.tanh(stage.generator(tf.reshape(C_z, (-1, CLASSES + NOISE))))
    network = stage.streams.hash_network
    of_made = tf.reshape(network.hash_layer(2 * made), (GROUPS, LABELLED, BITS))
    of_real = tf.reshape(network(tf.reshape(batch["images"], (-1, ITEM))), of_made.shape)
    hinges = [
        max(0, 1 - float(((r[q] - m[n]) ** 2).sum() - ((r[q] - m[q]) ** 2).sum()))
        for r, m in zip(of_real.numpy(), of_made.numpy(), strict=True)
        for q, _, n in TRIPLETS
    ]
    np.testing.assert_allclose(terms["triplet"], np.mean(hinges), rtol=1e-5)
    with tf.GradientTape() as tape:
        code = stage._of_synthetic(tf.reshape(made, (GROUPS, LABELLED, GAN_ITEM)))[0]
    assert all(g is None for g in tape.gradient(code, network.backbone.trainable_variables))
