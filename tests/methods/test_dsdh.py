"""DSDH: each of its steps against exhaustive search, what its stage learns, and its codes."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfhash
from tfhash.errors import UserError
from tfhash.hashers.buffered_pairs import balancing_weights
from tfhash.methods import dsdh
from tfhash.methods.dsdh import TERMS, DSDHConfig, DSDHStage
from tfhash.networks.hash_layer import HashNetwork

# mu, nu and eta of the small problems here.
MU, NU, ETA = 2.0, 0.6, 0.8
COUNT, ITEM, BITS, CLASSES = 8, 5, 4, 3
LABELS = np.float32([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1],
                     [0, 0, 1]])  # fmt: skip
PLACES = [[4, 1], [0, 6]]
SMALL = {"code_length": 8, "steps": 6, "batch_size": 12, "checkpoint_every": 2, "groups": 2}


@pytest.fixture(params=[False, True], ids=["without_bias", "with_bias"])
def tiny(request) -> dict[str, np.ndarray]:
    """Eight images with one or two of three labels, four bits; U and W at random."""
    rng = np.random.default_rng(5)
    return {
        "codes": rng.choice(np.float32([-1, 1]), (COUNT, BITS)),
        "labels": LABELS,
        "classifier": rng.normal(size=(BITS + request.param, CLASSES)).astype(np.float32),
        "scores": rng.normal(size=(COUNT, BITS)).astype(np.float32),
    }


def objective(codes, labels, classifier, scores, image=None) -> float:
    """mu |Y - W'B|² + nu |W|² + eta |B - U|², image by image, as the paper writes it."""
    total = NU * (classifier.astype(float) ** 2).sum()
    for i in range(len(codes)) if image is None else [image]:
        b = np.append(codes[i], np.ones(len(classifier) - len(codes[i])))
        total += MU * ((labels[i] - b @ classifier) ** 2).sum()
        total += ETA * ((codes[i] - scores[i]) ** 2).sum()
    return float(total)


def updated(tiny, cycles) -> np.ndarray:
    given = [tf.constant(tiny[name]) for name in ("codes", "labels", "classifier")]
    drawn = tf.constant(ETA / MU * tiny["scores"])
    return tf.function(dsdh.update_codes)(*given, drawn, cycles).numpy()


def test_each_bit_is_that_of_the_best_of_all_codes_that_agree_in_the_others(tiny):
    """One cycle, image by image: all 2^4 codes, the objective of each, the present other bits."""
    expected = tiny["codes"].copy()
    for image, bit in itertools.product(range(COUNT), range(BITS)):
        others = np.arange(BITS) != bit
        best = None
        for code in itertools.product([-1.0, 1.0], repeat=BITS):
            if not np.array_equal(np.float32(code)[others], expected[image, others]):
                continue
            trial = expected.copy()
            trial[image] = code
            value = objective(**tiny | {"codes": trial}, image=image)
            best = min(best or (value, code), (value, code))
        expected[image] = best[1]
    assert (expected != tiny["codes"]).any()
    np.testing.assert_array_equal(updated(tiny, 1), expected)


def test_bits_that_do_not_meet_get_the_best_of_all_codes(tiny):
    """Rows of W that are orthogonal: each bit's choice is free of the others, so B is the best."""
    tiny["classifier"][:BITS] = 0
    tiny["classifier"][range(CLASSES), range(CLASSES)] = [0.7, -0.9, 1.1]
    found = updated(tiny, 1)
    for image in range(COUNT):
        values = {}
        for code in itertools.product([-1.0, 1.0], repeat=BITS):
            trial = tiny["codes"].copy()
            trial[image] = code
            values[code] = objective(**tiny | {"codes": trial}, image=image)
        np.testing.assert_array_equal(found[image], min(values, key=values.get))


def by_loops(tiny, cycles) -> np.ndarray:
    """Bit after bit, image after image: z = sign(p - B'W'w)."""
    codes, weights = tiny["codes"].astype(float), tiny["classifier"].astype(float)
    weights, bias = weights[:BITS], weights[BITS:].sum(0)
    for _, bit, image in itertools.product(range(cycles), range(BITS), range(COUNT)):
        p = weights[bit] @ (tiny["labels"][image] - bias) + ETA / MU * tiny["scores"][image, bit]
        others = np.arange(BITS) != bit
        codes[image, bit] = np.sign(p - codes[image, others] @ weights[others] @ weights[bit])
    return codes


