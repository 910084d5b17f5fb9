"""BGDH: its losses by hand and in loops, who learns from which, its graph, and what resumes."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import tfhash
from tfhash import losses
from tfhash.data.learning import LearningData
from tfhash.errors import UserError
from tfhash.features import descriptors
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.hashers.linear.anchors import anchor_graph, kmeans_anchors
from tfhash.methods import bgdh
from tfhash.methods.bgdh import BGDH, BGDHConfig, BGDHStage
from tfhash.networks.embedding_network import EmbeddingHashNetwork
from tfhash.storage.place import Storage

BITS, ITEM, SEEN, IMAGES = 4, 6, 5, 9
SIZES = {"embedding_size": 3, "embedding_units": 8, "branch_units": 7}


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def test_pair_loss_by_hand():
    """u = (2, 0), (1, 1), (0, -2): theta of (0, 1) is 1, of (0, 2) 0, of (1, 2) -1.

    The first two share a label: log(1 + e) - 1, log 2 and log(1 + 1/e).
    """
    u = tf.constant([[[2.0, 0], [1, 1], [0, -2]]])
    labels = tf.constant([[[1.0, 0], [1, 0], [0, 1]]])
    pairs = tf.constant([[[0, 1], [0, 2], [1, 2]]])
    expected = [math.log(1 + math.e) - 1, math.log(2), math.log(1 + 1 / math.e)]
    for count in (1, 2, 3):
        found = bgdh.pair_loss(u, pairs[:, :count], labels)
        assert found.numpy() == pytest.approx(np.mean(expected[:count]), rel=1e-6)
    balanced = bgdh.pair_loss(u, pairs, labels, balanced=True).numpy()
    assert balanced == pytest.approx((expected[0] + (expected[1] + expected[2]) / 2) / 2, rel=1e-6)
    one_kind = bgdh.pair_loss(u, pairs[:, 1:], labels, balanced=True).numpy()
    assert one_kind == pytest.approx((expected[1] + expected[2]) / 4, rel=1e-6)


def test_pair_loss_in_loops_and_with_several_labels():
    """Items that share any label are similar; one without a label is so to none."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(2, 5, 3)).astype(np.float32)
    labels = (rng.random((2, 5, 4)) < 0.5).astype(np.float32)
    labels[0, 0] = 0
    pairs = rng.integers(0, 5, (2, 6, 2)).astype(np.int32)
    total = 0.0
    for group in range(2):
        for i, j in pairs[group]:
            similar = any(labels[group, i] * labels[group, j])
            theta = u[group, i].astype(float) @ u[group, j] / 2
            total -= log_sigmoid(theta) if similar else log_sigmoid(-theta)
    assert bgdh.pair_loss(u, pairs, labels).numpy() == pytest.approx(total / 12, rel=1e-5)


def test_pair_loss_of_great_scores_is_finite():
    """theta = 4e4 of a pair that is not similar costs 4e4, of a similar one nothing."""
    u, pairs = tf.fill([1, 2, 2], 200.0), tf.constant([[[0, 1]]])
    unlike, like = tf.eye(2)[tf.newaxis], tf.ones([1, 2, 1])
    assert bgdh.pair_loss(u, pairs, unlike).numpy() == pytest.approx(4e4)
    assert bgdh.pair_loss(u, pairs, like).numpy() == pytest.approx(0)


def test_graph_loss_by_hand():
    """e = (1, 2). A context (1, 0) has w'e = 1, negatives (0, 1) and (-1, 0) have 2 and -1."""
    e, near = tf.constant([[[1.0, 2]]]), tf.constant([[[[1.0, 0]]]])
    far = tf.constant([[[[0.0, 1], [-1, 0]]]])
    expected = -(log_sigmoid(1) + log_sigmoid(-2) + log_sigmoid(1)) / 3
    assert bgdh.graph_loss(e, near, far).numpy() == pytest.approx(expected, rel=1e-6)


