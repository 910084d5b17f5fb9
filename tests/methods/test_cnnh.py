"""CNNH: stage 1 against the whole matrix, and what stage 2 learns of its codes."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import tfhash
from tfhash.data.pipeline import TrainingBatches
from tfhash.hashers.linear.similarity import code_loss, similarity_factors
from tfhash.methods import cnnh
from tfhash.methods.cnnh import CNNH, CNNHConfig, CNNHStage, bit_loss, facts_of
from tfhash.networks.hash_layer import HashNetwork

# Shares a label: 0-1 (a), 1-2 (b), 4 is as 1, 3 and 5 have c.
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 1]], np.uint8)
SIMILAR = np.array([[1.0 if (a & b).any() else -1.0 for b in LABELS] for a in LABELS])
BITS, WIDTH, CLASSES = 3, 5, 4


def objective(codes: np.ndarray) -> float:
    """|HH' - kS|^2, which is k^2 times that of the paper."""
    return float(((codes @ codes.T - codes.shape[1] * SIMILAR) ** 2).sum())


def derivatives(codes: np.ndarray, row: int, bit: int) -> tuple[float, float]:
    """First and second one in an entry: the objective is of degree 4 in it, so 5 points say it."""
    at = np.arange(-2.0, 3.0)
    values = []
    for step in at:
        moved = codes.copy()
        moved[row, bit] += step
        values.append(objective(moved))
    *_, second, first, _ = np.polyfit(at, values, 4)
    return first, 2 * second


def brute_force_sweep(codes, rows, columns):
    """Entry by entry with the whole matrix, and the derivatives of the objective itself."""
    downhill = 0
    for row in rows:
        for bit in columns[row]:
            slope, curvature = derivatives(codes, row, bit)
            step = -slope / curvature if curvature > 0 else -2 * np.sign(slope)
            downhill += curvature <= 0
            codes[row, bit] += np.clip(step, -1 - codes[row, bit], 1 - codes[row, bit])
    return downhill


def orders(rng, bits=BITS):
    columns = np.stack([rng.permutation(bits) for _ in LABELS])
    return rng.permutation(len(LABELS)), columns


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_a_sweep_is_that_of_a_loop_over_the_whole_matrix(scale):
    """Two sweeps; near 0 (scale .1) curvatures are negative, where the loop goes downhill."""
    rng = np.random.default_rng(0)
    codes = scale * rng.uniform(-1, 1, (6, BITS))
    expected = codes.copy()
    downhill = 0
    for _ in range(2):
        rows, columns = orders(rng)
        downhill += brute_force_sweep(expected, rows, columns)
        cnnh.sweep(codes, *similarity_factors(LABELS), rows, columns)
    np.testing.assert_allclose(codes, expected, atol=1e-8)
    inside = np.abs(expected) < 1
    assert inside.any() and not inside.all()  # else the order, or the clipping, was not seen
    assert (downhill > 0) == (scale < 1)


def test_the_order_of_images_and_bits_matters():
    """Otherwise the test above could not see that one is swapped."""
    start = np.random.default_rng(0).uniform(-1, 1, (6, BITS))
    rows, columns = np.arange(6), np.tile(np.arange(BITS), (6, 1))
    ends = []
    for order in ((rows, columns), (rows[::-1], columns), (rows, columns[:, ::-1])):
        codes = start.copy()
        cnnh.sweep(codes, *similarity_factors(LABELS), *order)
        ends.append(codes)
    assert np.abs(ends[0] - ends[1]).max() > 0.01 and np.abs(ends[0] - ends[2]).max() > 0.01


def test_sweeps_lower_the_objective():
    factors, weights = similarity_factors(np.eye(4, dtype=np.uint8)[np.arange(80) % 4])
    start = np.random.default_rng(0).uniform(-1, 1, (80, 8))
    losses = [code_loss(start, factors, weights)]
    for sweeps in range(1, 5):
        codes = cnnh.relaxed_codes(start, factors, weights, sweeps, np.random.default_rng(1))
        assert np.abs(codes).max() <= 1
        losses.append(code_loss(codes, factors, weights))
    assert losses[2] < losses[1] < losses[0] and np.all(np.diff(losses) <= 0)


def test_a_sweep_that_raises_the_objective_is_undone(monkeypatch):
    """The first of three makes it worse than the start, the third worse than the second."""
    factors, weights = similarity_factors(LABELS)
    good = np.where(LABELS[:, [2, 2, 2]] == 1, 1.0, -1.0)
    put = [np.ones((6, BITS)), good, 0.5 * good]
    left = iter(put)
    orders_seen = []

    def broken(codes, factors, weights, rows, columns):
        orders_seen.append((rows, columns))
        codes[:] = next(left)

    monkeypatch.setattr(cnnh, "sweep", broken)
    start = 0.1 * good
    bad, best, middle, first = (code_loss(one, factors, weights) for one in (*put, start))
    assert best < middle < first < bad
    codes = cnnh.relaxed_codes(start, factors, weights, 3, np.random.default_rng(1))
    np.testing.assert_array_equal(codes, good)
    # Each sweep has an order of its own, and each image in it one of its bits.
    for parts in zip(*orders_seen, strict=True):
        assert len({order.tobytes() for order in parts}) == 3
    for rows, columns in orders_seen:
        assert sorted(rows) == list(range(6)) and len(np.unique(columns, axis=0)) > 1
        assert (np.sort(columns, axis=1) == range(BITS)).all()