def test_cycles_by_loops(tiny):
    """W and B are such that the second cycle still changes something."""
    rng = np.random.default_rng(0)
    tiny["classifier"] = rng.normal(size=tiny["classifier"].shape).astype(np.float32)
    first, second, last = (by_loops(tiny, cycles) for cycles in (1, 2, 50))
    assert (first != second).any()
    for cycles, expected in ((1, first), (2, second), (50, last)):
        np.testing.assert_array_equal(updated(tiny, cycles), expected)


def test_the_update_ends_where_no_single_bit_can_improve(tiny):
    codes = updated(tiny, 100)
    best = objective(**tiny | {"codes": codes})
    for image, bit in np.ndindex(COUNT, BITS):
        other = codes.copy()
        other[image, bit] *= -1
        assert objective(**tiny | {"codes": other}) >= best - 1e-6


def test_a_bit_without_a_preference_stays_and_none_is_0(tiny):
    nothing = {name: np.zeros_like(tiny[name]) for name in ("classifier", "scores")}
    codes = updated(tiny | nothing, 3)
    np.testing.assert_array_equal(codes, tiny["codes"])


def test_the_classifier_ends_where_the_gradient_is_zero(tiny):
    """Central differences of the objective in every entry of W."""
    rows = len(tiny["classifier"])
    given = [tf.constant(tiny[name]) for name in ("codes", "labels")]
    found = dsdh.fit_classifier(*given, rows, NU / MU).numpy().astype(float)
    assert found.shape == (rows, CLASSES)
    for index in np.ndindex(found.shape):
        step = np.zeros_like(found)
        step[index] = 1e-3
        one, other = (objective(**tiny | {"classifier": found + d}) for d in (step, -step))
        assert (one - other) / 2e-3 == pytest.approx(0, abs=1e-4)


def test_equal_bits_leave_the_classifier_finite():
    """B'B has rank 1; the ridge alone makes it solvable: both bits share the weight of one."""
    codes = tf.ones([5000, 2])
    found = dsdh.fit_classifier(codes, tf.ones([5000, 1]), 2, 1e-3).numpy()
    np.testing.assert_allclose(found, [[0.5], [0.5]], rtol=1e-5)


def test_the_loss_of_labels_by_hand():
    """b = (1, -1), W = ((1, 2), (3, 0)) tell (-2, 2), with a bias (1, 1) (-1, 3); y = (1, 0)."""
    codes, labels = tf.constant([[1.0, -1.0]]), tf.constant([[1.0, 0.0]])
    for rows, expected in (([[1.0, 2], [3, 0]], 9 + 4), ([[1.0, 2], [3, 0], [1, 1]], 4 + 9)):
        assert dsdh.label_loss(codes, labels, tf.constant(rows)).numpy() == pytest.approx(expected)
    both = dsdh.label_loss(tf.zeros([2, 1]), tf.constant([[1.0], [3.0]]), tf.zeros([1, 1]))
    assert both.numpy() == pytest.approx(5)


def make_stage(*, codes_every=1, bias=False, dropout=0.0, **options) -> DSDHStage:
    keras.utils.set_random_seed(0)
    network = HashNetwork(BITS, None, (), dropout)
    network.build((None, ITEM))
    scores = np.random.default_rng(1).normal(size=(COUNT, BITS)).astype(np.float32)
    scores[0, 0] = 0  # its code is -1, as its bit is 0
    weights = {"weight_labels": MU, "weight_classifier": NU, "weight_quantisation": ETA}
    config = DSDHConfig(**weights | options)
    stage = DSDHStage(
        network, config, 0, codes_every=codes_every, bias=bias, scores=scores, labels=LABELS
    )
    stage.compile({"hash": (keras.optimizers.SGD(0.5), network.trainable_variables)})
    return stage


def make_batch() -> dict[str, tf.Tensor]:
    x = np.random.default_rng(2).normal(size=(2, 2, ITEM))
    places = np.array(PLACES)
    return {
        "images": tf.constant(x, tf.float32),
        "labels": tf.constant(LABELS[places]),
        "places": tf.constant(places, tf.int64),
    }


