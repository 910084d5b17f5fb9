"""BGDH learns digits, and goes on from its checkpoints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

import tfhash
from tfhash.errors import UserError


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
