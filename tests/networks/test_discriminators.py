"""Discriminators of triplets, joint and siamese, and of source and class; images and features."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.networks import discriminators
from tfhash.networks.dropout import drop

WIDTH, FEATURES, TRIPLETS = 4, 9, 6


def build(kind, item, batch_norm=False, dropout=0.0):
    trunk = (
        discriminators.feature_trunk(WIDTH, 0)
        if item == "features"
        else discriminators.image_trunk(item, WIDTH, 0, batch_norm)
    )
    if kind == "joint":
        return discriminators.JointDiscriminator(trunk, dropout, 1)
    return discriminators.SiameseDiscriminator(trunk, 8, WIDTH, dropout, 1)


def make_items(item):
    shape = (FEATURES,) if item == "features" else (item, item, 3)
    return tf.unstack(tf.random.stateless_normal((3, TRIPLETS, *shape), (0, 0)))


every_discriminator = pytest.mark.parametrize(
    ("kind", "item"),
    [(kind, item) for kind in ("joint", "siamese") for item in (16, 32, 64, "features")],
)


@every_discriminator
def test_one_float32_logit_a_triplet(kind, item):
    logits = build(kind, item)(tuple(make_items(item)))
    assert (logits.shape, logits.dtype) == ((TRIPLETS,), tf.float32)
    assert len(np.unique(logits)) == TRIPLETS


@every_discriminator
def test_the_order_of_positive_and_negative_changes_the_logit(kind, item):
    network = build(kind, item)
    query, positive, negative = make_items(item)
    ordered = network((query, positive, negative)).numpy()
    swapped = network((query, negative, positive)).numpy()
    assert (np.abs(ordered - swapped) > 1e-3 * np.abs(ordered).max()).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("kind", "item"), [("joint", 16), ("siamese", 16), ("siamese", "features")]
)
def test_call_is_embed_and_compare(kind, item, batch_norm, training):
    network = build(kind, item, batch_norm)
    items = make_items(item)
    expected = network(tuple(items), training=training)
    embedded = [network.embed(x, training=training) for x in items]
    logits = network.compare(*embedded, training=training)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_embed_is_the_costly_half_of_a_siamese_discriminator():
    """An item becomes 8 numbers; the joint one has to see the three items together."""
    x = make_items(16)[0]
    assert build("siamese", 16).embed(x).shape == (TRIPLETS, 8)
    assert build("joint", 16).embed(x) is x


@pytest.mark.parametrize("kind", ["joint", "siamese"])
def test_batch_normalisation_is_an_option(kind):
    """With it, in training, a triplet's logit depends on the others of its batch."""
    items = make_items(16)
    for batch_norm in (False, True):
        network = build(kind, 16, batch_norm)
        whole = network(tuple(items), training=True).numpy()
        half = network(tuple(x[:3] for x in items), training=True).numpy()
        assert np.allclose(whole[:3], half, rtol=1e-4, atol=1e-6) != batch_norm
        moving = [v for v in network.non_trainable_variables if "moving" in v.path]
        assert bool(moving) == batch_norm


@pytest.mark.parametrize(("kind", "item"), [("joint", 16), ("siamese", "features")])
def test_gradients_flow_to_the_three_items_and_to_all_weights(kind, item):
    network, items = build(kind, item), make_items(item)
    with tf.GradientTape() as tape:
        tape.watch(items)
        score = tf.reduce_sum(network(tuple(items), training=True))
    gradients = tape.gradient(score, [items, [v.value for v in network.trainable_variables]])
    for gradient in (*gradients[0], *gradients[1]):
        assert gradient is not None and np.abs(gradient).max() > 0


def test_another_size_is_a_mistake_of_the_user():
    with pytest.raises(UserError, match="gan_size: 20"):
        discriminators.image_trunk(20, WIDTH, 0, True)


@pytest.mark.parametrize("kind", ["joint", "siamese"])
def test_dropout_follows_from_its_seed_and_is_off_without_one(kind):
    items = make_items("features")
    network = build(kind, "features", dropout=0.5)
    embedded = [network.embed(item, dropout_seed=[1, 2]) for item in items]
    seeds = ([1, 2], [1, 2], [1, 3], None)
    one, same, other, none = (
        network.compare(*embedded, dropout_seed=seed).numpy() for seed in seeds
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any() and (one != none).any()
    plain = build(kind, "features", dropout=0.0)
    plain(tuple(items))
    network(tuple(items))
    plain.set_weights(network.get_weights())
    np.testing.assert_array_equal(network(tuple(items)), plain(tuple(items)))


CLASSES = 5


def build_source_class(item, batch_norm=False, dropout=0.0):
    trunk = (
        discriminators.feature_trunk(WIDTH, 0)
        if item == "features"
        else discriminators.image_trunk(item, WIDTH, 0, batch_norm)
    )
    return discriminators.SourceClassDiscriminator(trunk, CLASSES, dropout, 1)


@pytest.mark.parametrize("item", [16, 32, 64, "features"])
def test_one_source_logit_an_item_and_one_a_class(item):
    source, classes = build_source_class(item)(make_items(item)[0])
    assert (source.shape, source.dtype) == ((TRIPLETS,), tf.float32)
    assert (classes.shape, classes.dtype) == ((TRIPLETS, CLASSES), tf.float32)
    assert len(np.unique(np.c_[source, classes])) == TRIPLETS * (1 + CLASSES)


@pytest.mark.parametrize("head", ["source", "classes"])
def test_source_and_class_share_the_trunk(head):
    """Each of them reaches the items, the whole trunk and its own layer, not the other's."""
    network, items = build_source_class("features"), make_items("features")[0]
    network(items)
    other = {"source": "classes", "classes": "source"}[head]
    variables = [
        [v.value for v in part.trainable_variables]
        for part in (network.trunk, getattr(network, head), getattr(network, other))
    ]
    with tf.GradientTape() as tape:
        tape.watch(items)
        answers = dict(zip(("source", "classes"), network(items, training=True), strict=True))
        score = tf.reduce_sum(answers[head] ** 2)
    of_items, trunk, own, others = tape.gradient(score, [items, *variables])
    for gradient in (of_items, *trunk, *own):
        assert gradient is not None and np.abs(gradient).max() > 0
    assert others == [None, None]


def test_source_and_class_are_of_one_dropped_trunk():
    """A hidden unit that is dropped is dropped for both: then each is linear in what is left."""
    network, items = build_source_class("features", dropout=0.5), make_items("features")[0]
    network(items)
    hidden = drop(network.trunk(items), 0.5, [1, 2])
    assert (hidden.numpy() == 0).any() and (hidden.numpy() != 0).any()
    source, classes = network(items, dropout_seed=[1, 2])
    np.testing.assert_allclose(source, (hidden @ network.source.kernel.value)[:, 0], atol=1e-6)
    np.testing.assert_allclose(classes, hidden @ network.classes.kernel.value, atol=1e-6)
    for seed in ([1, 3], None):
        assert (network(items, dropout_seed=seed)[0] != source).numpy().any()


def test_batch_normalisation_of_source_and_class_is_an_option():
    for batch_norm in (False, True):
        network, items = build_source_class(16, batch_norm), make_items(16)[0]
        whole = network(items, training=True)[0].numpy()
        half = network(items[:3], training=True)[0].numpy()
        assert np.allclose(whole[:3], half, rtol=1e-4, atol=1e-6) != batch_norm