def expected_of(stage, batch, *, eta=ETA, cycles=10, weights=(1.0, 1.0)):
    """Terms, the gradient of the loss in the hash layer's kernel, B and W, of a step that renews.

    W is fitted to B as it was, B to W and to the scores with those of the batch in them.
    """
    x, places = batch["images"].numpy().reshape(-1, ITEM), np.ravel(PLACES)
    kernel, offset = (v.numpy() for v in stage.hash_network.trainable_variables)
    u, buffer, start = x @ kernel + offset, stage.scores.numpy(), stage.codes.numpy()
    buffer[places] = u
    rows = stage.classifier.shape[0]
    inputs = np.pad(start, [(0, 0), (0, rows - BITS)], constant_values=1).astype(float)
    gram = inputs.T @ inputs + NU / MU * np.eye(rows)
    classifier = np.linalg.solve(gram, inputs.T @ LABELS)
    problem = {"codes": start, "labels": LABELS, "classifier": classifier}
    codes = by_loops(problem | {"scores": eta / ETA * buffer}, cycles)
    told = np.pad(codes, [(0, 0), (0, rows - BITS)], constant_values=1) @ classifier
    theta = u.astype(float) @ buffer.T / 2
    similar = (LABELS[places] @ LABELS.T > 0).astype(float)
    weight = np.where(similar, *weights)
    pairs = (weight * (np.logaddexp(0, theta) - similar * theta)).mean()
    quantisation = ((codes[places] - u) ** 2).sum(1).mean()
    of_u = weight * (1 / (1 + np.exp(-theta)) - similar) @ buffer / 2 / theta.size
    of_u += eta / COUNT * 2 * (u - codes[places]) / len(u)
    terms = {
        "loss": pairs + eta / COUNT * quantisation,
        "pairs": pairs,
        "quantisation": quantisation,
        "labels": ((LABELS - told) ** 2).sum(1).mean(),
        "equal_bits": (codes == np.where(buffer > 0, 1, -1)).mean(),
        "bit_balance": np.abs((buffer > 0).mean(0) - 0.5).mean(),
    }
    return terms, x.T @ of_u, codes, classifier


