"""DPSH: what its stage computes and learns, and codes that follow the classes."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfhash
from tfhash.errors import UserError
from tfhash.hashers.buffered_pairs import balancing_weights
from tfhash.methods.dpsh import TERMS, DPSHConfig, DPSHStage
from tfhash.networks.hash_layer import HashNetwork

COUNT, ITEM, BITS = 6, 5, 3
LABELS = np.float32([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
PLACES = [[4, 1], [0, 5]]
SMALL = {
    "code_length": 8,
    "steps": 6,
    "batch_size": 12,
    "checkpoint_every": 2,
    "groups": 2,
    "shift": 0,
}


def make_stage(*, dropout=0.0, **options) -> DPSHStage:
    keras.utils.set_random_seed(0)
    network = HashNetwork(BITS, None, (), dropout)
    network.build((None, ITEM))
    scores = np.random.default_rng(1).normal(size=(COUNT, BITS))
    stage = DPSHStage(network, DPSHConfig(**options), 0, scores=scores, labels=LABELS)
    variables = network.trainable_variables
    stage.compile({"hash": (keras.optimizers.SGD(0.5), variables)})
    return stage


def make_batch() -> dict[str, tf.Tensor]:
    x = np.random.default_rng(2).normal(size=(2, 2, ITEM))
    places = np.array(PLACES)
    return {
        "images": tf.constant(x, tf.float32),
        "labels": tf.constant(LABELS[places]),
        "places": tf.constant(places, tf.int64),
    }


def by_loops(stage, batch, eta=10.0, weights=(1.0, 1.0)):
    """Terms, and the gradient of the loss in the hash layer's kernel, pair by pair.

    The scores of the batch stand in the buffer before pairs are made: those are theirs, too.
    """
    x = batch["images"].numpy().reshape(-1, ITEM).astype(float)
    kernel, bias = (v.numpy() for v in stage.hash_network.trainable_variables)
    u, places = x @ kernel + bias, np.ravel(PLACES)
    buffer = stage.scores.numpy().astype(float)
    buffer[places] = u
    pairs, quantisation, of_u = 0.0, 0.0, np.zeros_like(u)
    for i, place in enumerate(places):
        for j in range(COUNT):
            theta, similar = u[i] @ buffer[j] / 2, float(LABELS[place] @ LABELS[j] > 0)
            weight = weights[0] if similar else weights[1]
            pairs += weight * (np.logaddexp(0, theta) - similar * theta) / (4 * COUNT)
            share = weight * (1 / (1 + np.exp(-theta)) - similar) / (4 * COUNT)
            of_u[i] += share * buffer[j] / 2
        quantisation += ((np.sign(u[i]) - u[i]) ** 2).sum() / 4
        of_u[i] += eta / COUNT * 2 * (u[i] - np.sign(u[i])) / 4
    balance = np.abs((buffer > 0).mean(0) - 0.5).mean()
    terms = (pairs + eta / COUNT * quantisation, pairs, quantisation, balance)
    return dict(zip(TERMS, terms, strict=True)), x.T @ of_u, buffer


@pytest.mark.parametrize("eta", [0.0, 10.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_terms_and_gradient_by_loops(eta, balanced):
    """The gradient passes through the batch's side alone: else the images in it count twice."""
    stage, batch = make_stage(weight_quantisation=eta, balanced_pairs=balanced), make_batch()
    weights = balancing_weights(LABELS) if balanced else (1.0, 1.0)
    terms, kernel, buffer = by_loops(stage, batch, eta, weights)
    gradients, found = stage.gradients(batch)
    assert set(found) == set(terms)
    for term, value in terms.items():
        assert float(found[term]) == pytest.approx(value, rel=1e-5), term
    np.testing.assert_allclose(gradients["hash"][0], kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stage.scores.numpy(), buffer, rtol=1e-5)


def test_a_step_trains_the_hash_network_and_leaves_other_rows():
    stage = make_stage()
    before, rows = [v.numpy() for v in stage.hash_network.variables], stage.scores.numpy()
    stage.train_step(make_batch())
    for old, new in zip(before, stage.hash_network.variables, strict=True):
        assert np.abs(new.numpy() - old).max() > 1e-4
    changed = (stage.scores.numpy() != rows).all(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(PLACES))


def test_dropout_is_that_of_the_step():
    """Another mask at each step; the same one for the same step."""
    batch = make_batch()
    stage, other, plain = make_stage(dropout=0.5), make_stage(dropout=0.5), make_stage()
    pairs = [float(s.gradients(batch)[1]["pairs"]) for s in (stage, other, plain)]
    assert pairs[0] == pairs[1] != pairs[2]
    stage.optimizer.iterations.assign(1)
    assert float(stage.gradients(batch)[1]["pairs"]) != pairs[0]


