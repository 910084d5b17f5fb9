"""SSDH's stage: each term against loops, who hears of which, and two replicas."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.methods.ssdh import SSDHConfig
from tfhash.methods.ssdh import stage as ssdh
from tfhash.networks.hash_layer import HashNetwork

BITS, ITEM, HIDDEN, CLASSES = 4, 5, 6, 3
GROUPS, LABELLED, UNLABELLED = 2, 7, 6
BELOW_1 = np.nextafter(np.float32(1), np.float32(0))


# The graph.


def order_by_loops(points) -> np.ndarray:
    """The others of each point, the nearest first: [B, j, d] -> [B, j, j - 1]."""
    found = []
    for group in np.asarray(points, np.float64):
        for a, of_a in enumerate(group):
            others = [b for b in range(len(group)) if b != a]
            found.append(sorted(others, key=lambda b, a=of_a, g=group: math.dist(a, g[b])))
    return np.reshape(found, (len(points), len(points[0]), -1))


@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_the_nearest_by_loops(offset):
    """Far from 0 the squares of float32 points have no digits left for what divides them."""
    points = np.float32(np.random.default_rng(1).normal(size=(3, 20, 4)) + offset)
    found = ssdh.nearest_first(tf.constant(points))
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found, order_by_loops(points))


def test_an_image_is_not_its_own_neighbour_and_a_copy_of_it_is():
    """Places 1 and 3 hold the same point, in bfloat16 as a mixed-precision network has it."""
    points = tf.constant([[[5.0, 0], [1, 1], [2, 2], [1, 1], [9, 9]]], tf.bfloat16)
    found = ssdh.nearest_first(points).numpy()[0]
    assert found[1, 0] == 3 and found[3, 0] == 1
    for place, others in enumerate(found):
        assert sorted([*others, place]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("others", "shares", "expected"),
    [
        (127, (0.89, 0.97), (113, 123)),  # ranks 114 .. 123 of the authors' code, itself included
        (127, (0.937, 0.97), (118, 123)),
        (100, (0.29, 0.58), (29, 58)),  # .29 * 100 is 28.999999999999996
        (10, (0.0, 1.0), (0, 10)),
        (10, (0.95, 0.96), (9, 10)),
        (10, (0.99, 1.0), (9, 10)),
        (3, (0.89, 0.97), (2, 3)),
        (1, (0.89, 0.97), (0, 1)),
    ],
)
def test_the_far_ranks(others, shares, expected):
    """floor(share * others), and one rank at least, which is there."""
    assert ssdh.far_ranks(others, *shares) == expected


def test_neighbours_and_far_images_by_loops():
    rng = np.random.default_rng(2)
    order = order_by_loops(rng.normal(size=(2, 9, 3)))
    uniform = rng.uniform(size=(2, 9, 5, 2)).astype(np.float32)
    found = ssdh.graph_triplets(tf.constant(order, tf.int32), tf.constant(uniform), 3, (4, 7))
    expected = [
        [[a, order[b, a, int(3 * near)], order[b, a, 4 + int(3 * far)]] for near, far in of_a]
        for b, of_group in enumerate(uniform)
        for a, of_a in enumerate(of_group)
    ]
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found, np.reshape(expected, (2, 45, 3)))


def test_every_neighbour_and_every_far_rank_can_be_drawn_and_no_other():
    order = tf.tile(tf.range(1, 12)[None, None], [1, 1, 1])  # of one point, whose rank r is r + 1
    ends = np.stack([np.linspace(0, BELOW_1, 200, dtype=np.float32)] * 2, axis=-1)[None, None]
    found = ssdh.graph_triplets(order, tf.constant(ends), 4, (6, 9)).numpy()[0]
    assert set(found[:, 0]) == {0}
    assert set(found[:, 1]) == {1, 2, 3, 4} and set(found[:, 2]) == {7, 8, 9}


@pytest.mark.parametrize("count", [0, 1, 3, 123])
def test_what_a_number_below_1_stands_for(count):
    """The largest float32 below 1 stands for the last; of none it is 0."""
    found = [int(ssdh._drawn(tf.constant(uniform), count)) for uniform in (0.0, BELOW_1)]
    assert found == [0, max(count - 1, 0)]


# Pseudo-labels.


def pseudo_by_loops(likelihood, labels, uniform, confidence):
    triplets, kept = [], []
    for b, of_group in enumerate(likelihood):
        for u, of_anchor in enumerate(of_group):
            best = max(range(len(of_anchor)), key=lambda c: of_anchor[c])
            present = [c for c in range(len(of_anchor)) if labels[b][:, c].any()]
            worst = min(present, key=lambda c: of_anchor[c])
            with_best = [i for i, of_i in enumerate(labels[b]) if of_i[best]]
            with_worst = [i for i, of_i in enumerate(labels[b]) if of_i[worst] and not of_i[best]]
            keep = with_best and with_worst and of_anchor[best] > confidence
            chosen = [len(labels[b]) + u, -1, -1]
            if keep:
                chosen[1] = with_best[int(uniform[b, u, 0] * len(with_best))]
                chosen[2] = with_worst[int(uniform[b, u, 1] * len(with_worst))]
            triplets.append(chosen)
            kept.append(float(bool(keep)))
    shape = likelihood.shape[:2]
    return np.reshape(triplets, (*shape, 3)), np.reshape(kept, shape)


@pytest.mark.parametrize("confidence", [0.0, 0.5])
@pytest.mark.parametrize("multi_label", [False, True])
def test_pseudo_labels_by_loops(multi_label, confidence):
    """Class 2 has no image in the first group; with several labels some images have two."""
    rng = np.random.default_rng(3)
    labels = np.eye(5)[rng.integers(5, size=(2, 8))]
    if multi_label:
        labels = np.maximum(labels, np.eye(5)[rng.integers(5, size=(2, 8))])
    labels[0, :, 2] = 0
    likelihood = rng.dirichlet(np.full(5, 0.3), size=(2, 40))
    uniform = rng.uniform(size=(2, 40, 2)).astype(np.float32)
    triplets, kept = ssdh.pseudo_triplets(
        *(tf.constant(array, tf.float32) for array in (likelihood, labels, uniform)), confidence
    )
    expected, keep = pseudo_by_loops(likelihood, labels, uniform, confidence)
    assert 10 < keep.sum() < 75  # of 80
    np.testing.assert_array_equal(kept, keep)
    np.testing.assert_array_equal(triplets.numpy()[keep > 0], expected[keep > 0])
    assert triplets.numpy().min() >= 0 and triplets.dtype == tf.int32


def test_no_pseudo_label_where_the_group_has_one_class_alone():
    likelihood = tf.constant([[[0.9, 0.1], [0.2, 0.8]]])
    labels = tf.constant([[[1.0, 0.0], [1.0, 0.0]]])
    kept = ssdh.pseudo_triplets(likelihood, labels, tf.zeros([1, 2, 2]), 0.0)[1]
    np.testing.assert_array_equal(kept, [[0, 0]])


# The stage.


def make_stage(*, dropout=0.0, multi_label=False, margin_graph=1.5, seed=0, **options):
    """H with one hidden layer on vectors, and the class head; weights of a size that codes differ.

    Terms are far from their limits: some triplets are active, and most distances are below 1.5.
    """
    rng = np.random.default_rng(4)
    network = HashNetwork(BITS, None, (HIDDEN,), dropout)
    network.build((None, ITEM))
    config = SSDHConfig(**{"neighbours": 3, "far_from": 0.5, "far_to": 0.9, **options})
    head = None
    if config.classification:
        head = keras.layers.Dense(CLASSES)
        head.build((None, HIDDEN))
    for layer in (*network.hidden_layers, network.hash_layer, *([head] if head else [])):
        layer.set_weights([rng.normal(0, 0.6, weight.shape) for weight in layer.get_weights()])
    stage = ssdh.SSDHStage(
        network, head, config, margin_graph=margin_graph, multi_label=multi_label, seed=seed
    )
    variables = stage.variables_by_optimizer()["hash"]
    stage.compile({"hash": (keras.optimizers.SGD(0.1), variables)})
    return stage


def make_batch(unlabelled=UNLABELLED, multi_label=False):
    rng = np.random.default_rng(5)
    labels = np.eye(CLASSES)[np.arange(LABELLED) % CLASSES]
    if multi_label:
        labels[0] = 1
    return {
        "images": tf.constant(rng.normal(size=(GROUPS, LABELLED, ITEM)), tf.float32),
        "unlabelled": tf.constant(rng.normal(size=(GROUPS, unlabelled, ITEM)), tf.float32),
        "triplets": tf.constant([[[0, 3, 1], [1, 4, 2], [6, 0, 4], [5, 2, 0]]] * GROUPS, tf.int32),
        "labels": tf.constant([labels, labels[::-1]], tf.float32),
    }


def drawn(stage, salt, *shape):
    """What the stage draws in the first step, seed (seed + 1000 salt, 0)."""
    seed = [stage.seed + 1000 * salt, 0]
    return tf.random.stateless_uniform(shape, seed, alg="philox").numpy()


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def terms_by_loops(stage, batch):
    """Every term of a batch by loops over groups and images, from features on."""
    config, network = stage.config, stage.hash_network
    x = np.concatenate([batch["images"], batch["unlabelled"]], 1)
    flat = network.features(tf.constant(x.reshape(-1, ITEM)))
    dropped = network.dropped(flat, tf.constant([stage.seed, 0])).numpy()
    features = flat.numpy().reshape(*x.shape[:2], HIDDEN)
    h = sigmoid(dropped @ network.hash_layer.get_weights()[0] + network.hash_layer.get_weights()[1])
    h = h.reshape(*x.shape[:2], BITS)
    order = order_by_loops(h if config.graph == "codes" else features)
    total = x.shape[1]
    first, end = (math.floor(share * (total - 1)) for share in (config.far_from, config.far_to))

    def contrastive(b, a, p, n):
        hinge = max(0.0, stage.margin_graph - math.dist(h[b, a], h[b, n]))
        return (math.dist(h[b, a], h[b, p]) ** 2 + hinge**2) / 2

    rank, graph, pseudo, kept, of_class = [], [], [], [], []
    uniform = drawn(stage, 1, GROUPS, total, config.graph_pairs, 2)
    for b in range(GROUPS):
        for q, p, n in batch["triplets"].numpy()[b]:
            gap = math.dist(h[b, q], h[b, n]) ** 2 - math.dist(h[b, q], h[b, p]) ** 2
            rank.append(max(0.0, config.margin - gap) / 2)
        for a in range(total):
            for near, far in uniform[b, a]:
                ranks = int(near * config.neighbours), first + int(far * (end - first))
                graph.append(contrastive(b, a, *(order[b, a, rank] for rank in ranks)))
    terms = {
        "rank": np.mean(rank),
        "rank_active": np.mean(np.array(rank) > 0),
        "graph": np.mean(graph),
        "bit_balance": np.abs((h > 0.5).mean((0, 1)) - 0.5).mean(),
        "loss": np.mean(rank) + config.weight_graph * np.mean(graph),
    }
    if not config.classification:
        return terms
    kernel, bias = stage.heads[0].get_weights()
    labels = batch["labels"].numpy()
    squash = sigmoid if stage.multi_label else softmax
    likelihood = squash(features[:, LABELLED:] @ kernel + bias)
    uniform = drawn(stage, 2, GROUPS, total - LABELLED, 2)
    triplets, keep = pseudo_by_loops(likelihood, labels, uniform, config.pseudo_confidence)
    for b in range(GROUPS):
        of_group = [contrastive(b, *t) for t, k in zip(triplets[b], keep[b], strict=True) if k]
        pseudo.append(np.mean(of_group) if of_group else 0.0)
        kept.append(keep[b].mean() if len(keep[b]) else 0.0)
    of_x = squash(dropped @ kernel + bias).reshape(*x.shape[:2], CLASSES)[:, :LABELLED]
    if stage.multi_label:
        of_class = -(labels * np.log(of_x) + (1 - labels) * np.log(1 - of_x)).sum(-1)
    else:
        of_class = -(labels * np.log(of_x)).sum(-1)
    terms |= {"pseudo": np.mean(pseudo), "pseudo_kept": np.mean(kept), "class": of_class.mean()}
    terms["loss"] += config.weight_pseudo * terms["pseudo"]
    terms["loss"] += config.weight_class * terms["class"]
    return terms


def assert_terms(stage, batch):
    found, expected = stage.gradients(batch)[1], terms_by_loops(stage, batch)
    for term, value in expected.items():
        np.testing.assert_allclose(found[term], value, rtol=1e-4, atol=1e-6, err_msg=term)
    assert set(found) == {*expected, "graph_ramp"} == set(stage.averages)
    return expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"graph": "codes"},
        {"neighbours": 1},
        {"far_from": 0.8},
        {"far_to": 0.6},
        {"graph_pairs": 4},
        {"margin": 0.2},
        {"margin_graph": 0.5},
        {"weight_graph": 0.7, "weight_pseudo": 0.3, "weight_class": 0.2},
        {"pseudo_confidence": 0.6},
        {"multi_label": True, "pseudo_confidence": 0.6},
        {"classification": False},
        {"dropout": 0.5},
        {"dropout": 0.5, "graph": "codes"},
        {"seed": 3},
    ],
    ids=str,
)
def test_every_term_by_loops(options):
    """With dropout, codes and the class loss are of what is left; neighbours and the choice of
    pseudo-labels of whole features. Every option changes a term, so none is passed over."""
    stage, batch = make_stage(**options), make_batch(multi_label="multi_label" in options)
    expected = assert_terms(stage, batch)
    if options:
        plain = terms_by_loops(make_stage(), batch)
        assert any(abs(plain[term] - expected.get(term, 0.0)) > 1e-3 for term in plain)


def test_no_unlabelled_images_leave_pseudo_labels_out():
    expected = assert_terms(make_stage(), make_batch(unlabelled=0))
    assert expected["pseudo"] == expected["pseudo_kept"] == 0 < expected["graph"]


def test_other_steps_and_other_seeds_draw_others():
    batch = make_batch()
    stage = make_stage(weight_graph=0.0, weight_pseudo=0.0)
    first = stage.gradients(batch)[1]
    stage.optimizer.iterations.assign(1)
    second = stage.gradients(batch)[1]
    assert first["graph"] != second["graph"] and first["pseudo"] != second["pseudo"]
    assert first["graph"] != make_stage(seed=1).gradients(batch)[1]["graph"]


WHO = {
    "rank": {"hidden", "hash_layer"},
    "graph": {"hidden", "hash_layer"},
    "pseudo": {"hidden", "hash_layer"},
    "class": {"hidden", "class_head"},
}


@pytest.mark.parametrize("graph", ["features", "codes"])
@pytest.mark.parametrize("term", WHO)
def test_who_hears_of_which_term(term, graph):
    """Of all other variables the gradient is 0 throughout; so is that of a bias that is shared by
    all codes of a distance, but for the sigmoid."""
    stage, batch = make_stage(graph=graph), make_batch()
    layers = {
        "hidden": stage.hash_network.hidden_layers[0],
        "hash_layer": stage.hash_network.hash_layer,
        "class_head": stage.heads[0],
    }
    variables = {name: layer.trainable_variables for name, layer in layers.items()}
    with tf.GradientTape(persistent=True) as tape:
        value = stage.forward(batch)[term]
    hears = set()
    for name, of_layer in variables.items():
        gradients = tape.gradient(value, [v.value for v in of_layer])
        sizes = [0.0 if g is None else float(tf.reduce_max(tf.abs(g))) for g in gradients]
        assert min(sizes) > 1e-5 or max(sizes) == 0, name
        hears |= {name} if max(sizes) else set()
    assert hears == WHO[term]
    assert {id(v) for of in variables.values() for v in of} == {
        id(v) for v in stage.variables_by_optimizer()["hash"]
    }


@pytest.mark.parametrize("layer", ["hidden", "hash_layer", "class_head"])
@pytest.mark.parametrize("graph", ["features", "codes"])
def test_what_is_minimised_is_the_loss(layer, graph):
    """The gradient in one weight of each layer by central differences of `loss`."""
    stage, batch = make_stage(graph=graph, weight_graph=0.8, weight_pseudo=0.6), make_batch()
    index = {"hidden": 0, "hash_layer": 2, "class_head": 4}[layer]
    gradients = stage.gradients(batch)[0]["hash"]
    variable = stage.variables_by_optimizer()["hash"][index]
    start, values = variable.numpy(), []
    for step in (1e-3, -1e-3):
        moved = start.copy()
        moved[1, 2] += step
        variable.assign(moved)
        values.append(float(stage.forward(batch)["loss"]))
    expected = (values[0] - values[1]) / 2e-3
    assert abs(expected) > 5e-3
    np.testing.assert_allclose(gradients[index][1, 2], expected, atol=1e-3)


def test_the_weight_of_the_graph_waits_and_ramps():
    """0 before step 2, then 1/3, 2/3, 1; and the loss is what that leaves."""
    stage, batch = make_stage(graph_from=2, graph_ramp=2, weight_graph=2.0), make_batch()
    for ramp in (0, 0, 1 / 3, 2 / 3, 1, 1):
        terms = stage.gradients(batch)[1]
        np.testing.assert_allclose(terms["graph_ramp"], ramp, rtol=1e-6)
        by_hand = ramp * (2 * terms["graph"] + 0.1 * terms["pseudo"])
        np.testing.assert_allclose(
            terms["loss"], by_hand + terms["rank"] + terms["class"], rtol=1e-6
        )
        stage.optimizer.iterations.assign_add(1)


def test_terms_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        stage = make_stage()
    finally:
        keras.config.set_dtype_policy("float32")
    assert stage.hash_network.hidden_layers[0].compute_dtype == "bfloat16"
    terms, plain = stage.forward(make_batch()), make_stage().forward(make_batch())
    assert {term.dtype for term in terms.values()} == {tf.float32}
    np.testing.assert_allclose(terms["rank"], plain["rank"], rtol=0.05)


# Two replicas.

# Logical devices are to be set before TensorFlow starts.
TWO_REPLICAS = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_stage import make_batch, make_stage
OPTIONS = {"dropout": 0.5, "weight_graph": 0.8, "weight_pseudo": 0.6}
batch = make_batch()
expected = []
for replica in range(2):
    of_one = {name: array[replica : replica + 1] for name, array in batch.items()}
    expected.append(make_stage(seed=10_000 * replica, **OPTIONS).gradients(of_one))
two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with two.scope():
    stage = make_stage(**OPTIONS)
before = [variable.numpy() for variable in stage.variables_by_optimizer()["hash"]]
data = tf.data.Dataset.from_tensor_slices(batch).batch(2)
history = stage.fit(data, verbose=0).history
after = [variable.numpy() for variable in stage.variables_by_optimizer()["hash"]]
for index, (old, new) in enumerate(zip(before, after, strict=True)):
    mean = sum(of_one[0]["hash"][index].numpy() for of_one in expected) / 2
    np.testing.assert_allclose(old - new, 0.1 * mean, rtol=1e-3, atol=1e-6)
for term in set(history):
    mean = sum(float(of_one[1][term]) for of_one in expected) / 2
    np.testing.assert_allclose(history[term][0], mean, rtol=1e-4, err_msg=term)
print("SAME")
"""


def test_two_replicas_take_the_mean_of_what_each_makes_of_its_group(python):
    """Replica r draws by the seed 10,000 r; weights and terms by a step of one device for each."""
    process = subprocess.run(
        [python, "-c", TWO_REPLICAS, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
    )
    assert process.stdout.splitlines()[-1:] == ["SAME"], process.stderr[-2000:]