def test_facts_of_codes():
    """Bits 0 and 1 are equal and bit 2 their opposite: rank 1; bit 3 is always 1: imbalance .5."""
    codes = np.array([[1.0, 1, -1, 1], [1, 1, -1, 1], [-1, -1, 1, 1]])
    factors, weights = similarity_factors(np.eye(2, dtype=np.uint8)[[0, 0, 1]])
    facts = facts_of(codes, factors, weights)
    # HH'/k is 1 within the classes and (-3 + 1) / 4 = -.5 between: of 9 pairs 4 are off by .5.
    assert facts["code_loss"] == pytest.approx(4 * 0.25 / 9)
    assert (facts["code_rank"], facts["distinct_codes"]) == (2, 2)
    assert facts["code_imbalance"] == 0.5
    assert facts_of(codes[:, :3], factors, weights)["code_imbalance"] == pytest.approx(1 / 6)


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


DIGITS = load_digits()
IMAGES = np.repeat(np.uint8(DIGITS.images * 15)[..., None], 3, axis=-1)
TINY = {"code_length": 8, "steps": 4, "checkpoint_every": 2, "batch_size": 12, "hidden_units": 8}


def told(hasher: CNNH, *arguments, **options) -> dict:
    """Fits, and answers the facts for metrics.json."""
    facts = {}
    learn = hasher.learn
    hasher.learn = lambda *parts: facts.update(learn(*parts))
    hasher.fit(*arguments, **options)
    return facts


def prepared(hasher: CNNH, *arguments, **options) -> tuple[CNNHStage, TrainingBatches]:
    """The stage and the batches that H would learn from, but it does not learn."""
    found = []

    def keep(stage, data, run, title):
        found.extend([stage, hasher.make_batches(data, 1)])
        return 0.0

    hasher.train_hash = keep
    hasher.fit(*arguments, **options)
    return tuple(found)


@pytest.fixture(scope="module")
def learned() -> tuple[CNNH, dict]:
    """A hasher that has learned the digits, and what it tells of that."""
    hasher = CNNH(code_length=16, steps=80, checkpoint_every=40, hash_optimizer="adamw",
                  hash_learning_rate=5e-3, class_outputs=True)  # fmt: skip
    return hasher, told(hasher, IMAGES[:300], DIGITS.target[:300])


def test_codes_follow_the_classes(learned, map_of_others):
    hasher, _ = learned
    assert map_of_others(hasher) > 0.4
    terms = hasher.history["hash"]
    for term in ("loss", "bits", "class"):
        assert terms[term][1] < terms[term][0]
    assert terms["bit_accuracy"][1] > 0.8


def test_what_it_tells_of_stage_1(learned):
    """Ten classes: about a code a class, all of them apart; 9 or 10 dimensions, balanced bits."""
    hasher, facts = learned
    assert 9 <= facts["code_rank"] <= 16 and 10 <= facts["distinct_codes"] <= 40
    # No code of 16 bits is nearer to S than the best real ones: -1/9 where S has -1, for 90 %.
    assert 0.9 * (8 / 9) ** 2 - 0.02 < facts["code_loss"] < 0.75
    assert facts["code_imbalance"] < 0.2
    assert facts["stage1_seconds"] > 0 and facts["stage2_seconds"] > 0
    assert hasher.variant == "plus" and CNNH().variant is None


def targets(**settings):
    hasher = CNNH(**{"code_length": 6, **settings})
    factors, weights = similarity_factors(np.eye(5, dtype=np.uint8)[np.arange(40) % 5])
    return hasher.codes_to_learn(factors, weights), (factors, weights)


def test_stage_1_is_the_signs_of_the_relaxed_codes_of_a_seed():
    codes, (factors, weights) = targets(seed=3, sweeps=2)
    assert set(np.unique(codes)) == {-1.0, 1.0} and codes.shape == (40, 6)
    rng = np.random.Generator(np.random.PCG64([3, 0]))
    start = rng.uniform(-1, 1, (40, 6))
    relaxed = cnnh.relaxed_codes(start, factors, weights, 2, rng)
    np.testing.assert_array_equal(codes, np.where(relaxed > 0, 1, -1))
    np.testing.assert_array_equal(codes, targets(seed=3, sweeps=2)[0])
    assert (codes != targets(seed=4, sweeps=2)[0]).any()
    assert (codes != targets(seed=3, sweeps=1)[0]).any()


