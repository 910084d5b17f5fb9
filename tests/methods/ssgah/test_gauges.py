"""Gauges on features that tell their class, with discriminators and generators made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.data.splits import RetrievalSplits
from tfhash.methods.ssgah.gauges import Gauges

# Images 0, 2, 4, ... are of class 0 at about (-1, 1), the others of class 1 at about (1, -1).
CLASSES = np.arange(40) % 2
LABELS = np.eye(2, dtype=np.uint8)[CLASSES]
NOISE = np.random.default_rng(0).normal(size=(40, 1, 2)) / 10
INPUTS = (np.where(CLASSES, 1, -1)[:, None, None] * [1, -1] + NOISE).astype(np.float32)


def make_splits(validation=range(8, 12), unlabelled=range(20, 40), labelled=range(12, 20)):
    parts = {
        "query": range(0, 4),
        "database": range(4, 40),
        "labelled": labelled,
        "validation": validation,
        "unlabelled": unlabelled,
    }
    arrays = {name: np.asarray(part, np.int64) for name, part in parts.items()}
    return RetrievalSplits(protocol="by hand", seed=0, fingerprint="0" * 16, **arrays)


def truth(query, positive, negative):
    """1 where p is of q's class and n is not, -1 the other way round."""
    q, p, n = (x[:, 0] > 0 for x in (query, positive, negative))
    return (q == p).astype(float) - (q == n)


def measure(splits=None, labels=LABELS, score=truth, synthesise=lambda x: (x, -x)):
    return Gauges(
        INPUTS,
        labels,
        make_splits() if splits is None else splits,
        score=score,
        synthesise=synthesise,
        describe=lambda x: x,
        seed=0,
    )()


def test_a_discriminator_that_knows_and_generators_that_keep_and_change_the_class():
    """G_p gives x itself, G_n gives -x, which is at the other class."""
    assert measure() == {"gauge/order": 1.0, "gauge/class_p": 1.0, "gauge/class_n": 0.0}


def test_a_discriminator_that_has_it_the_wrong_way_round():
    assert measure(score=lambda q, p, n: -truth(q, p, n))["gauge/order"] == 0.0


def test_a_discriminator_that_sees_no_order_has_none_right():
    assert measure(score=lambda q, p, n: np.zeros(len(q)))["gauge/order"] == 0.0


def test_class_gauges_count_a_share():
    """G_p keeps the class of all, G_n that of the samples of class 1: 10 of 20."""
    gauges = measure(synthesise=lambda x: (x, np.abs(x) * [1, -1]))
    assert (gauges["gauge/class_p"], gauges["gauge/class_n"]) == (1.0, 0.5)


def test_the_held_out_queries_are_the_validation_images():
    """Four of them share 512 triplets; the positives and negatives are of both parts."""
    seen = []

    def score(query, positive, negative):
        seen.append((query, positive, negative))
        return np.zeros(len(query))

    measure(score=score)
    places = [
        {int(np.flatnonzero((INPUTS[:, 0] == row).all(axis=1))[0]) for row in rows}
        for rows in seen[0]
    ]
    assert len(seen[0][0]) == 512
    assert places[0] == set(range(8, 12))
    assert places[1] == places[2] == set(range(8, 20))


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"splits": make_splits(validation=())}, {"gauge/class_p", "gauge/class_n"}),
        ({"splits": make_splits(unlabelled=())}, {"gauge/order"}),
        ({"labels": np.hstack([LABELS, np.ones((40, 1), np.uint8)])}, set()),
        ({"splits": make_splits(validation=(), labelled=range(12, 20, 2))}, set()),
    ],
    ids=["no validation", "nothing unlabelled", "several labels an image", "one class"],
)
def test_a_gauge_that_cannot_be_taken_is_left_out(options, left):
    """With a label that all images share, there is neither a negative nor one class an image."""
    assert set(measure(**options)) == left
