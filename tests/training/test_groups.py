"""Groups of items, with shapes and values by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfhash.training.groups import bit_balance, grouped, items_of, share, ungrouped


def test_items_of_puts_unlabelled_items_behind_the_labelled_of_each_group():
    batch = {
        "images": tf.constant([[[1], [2]], [[3], [4]]], tf.uint8),  # [2, 2, 1]
        "unlabelled": tf.constant([[[5]], [[6]]], tf.uint8),
    }
    items = items_of(batch, "images", "unlabelled")
    assert items.dtype == tf.float32
    np.testing.assert_array_equal(items[..., 0], [[1, 2, 5], [3, 4, 6]])


def test_ungrouped_and_back():
    groups = tf.reshape(tf.range(12), [2, 3, 2])
    flat = ungrouped(groups)
    np.testing.assert_array_equal(flat, np.arange(12).reshape(6, 2))
    np.testing.assert_array_equal(grouped(flat, groups), groups)
    np.testing.assert_array_equal(grouped(flat[:, 0], groups), [[0, 2, 4], [6, 8, 10]])


def test_share_counts_what_is_true():
    assert share(tf.constant([True, False, False, True, True])) == np.float32(0.6)


def test_bit_balance_by_hand():
    """Shares of ones are 1, 1/2 and 1/4: .5, 0 and .25 from a half."""
    scores = tf.constant([[1.0, 1, 1], [1, 1, -1], [1, 0, -1], [1, -1, -1]])
    assert bit_balance(scores > 0).numpy() == pytest.approx(0.25)
