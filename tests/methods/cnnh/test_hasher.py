"""CNNH as a Hasher: what it learns, keeps, hands over and refuses."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import tfhash
from tfhash.data.pipeline import TrainingBatches
from tfhash.hashers.linear.similarity import similarity_factors
from tfhash.methods import cnnh
from tfhash.methods.cnnh import CNNH, CNNHConfig, CNNHStage

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