@pytest.mark.parametrize(
    ("bias", "eta", "cycles", "balanced"),
    [(False, ETA, 10, False), (True, 0.2, 1, True), (True, 0.0, 10, False)],
)
def test_a_step_by_loops(bias, eta, cycles, balanced):
    """Terms, B, W, and the gradient: of pairs through the batch's side, of |b - u|² through u."""
    options = {"weight_quantisation": eta, "code_cycles": cycles, "balanced_pairs": balanced}
    stage, batch = make_stage(bias=bias, **options), make_batch()
    weights = balancing_weights(LABELS) if balanced else (1.0, 1.0)
    terms, kernel, codes, classifier = expected_of(
        stage, batch, eta=eta, cycles=cycles, weights=weights
    )
    gradients, found = stage.gradients(batch)
    assert set(found) == set(terms) == set(TERMS)
    assert 0 < terms["equal_bits"] < 1
    for term, value in terms.items():
        assert float(found[term]) == pytest.approx(value, rel=1e-4), term
    np.testing.assert_allclose(gradients["hash"][0], kernel, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(stage.codes.numpy(), codes)
    np.testing.assert_allclose(stage.classifier.numpy(), classifier, rtol=1e-4, atol=1e-5)


def test_codes_start_as_signs_without_a_0():
    stage = make_stage()
    np.testing.assert_array_equal(
        stage.codes.numpy(), np.where(stage.scores.numpy() > 0, 1.0, -1.0)
    )


def test_w_and_b_are_renewed_every_so_many_steps():
    """At steps 0, 3 and 6; between them they are what they were, while U changes."""
    stage, batch = make_stage(codes_every=3), make_batch()
    held = []
    for _ in range(7):
        stage.train_step(batch)
        held.append([v.numpy() for v in (stage.classifier, stage.codes, stage.scores)])
    same = [np.array_equal(held[i][0], held[i + 1][0]) for i in range(6)]
    assert same == [True, True, False, True, True, False]
    for i in (0, 1, 3, 4):
        np.testing.assert_array_equal(held[i][1], held[i + 1][1])
        assert not np.array_equal(held[i][2], held[i + 1][2])
    assert not np.array_equal(held[0][1], held[6][1])


def test_renewing_never_increases_the_objective():
    """With the network as it is, B and W alternate: ever lower, or the same."""
    stage, batch, values = make_stage(bias=True), make_batch(), []
    for _ in range(4):
        stage.gradients(batch)
        given = {name: getattr(stage, name).numpy() for name in ("codes", "classifier", "scores")}
        values.append(objective(labels=LABELS, **given))
    assert np.all(np.diff(values) <= 1e-5) and values[-1] < values[0]


def test_dropout_is_that_of_the_step():
    """Another mask at each step; the same one for the same step."""
    batch = make_batch()
    stage, other, plain = make_stage(dropout=0.5), make_stage(dropout=0.5), make_stage()
    pairs = [float(s.gradients(batch)[1]["pairs"]) for s in (stage, other, plain)]
    assert pairs[0] == pairs[1] != pairs[2]
    stage.optimizer.iterations.assign(1)
    assert float(stage.gradients(batch)[1]["pairs"]) != pairs[0]


class Watch(keras.callbacks.Callback):
    """Keeps the stage and its first buffers."""

    def on_train_begin(self, logs=None):
        self.stage, self.buffers = self.model, {v.name: v.numpy() for v in self.model.variables}


def test_codes_follow_the_classes(digits, map_of_others):
    """The codes that are kept are soon the network's."""
    images, labels = digits
    hasher = tfhash.DSDH(
        code_length=16,
        steps=400,
        checkpoint_every=200,
        hash_learning_rate=1e-3,
        weight_labels=1.0,
        weight_classifier=1.0,
        weight_quantisation=1.0,
        balanced_pairs=True,
    )
    hasher.fit(images[:300], labels[:300])
    assert map_of_others(hasher) > 0.3
    history = hasher.history["hash"]
    assert history["loss"][1] < history["loss"][0] and history["equal_bits"][1] > 0.8


@pytest.mark.parametrize(
    ("bias", "several", "rows"),
    [("auto", False, 8), ("auto", True, 9), ("on", False, 9), ("off", True, 8)],
)
def test_the_bias_follows_its_setting_and_the_labels(digits, bias, several, rows):
    """Several: the class, and whether it is odd. An epoch of 40 images is four batches of 12."""
    images, labels = digits[0][:40], digits[1][:40]
    multi_hot = np.concatenate([np.eye(10)[labels], labels[:, None] % 2], axis=1).astype(int)
    watch = Watch()
    hasher = tfhash.DSDH(**SMALL | {"steps": 1}, bias=bias)
    hasher.fit(images, multi_hot if several else labels, callbacks=[watch])
    assert watch.stage.classifier.shape == (rows, 11 if several else 10)
    assert watch.stage.codes_every == 4
    np.testing.assert_array_equal(watch.stage.labels, multi_hot if several else multi_hot[:, :10])
    assert np.abs(watch.buffers["scores"]).max() > 0.1
    assert np.isfinite(hasher.history["hash"]["labels"]).all()


def test_what_the_hasher_hands_to_the_stage(real_digits):
    """Labelled images stand anywhere in a set; dropout follows the seed."""
    image_set, parts = real_digits
    hasher = tfhash.DSDH(**SMALL, seed=3)
    hasher.build(16)
    stage = hasher.make_stage(hasher.learning_data(image_set, parts))
    np.testing.assert_array_equal(stage.labels, image_set.labels[parts.labelled])
    assert stage.seed == 3 and stage.codes.shape == stage.scores.shape == (90, 8)


@pytest.mark.parametrize("labels", [np.zeros(20, int), np.arange(20)])
def test_pairs_of_one_kind_are_refused(digits, labels):
    with pytest.raises(UserError, match="`labelled_per_class`: the 20 .* of one kind alone"):
        tfhash.DSDH(**SMALL).fit(digits[0][:20], labels)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("weight_labels", 0, "above 0"),
        ("weight_classifier", 0, "above 0"),
        ("weight_quantisation", -1, "at least 0"),
        ("codes_every", 0, "at least 1"),
        ("code_cycles", 0, "at least 1"),
        ("bias", "yes", "auto, on, off"),
    ],
)
def test_bad_values_are_refused(field, value, allowed):
    with pytest.raises(UserError, match=f"`{field}`: .*{value}.*; allowed: {allowed}$"):
        DSDHConfig(**{field: value})