class Watch(keras.callbacks.Callback):
    """Keeps the stage, and its buffers before the first step."""

    def on_train_begin(self, logs=None):
        self.stage, self.buffers = self.model, {v.name: v.numpy() for v in self.model.variables}
        self.network = [v.numpy() for v in self.model.hash_network.trainable_variables]


def test_the_buffer_starts_with_the_scores_of_the_labelled_images_alone(digits):
    """Neither of validation nor of unlabelled images: 30 rows, those of the weights of step 0."""
    images, labels = digits
    watch = Watch()
    hasher = tfhash.DPSH(**SMALL | {"steps": 1})
    validation = (images[30:50], labels[30:50])
    hasher.fit(images[:30], labels[:30], unlabelled=images[50:60], validation=validation,
               callbacks=[watch])  # fmt: skip
    for variable, start in zip(hasher.hash_network.trainable_variables, watch.network, strict=True):
        variable.assign(start)
    expected = hasher.hash_network.scores(images[:30].astype(np.float32))
    np.testing.assert_allclose(watch.buffers["scores"], expected, rtol=1e-5, atol=1e-5)
    assert np.abs(watch.buffers["scores"]).max() > 0.1
    np.testing.assert_array_equal(watch.stage.labels, np.eye(10)[labels[:30]])
    assert "validation_map" in hasher.history["hash"]


def test_codes_follow_the_classes(digits, map_of_others):
    images, labels = digits
    hasher = tfhash.DPSH(
        code_length=16,
        steps=400,
        checkpoint_every=200,
        hash_optimizer="adamw",
        hash_learning_rate=1e-3,
        weight_quantisation=1.0,
        balanced_pairs=True,
    )
    hasher.fit(images[:300], labels[:300])
    assert map_of_others(hasher) > 0.3
    first, last = hasher.history["hash"]["loss"]
    assert last < first


def test_an_image_may_have_several_labels(digits):
    """Its class, and whether it is odd: all odd digits are similar then."""
    images, labels = digits
    multi_hot = np.concatenate([np.eye(10)[labels], labels[:, None] % 2], axis=1).astype(int)[:40]
    watch = Watch()
    hasher = tfhash.DPSH(**SMALL, balanced_pairs=True)
    hasher.fit(images[:40], multi_hot, callbacks=[watch])
    similar = multi_hot @ multi_hot.T > 0
    assert watch.stage.pair_weights[0] * similar.mean() == pytest.approx(0.5)
    assert np.isfinite(hasher.history["hash"]["loss"]).all()


@pytest.mark.parametrize("labels", [np.zeros(20, int), np.arange(20)])
def test_pairs_of_one_kind_are_refused(digits, labels):
    with pytest.raises(UserError, match="`labelled_per_class`: the 20 .* of one kind alone"):
        tfhash.DPSH(**SMALL).fit(digits[0][:20], labels)


def test_what_the_hasher_hands_to_stage_and_batches(real_digits):
    """Labelled images stand anywhere in a set; groups share the batch; dropout follows the seed."""
    image_set, parts = real_digits
    hasher = tfhash.DPSH(**SMALL, seed=3)
    hasher.build(16)
    data = hasher.learning_data(image_set, parts)
    stage, batches = hasher.make_stage(data), hasher.make_batches(data, 1)
    batch = batches(0)
    np.testing.assert_array_equal(stage.labels, image_set.labels[parts.labelled])
    assert stage.seed == 3 and batches.seed == (3, 1)
    places = batch["places"]
    assert places.shape == (2, 6)
    np.testing.assert_array_equal(batch["images"], image_set.images[parts.labelled[places]])
    np.testing.assert_array_equal(batch["labels"], image_set.labels[parts.labelled[places]])


def test_only_the_labelled_images_decide_whether_there_are_pairs(real_digits):
    image_set, parts = real_digits
    labels = image_set.labels.copy()
    labels[parts.labelled] = np.eye(10)[0]
    hasher = tfhash.DPSH(**SMALL)
    hasher.build(16)
    with pytest.raises(UserError, match="the 90 labelled images make pairs of one kind"):
        hasher.learning_data(dataclasses.replace(image_set, labels=labels), parts)


def test_triplets_are_refused(real_digits):
    image_set, parts = real_digits
    listed = dataclasses.replace(image_set, triplets=np.array([[0, 1, 2]]))
    hasher = tfhash.DPSH(**SMALL)
    hasher.build(16)
    with pytest.raises(UserError, match="`triplets_csv`: not with `method`=dpsh, which learns"):
        hasher.learning_data(listed, parts)


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="`weight_quantisation`: -1; allowed: at least 0$"):
        DPSHConfig(weight_quantisation=-1)
