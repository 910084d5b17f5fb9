"""mAP of validation images, against labelled images and among themselves."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.evaluation import retrieval
from tfhash.evaluation.validation import AMONG_LABELLED, HELD_OUT, held_out_map, validation_maps

# Of 4 bits: each is nearest to one of the other class. Ranks of what is relevant: 2, 3, 3, 2.
CODES = np.uint8([0b0000, 0b0001, 0b0111, 0b1111])[:, None] << 4
LABELS = np.uint8([[1, 0], [0, 1], [1, 0], [0, 1]])


def test_none_is_ranked_for_itself():
    assert held_out_map(CODES, LABELS, 4) == pytest.approx((1 / 2 + 1 / 3 + 1 / 3 + 1 / 2) / 4)


def test_every_tenth_item_is_left_out_of_a_database():
    """34 items, one query at a time; of class 2 there is item 33 alone, which is no query."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (34, 1)).astype(np.uint8)
    labels = np.eye(3, dtype=np.uint8)[rng.integers(0, 2, 34)]
    labels[33] = [0, 0, 1]
    found = []
    for query in range(33):
        others = np.array([item for item in range(34) if (item - query) % 10])
        one = slice(query, query + 1)
        metrics = retrieval.evaluate(
            codes[one], codes[others], labels[one], labels[others], code_length=8
        )
        found.append(metrics.map[None])
    assert held_out_map(codes, labels, 8) == pytest.approx(np.mean(found))


def test_one_image_a_class_has_no_other_to_be_ranked():
    labels = np.eye(4, dtype=np.uint8)
    assert held_out_map(CODES, labels, 4) is None
    assert validation_maps(CODES, CODES, labels, labels, 4) == {AMONG_LABELLED: 1.0}


def test_labelled_images_are_the_database_of_one_and_validation_images_that_of_the_other():
    """Known by heart, as here, labelled images are found; validation images are not."""
    labelled, of_labelled = np.uint8([[0b0000_0000], [0b0001_0000]]), LABELS[:2]
    found = validation_maps(CODES, labelled, LABELS, of_labelled, 4)
    assert found[HELD_OUT] == held_out_map(CODES, LABELS, 4)
    metrics = retrieval.evaluate(CODES, labelled, LABELS, of_labelled, code_length=4)
    assert found == {AMONG_LABELLED: metrics.map[None], HELD_OUT: found[HELD_OUT]}
    assert found[AMONG_LABELLED] != found[HELD_OUT]
    nobody = np.empty((0, 1), np.uint8), labelled, np.empty((0, 2), np.uint8), of_labelled
    assert validation_maps(*nobody, 4) == {}