def test_graph_loss_in_loops():
    rng = np.random.default_rng(0)
    e, near, far = (rng.normal(size=(2, 3, *more, 4)) for more in ((), (2,), (5,)))
    total, count = 0.0, 0
    for group in range(2):
        for image in range(3):
            triples = [(w, 1) for w in near[group, image]] + [(w, -1) for w in far[group, image]]
            for w, gamma in triples:
                total -= log_sigmoid(gamma * (w @ e[group, image]))
                count += 1
    found = bgdh.graph_loss(*(tf.constant(part, tf.float32) for part in (e, near, far)))
    assert found.numpy() == pytest.approx(total / count, rel=1e-5)
    assert np.isfinite(bgdh.graph_loss(*(tf.fill(part.shape, 1e3) for part in (e, near, far))))


def test_rows_of_a_table_have_a_dense_gradient():
    """Place 2 comes twice, so its row gets both."""
    table, places = tf.Variable(tf.reshape(tf.range(8.0), [4, 2])), tf.constant([[2, 0], [2, 3]])
    with tf.GradientTape() as tape:
        rows = bgdh.rows_of(tf.convert_to_tensor(table), places)
        loss = tf.reduce_sum(rows * tf.constant([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]]))
    np.testing.assert_array_equal(rows, [[[4, 5], [0, 1]], [[4, 5], [6, 7]]])
    gradient = tape.gradient(loss, table)
    assert isinstance(gradient, tf.Tensor)
    np.testing.assert_array_equal(gradient, [[3, 4], [0, 0], [6, 8], [7, 8]])


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


@pytest.fixture(scope="module")
def digits():
    """Real digits 0 to 2 at 8 px: 60 labelled, 60 without a label, 60 to judge by."""
    found = load_digits(n_class=3)
    images = np.repeat(np.uint8(found.images[:180] * 15)[..., None], 3, axis=-1)
    labels = found.target[:180].copy()
    return images, labels


LEARNING = {
    "code_length": 12,
    "image_size": 16,
    "batch_size": 24,
    "unlabelled_batch_size": 24,
    "steps": 60,
    "checkpoint_every": 20,
    "hash_optimizer": "adamw",
    "hash_learning_rate": 1e-3,
    "anchors": 30,
}


def fit(digits, run_dir, callbacks=(), **settings):
    images, labels = digits
    known = np.where(np.arange(120) < 60, labels[:120], -1)
    hasher = tfhash.BGDH(**{**LEARNING, **settings})
    return hasher.fit(images[:120], known, run_dir=run_dir, callbacks=callbacks)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    return fit(digits, tmp_path_factory.mktemp("whole"))


def test_codes_follow_the_classes_and_embeddings_the_graph(digits, whole):
    """Chance is a third; a graph that nothing was learned of costs log 2."""
    images, labels = digits
    codes = whole.encode(images)
    found = tfhash.evaluate(
        codes[120:], codes[60:120], labels[120:], labels[60:120], code_length=12
    )
    assert found.map[None] > 0.6
    history = whole.history["hash"]
    assert history["graph"][-1] < history["graph"][0] < 0.9 * math.log(2)
    assert history["pairs"][-1] < history["pairs"][0]


def test_a_checkpoint_has_the_vectors_of_contexts(tiny_images, tmp_path):
    hasher, data = prepared(tiny_images)
    stage = hasher.compile(hasher.make_stage(data))
    stage.contexts.assign(np.random.default_rng(0).normal(size=stage.contexts.shape))
    stage.save_weights(tmp_path / "kept.weights.h5")
    other = hasher.compile(hasher.make_stage(data))
    other.load_weights(tmp_path / "kept.weights.h5")
    np.testing.assert_array_equal(other.contexts.numpy(), stage.contexts.numpy())
    assert np.abs(other.contexts.numpy()).max() > 1


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (None, {}, "labels: none; BGDH learns from labelled images"),
        (np.zeros(20, int), {}, "pairs of one kind alone; two that share a label and two that"),
        (np.arange(20), {}, "pairs of one kind alone"),
        (np.arange(20) % 2, {"batch_size": 1}, "`batch_size`: 1 images a group; at least 2"),
        (np.arange(20) % 2, {"nearest": 21}, "`nearest`: 21; at most 20, the number of anchors"),
        (np.arange(20) % 2, {"anchors": 2}, "`nearest`: 3; at most 2, the number of anchors"),
    ],
)
def test_where_it_cannot_learn_it_says_so(digits, labels, settings, message):
    with pytest.raises(UserError, match=message) as refused:
        tfhash.BGDH(**{**LEARNING, **settings}).fit(digits[0][:20], labels)
    assert "\n" not in str(refused.value)


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
