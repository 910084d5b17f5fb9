"""The stage of BGDH: what its terms are, and who learns from which."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash import losses
from tfhash.methods import bgdh
from tfhash.methods.bgdh import BGDHConfig, BGDHStage
from tfhash.networks.embedding_network import EmbeddingHashNetwork

BITS, ITEM, SEEN, IMAGES = 4, 6, 5, 9
SIZES = {"embedding_size": 3, "embedding_units": 8, "branch_units": 7}


def make_stage(hidden_units=(5,), **options):
    keras.utils.set_random_seed(0)
    seen = keras.layers.Dense(SEEN, name="seen")
    backbone = keras.Sequential([keras.Input((ITEM,)), seen])
    network = EmbeddingHashNetwork(
        BITS, backbone, hidden_units, options.get("dropout", 0.0), **SIZES
    )
    network.build((None, ITEM))
    config = BGDHConfig(embedding_size=3, **options)
    stage = BGDHStage(network, config, IMAGES, seed=0)
    stage.contexts.assign(np.random.default_rng(1).normal(size=(IMAGES, 3)))
    stage.compile(
        {
            name: (keras.optimizers.SGD(0.1), variables)
            for name, variables in stage.variables_by_optimizer().items()
        }
    )
    return stage


def make_batch(groups=2, labelled=4, unlabelled=3):
    rng = np.random.default_rng(0)
    size = labelled + unlabelled
    pairs = np.stack(np.triu_indices(labelled, 1), axis=1)
    batch = {
        "images": rng.normal(size=(groups, labelled, ITEM)).astype(np.float32),
        "unlabelled": rng.normal(size=(groups, unlabelled, ITEM)).astype(np.float32),
        "pairs": np.stack([pairs.astype(np.int32)] * groups),
        "labels": np.eye(2, dtype=np.float32)[rng.integers(0, 2, (groups, labelled))],
        "contexts": rng.integers(0, IMAGES, (groups, size, 2)),
        "negatives": rng.integers(0, IMAGES, (groups, size, 4)),
    }
    return {name: tf.constant(value) for name, value in batch.items()}


def test_the_vectors_of_contexts_begin_at_zero():
    stage = BGDHStage(make_stage().hash_network, BGDHConfig(embedding_size=3), IMAGES, 0)
    np.testing.assert_array_equal(stage.contexts.numpy(), np.zeros((IMAGES, 3)))


@pytest.mark.parametrize("balanced", [False, True])
def test_terms_are_the_pure_functions_of_the_right_parts(balanced):
    """Pairs of labelled images alone, walks of all, contexts and negatives by their places."""
    weights = {"weight_quantisation": 0.3, "weight_graph": 0.7}
    stage, batch = make_stage(balanced_pairs=balanced, **weights), make_batch()
    terms = stage.forward(batch)
    network, table = stage.hash_network, stage.contexts.numpy()
    scores = np.stack([network.scores(images) for images in batch["images"]])
    x = tf.concat([batch["images"], batch["unlabelled"]], axis=1)
    embeddings = tf.stack([network.features_and_embeddings(items)[1] for items in x])
    near, far = (table[batch[name].numpy()] for name in ("contexts", "negatives"))
    expected = {
        "pairs": bgdh.pair_loss(scores, batch["pairs"], batch["labels"], balanced),
        "quantisation": losses.quantisation_loss(scores, losses.signs(scores)),
        "graph": bgdh.graph_loss(embeddings, near, far),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5)
    total = expected["pairs"] + 0.3 * expected["quantisation"] + 0.7 * expected["graph"]
    np.testing.assert_allclose(terms["loss"], total, rtol=1e-5)
    assert set(terms) == set(bgdh.TERMS) == set(stage.averages)


def reached(stage, term):
    """Which parts of a stage have a gradient of a term."""
    network = stage.hash_network
    parts = {layer.name: layer.trainable_variables for layer in network.layers}
    parts["backbone"] = network.backbone.trainable_variables
    parts["contexts"] = [stage.contexts]
    parts = {name: parts[name] for name in parts if "sequential" not in name}
    variables = [variable.value for of_part in parts.values() for variable in of_part]
    with tf.GradientTape() as tape:
        value = stage.forward(make_batch())[term]
    gradients = iter(tape.gradient(value, variables))
    found = set()
    for name, of_part in parts.items():
        has = [g is not None and np.any(g != 0) for _, g in zip(of_part, gradients, strict=False)]
        assert all(has) or not any(has)
        if all(has):
            found.add(name)
    return found


CODES = {"hidden1", "branch", "hash_layer"}
EMBEDDING = {"embedding_hidden", "embedding"}


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("pairs", CODES | EMBEDDING | {"backbone"}),
        ("quantisation", CODES | EMBEDDING | {"backbone"}),
        ("graph", EMBEDDING | {"contexts"}),
        ("loss", CODES | EMBEDDING | {"backbone", "contexts"}),
    ],
)
def test_who_has_a_gradient_of_which_term(term, parts):
    assert reached(make_stage(), term) == parts


def test_the_graph_trains_the_backbone_where_it_is_told_to():
    with_backbone = EMBEDDING | {"contexts", "backbone"}
    assert reached(make_stage(graph_trains_backbone=True), "graph") == with_backbone


def test_h_minimises_the_loss_and_the_contexts_the_graph():
    stage, batch = make_stage(weight_graph=0.5), make_batch()
    found, _ = stage.gradients(batch)
    variables = [variable.value for variable in stage.hash_network.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        terms = stage.forward(batch)
    for gradient, expected in zip(
        found["hash"], tape.gradient(terms["loss"], variables), strict=True
    ):
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
    (of_contexts,) = found["contexts"]
    np.testing.assert_allclose(
        of_contexts, tape.gradient(terms["graph"], stage.contexts.value), atol=1e-6
    )
    assert np.abs(of_contexts).max() > 0 and set(found) == {"hash", "contexts"}


def test_dropout_draws_anew_in_each_step():
    stage, batch = make_stage(dropout=0.5), make_batch()
    one, same = (stage.forward(batch)["pairs"].numpy() for _ in range(2))
    stage.optimizer.iterations.assign(1)
    assert one == same and stage.forward(batch)["pairs"].numpy() != one