def test_a_batch_holds_the_codes_and_labels_of_its_images():
    """places and labels are those of the images: pixels of image i are i, its class i % 3."""
    images = np.broadcast_to(np.uint8(np.arange(30))[:, None, None, None], (30, 8, 8, 3)).copy()
    labels = np.arange(30) % 3
    labels[:4] = -1  # so that places among the labelled ones are not positions
    hasher = CNNH(**TINY, groups=2, shift=0)
    stage, batches = prepared(hasher, images, labels)
    of_labelled = hasher.codes_to_learn(*similarity_factors(np.eye(3)[labels[4:]]))
    np.testing.assert_array_equal(stage.codes.numpy(), of_labelled)
    for batch in map(batches, range(4)):
        assert batch["images"].shape == (2, 6, 8, 8, 3)
        numbers = batch["images"][..., 0, 0, 0].astype(int)
        np.testing.assert_array_equal(batch["places"], numbers - 4)
        np.testing.assert_array_equal(batch["labels"].argmax(-1), numbers % 3)


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C at the end of the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_it_goes_on_bit_for_bit_with_the_codes_that_it_began_with(tmp_path, monkeypatch):
    """Though stage 1, were it run again elsewhere, came to other codes."""
    settings = TINY | {"dropout": 0.5, "class_outputs": True, "hash_learning_rate": 0.01}
    images, labels = IMAGES[:60], DIGITS.target[:60]
    whole, again = CNNH(**settings), CNNH(**settings)
    facts = told(whole, images, labels, run_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        CNNH(**settings).fit(images, labels, run_dir=tmp_path / "cut", callbacks=[Interrupt()])
    monkeypatch.setattr(CNNH, "codes_to_learn", lambda self, factors, _: np.ones((60, 8)))
    facts_again = told(again, images, labels, run_dir=tmp_path / "cut")
    np.testing.assert_array_equal(again.embed(images), whole.embed(images))
    for name in ("code_loss", "code_rank", "distinct_codes", "code_imbalance"):
        assert facts_again[name] == facts[name]
    assert facts["code_rank"] > 1  # which is what other codes have


def test_several_labels_an_image():
    """For images of one label each a softmax, as soon as one labelled image has several not."""
    one = np.eye(10, dtype=int)[DIGITS.target[:40]]
    several = one.copy()
    several[0, :2] = 1
    assert [
        prepared(CNNH(**TINY), IMAGES[:40], labels)[0].multi_label for labels in (one, several)
    ] == [False, True]


def test_validation_and_unlabelled_images_teach_nothing():
    """Whatever they are, stage 1 comes to the same codes, and batches are the same."""
    images, labels = IMAGES[:40], DIGITS.target[:40]
    (one, of_one), (other, of_other) = (
        prepared(
            CNNH(**TINY),
            images,
            labels,
            unlabelled=IMAGES[100 + 100 * salt : 150 + 100 * salt],
            validation=(IMAGES[60:80], (DIGITS.target[60:80] + salt) % 10),
        )
        for salt in (0, 1)
    )
    np.testing.assert_array_equal(one.codes.numpy(), other.codes.numpy())
    assert not one.multi_label and one.codes.shape == (40, 8)
    for name, array in of_one(0).items():
        np.testing.assert_array_equal(array, of_other(0)[name])


@pytest.mark.parametrize("class_outputs", [False, True])
def test_the_stage_has_what_the_settings_say(class_outputs):
    hasher = CNNH(**TINY, class_outputs=class_outputs, seed=5)
    stage, batches = prepared(hasher, IMAGES[:40], DIGITS.target[:40])
    assert batches.augment is hasher.space.augment and tuple(batches.seed) == (5, 1)
    assert stage.seed == 5 and stage.config is hasher.config
    assert stage.hash_network is hasher.hash_network
    assert (stage.classes is not None) == class_outputs
    if class_outputs:
        first = keras.initializers.GlorotUniform(5)((8, 10))
        np.testing.assert_array_equal(stage.classes.kernel.numpy(), first)
    expected = hasher.codes_to_learn(*similarity_factors(np.eye(10)[DIGITS.target[:40]]))
    np.testing.assert_array_equal(stage.codes.numpy(), expected)


def test_what_it_cannot_learn_from_is_told():
    with pytest.raises(tfhash.UserError, match="share a label; it needs two classes"):
        CNNH(**TINY).fit(IMAGES[:20], np.zeros(20, int))
    with pytest.raises(tfhash.UserError, match="labels: none; CNNH learns from labelled images"):
        CNNH(**TINY).fit(IMAGES[:20])


def test_given_triplets_are_refused(monkeypatch):
    """They say of no pair that it shares no label, and of no image which labels it has."""
    learn = CNNH.learn
    triplets = np.array([[0, 1, 2]])
    monkeypatch.setattr(
        CNNH,
        "learn",
        lambda self, image_set, splits, run: learn(
            self, dataclasses.replace(image_set, triplets=triplets), splits, run
        ),
    )
    with pytest.raises(tfhash.UserError, match="`triplets_csv`: not with `method`=cnnh"):
        CNNH(**TINY).fit(IMAGES[:20], DIGITS.target[:20])


@pytest.mark.parametrize(("field", "value"), [("sweeps", 0), ("weight_class", -1.0)])
def test_bad_values_are_refused(field, value):
    with pytest.raises(tfhash.UserError, match=f"`{field}`: {value}"):
        CNNHConfig(**{field: value})
