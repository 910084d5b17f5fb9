"""What BGDH prepares: its graph, its batches, its networks."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.data.learning import LearningData
from tfhash.errors import UserError
from tfhash.features import descriptors
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.hashers.linear.anchors import anchor_graph, kmeans_anchors
from tfhash.methods import bgdh
from tfhash.methods.bgdh import BGDH, BGDHConfig
from tfhash.storage.place import Storage

BITS, ITEM, SEEN, IMAGES = 4, 6, 5, 9
SIZES = {"embedding_size": 3, "embedding_units": 8, "branch_units": 7}
SETTINGS = DeepSettings(batch_size=8, unlabelled_batch_size=4, steps=2, checkpoint_every=1)
SMALL = BGDHConfig(anchors=7, nearest=2, kmeans_iterations=1, contexts=3, negatives=2)


def prepared(tiny_images, config=SMALL, settings=SETTINGS, seed=3, change=()):
    """A hasher, and its data; the images at the positions of `change` are black."""
    image_set, parts = tiny_images
    images = image_set.images.copy()
    images[list(change)] = 0
    hasher = BGDH.of(config, settings, code_length=8, image_size=24, seed=seed)
    data = hasher.learning_data(dataclasses.replace(image_set, images=images), parts)
    return hasher, data


@pytest.mark.parametrize("graph_of", ["backbone", "pixels"])
def test_the_graph_is_that_of_labelled_and_unlabelled_images(tiny_images, graph_of):
    """Its rows: 15 labelled ones and then 12 unlabelled ones; by the backbone as it begins."""
    hasher, data = prepared(tiny_images, dataclasses.replace(SMALL, graph_of=graph_of))
    links = hasher.make_sampler(data).walks.links
    of = np.concatenate([np.arange(6, 21), np.arange(24, 36)])
    network = hasher.hash_network.backbone if graph_of == "backbone" else descriptors.pixels(24)
    features = network(tiny_images[0].images[of].astype(np.float32)).numpy()
    anchors = kmeans_anchors(features, 7, 2, 1, 3)
    expected, _ = anchor_graph(features, anchors, 2)
    assert links.shape == (27, 7)
    np.testing.assert_allclose(links.toarray(), expected.toarray(), atol=1e-5)


def test_where_h_works_on_features_the_graph_is_of_their_first_views():
    inputs = np.random.default_rng(0).normal(size=(9, 2, 4)).astype(np.float32)
    parts = SimpleNamespace(labelled=np.array([3, 1]), unlabelled=np.array([8]))
    settings = SimpleNamespace(storage=Storage())
    hasher = SimpleNamespace(config=BGDHConfig(space="features"), settings=settings)
    found = BGDH.graph_features(hasher, LearningData(inputs, np.eye(9), parts))
    np.testing.assert_array_equal(found, inputs[[3, 1, 8], 0])


def test_settings_of_k_means_reach_it(tiny_images, monkeypatch):
    """On 27 images one iteration and more give the same, so the arguments are looked at."""
    given = []

    def remember(features, *rest):
        given.append(rest)
        return kmeans_anchors(features, *rest)

    monkeypatch.setattr(bgdh, "kmeans_anchors", remember)
    hasher, data = prepared(tiny_images)
    hasher.make_sampler(data)
    assert given == [(7, 2, 1, 3)]


def test_queries_and_validation_images_are_in_no_graph(tiny_images):
    """Other pictures of these change nothing; of one unlabelled image, they do."""
    sampler, same, other = (
        make.make_sampler(data).walks.links.toarray()
        for make, data in (
            prepared(tiny_images),
            prepared(tiny_images, change=[*range(6), *range(21, 24)]),
            prepared(tiny_images, change=[30]),
        )
    )
    np.testing.assert_array_equal(sampler, same)
    assert not np.allclose(sampler, other)


def test_settings_reach_the_batch(tiny_images):
    """Two groups of 4 labelled and 2 unlabelled images, 3 walks and 6 negatives each."""
    settings = dataclasses.replace(SETTINGS, groups=2)
    hasher, data = prepared(tiny_images, settings=settings)
    batch = hasher.make_batches(data, 1)(0)
    shapes = {name: batch[name].shape for name in ("contexts", "negatives", "labels", "pairs")}
    assert shapes == {
        "contexts": (2, 6, 3), "negatives": (2, 6, 6), "labels": (2, 4, 3), "pairs": (2, 6, 2)
    }  # fmt: skip
    assert batch["images"].shape[:2] == (2, 4) and batch["unlabelled"].shape[:2] == (2, 2)
    again = hasher.make_batches(data, 1)(0)
    assert all((again[name] == batch[name]).all() for name in batch)


def test_contexts_stand_where_their_images_do(tiny_images):
    """Each context shares an anchor with its image, labelled or not, by its place in the graph."""
    hasher, data = prepared(tiny_images)
    batches = hasher.make_batches(data, 1)
    links = batches.sampler.walks.links.toarray() > 0
    of = np.concatenate([np.arange(6, 21), np.arange(24, 36)])
    originals = tiny_images[0].images[of]

    def first(images, rng):
        return images[:, 0]

    still = dataclasses.replace(batches, augment=first, unlabelled_augment=first)
    for step in range(5):
        batch = still(step)
        items = np.concatenate([batch["images"][0], batch["unlabelled"][0]])
        for item, ends in zip(items, batch["contexts"][0], strict=True):
            (place,) = np.flatnonzero((originals == item).all(axis=(1, 2, 3)))
            assert (links[place] & links[ends]).any(axis=1).all()


def test_settings_reach_network_stage_and_optimizers(tiny_images):
    config = dataclasses.replace(SMALL, **SIZES, context_learning_rate=0.07, hash_learning_rate=0.3)
    hasher, data = prepared(tiny_images, config)
    stage = hasher.compile(hasher.make_stage(data))
    network = hasher.hash_network
    units = (network.embedding.units, network.embedding_hidden.units, network.branch.units)
    assert units == (3, 8, 7) and stage.contexts.shape == (27, 3)
    assert stage.config == config and stage.seed == 3
    rates = stage.learning_rates()
    assert rates["learning_rate/contexts"] == pytest.approx(0.07)
    assert rates["learning_rate/hash"] == pytest.approx(0.3)
    assert isinstance(stage.contexts_optimizer, keras.optimizers.Adam)


def terms_of(hasher, data):
    """The terms of a first batch where contexts have vectors, and the batch."""
    stage = hasher.make_stage(data)
    stage.contexts.assign(np.random.default_rng(0).normal(size=stage.contexts.shape))
    stage.compile({"hash": (keras.optimizers.SGD(0.0), hasher.hash_network.trainable_variables)})
    batch = hasher.make_batches(data, 1)(0)
    return stage.forward({name: tf.constant(value) for name, value in batch.items()}), batch


def test_losses_are_float32_in_bfloat16(tiny_images):
    """And near to those of float32, for bfloat16 has three digits."""
    settings = dataclasses.replace(SETTINGS, mixed_bfloat16=True)
    hasher, data = prepared(tiny_images, settings=settings)
    assert hasher.hash_network.branch.compute_dtype == "bfloat16"
    found, _ = terms_of(hasher, data)
    expected, _ = terms_of(*prepared(tiny_images))
    for name, value in found.items():
        assert value.dtype == tf.float32
        assert value.numpy() == pytest.approx(expected[name].numpy(), rel=0.1)


def test_without_unlabelled_images_the_graph_is_of_the_labelled_ones(tiny_images):
    image_set, parts = tiny_images
    alone = dataclasses.replace(parts, unlabelled=np.arange(0))
    hasher, data = prepared((image_set, alone))
    terms, batch = terms_of(hasher, data)
    assert batch["unlabelled"].shape == (1, 0, 24, 24, 3) and batch["contexts"].max() < 15
    assert np.isfinite(terms["graph"])


def test_a_checkpoint_has_the_vectors_of_contexts(tiny_images, tmp_path):
    hasher, data = prepared(tiny_images)
    stage = hasher.compile(hasher.make_stage(data))
    stage.contexts.assign(np.random.default_rng(0).normal(size=stage.contexts.shape))
    stage.save_weights(tmp_path / "kept.weights.h5")
    other = hasher.compile(hasher.make_stage(data))
    other.load_weights(tmp_path / "kept.weights.h5")
    np.testing.assert_array_equal(other.contexts.numpy(), stage.contexts.numpy())
    assert np.abs(other.contexts.numpy()).max() > 1


def test_given_triplets_are_refused(tiny_images):
    image_set, parts = tiny_images
    with_triplets = dataclasses.replace(image_set, triplets=np.array([[6, 7, 8]]))
    with pytest.raises(UserError, match="`triplets_csv`: not with `method`=bgdh"):
        prepared((with_triplets, parts))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, 0) for name in ("anchors", "nearest", "kmeans_iterations", "contexts")),
        *((name, 0) for name in ("negatives", "embedding_size", "embedding_units", "branch_units")),
        *((name, -1.0) for name in ("weight_graph", "weight_quantisation")),
        ("context_learning_rate", -1.0),
        ("graph_of", "'gist'"),
    ],
)
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"`{field}`: {value}.*; allowed"):
        BGDHConfig(**{field: value.strip("'") if isinstance(value, str) else value})
