"""Pairs within a group of images, checked by looking at all of them."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.data.pairs import InBatchPairs, check_pairs
from tfhash.errors import UserError

LABELS = np.eye(3, dtype=np.uint8)[np.arange(12) % 3]


def drawn_of(sampler, seed=0):
    """The images and the pairs of a group; a sampler of pairs answers nothing else."""
    sample = sampler.sample(np.random.default_rng(seed))
    assert set(sample) == {"images", "pairs"}
    return sample["images"], sample["pairs"]


@pytest.mark.parametrize("group_size", [2, 3, 5, 12, 20])
def test_every_two_places_are_a_pair_once(group_size):
    """m (m - 1) / 2 of them; more places than images hold some images twice, in pairs too."""
    sampler = InBatchPairs(LABELS, group_size)
    assert sampler.group_size == group_size
    for seed in range(10):
        members, pairs = drawn_of(sampler, seed)
        assert (members.shape, members.dtype) == ((group_size,), np.int64)
        assert (pairs.shape, pairs.dtype) == ((group_size * (group_size - 1) // 2, 2), np.int32)
        expected = {(i, j) for j in range(group_size) for i in range(j)}
        assert {tuple(pair) for pair in pairs.tolist()} == expected
        assert members.min() >= 0 and members.max() < len(LABELS)
        if group_size <= len(LABELS):
            assert len(set(members.tolist())) == group_size


def test_the_pairs_of_four_by_hand():
    _, pairs = drawn_of(InBatchPairs(LABELS, 4))
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]


def test_every_two_images_meet():
    """12 images in groups of 4: after 300 groups each of the 66 pairs has been drawn."""
    met = set()
    for seed in range(300):
        members, pairs = drawn_of(InBatchPairs(LABELS, 4), seed)
        met |= {frozenset(row) for row in members[pairs].tolist()}
    assert len(met) == 12 * 11 // 2


def test_a_group_follows_from_the_generator_alone():
    sampler = InBatchPairs(LABELS, 5)
    (members, _), (same, _), (other, _) = (drawn_of(sampler, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(members, same)
    assert members.tolist() != other.tolist()


def test_a_group_has_at_least_two_places():
    with pytest.raises(UserError, match="`batch_size`: 1 images a group; at least 2 allowed"):
        InBatchPairs(LABELS, 1)


@pytest.mark.parametrize(
    "labels",
    [
        np.ones((4, 1), np.uint8),
        np.eye(4, dtype=np.uint8),
        np.zeros((4, 2), np.uint8),
        np.ones((4, 256), np.uint8),  # 256 shared labels are 0 in a uint8
    ],
    ids=["one class", "one image a class", "no labels", "many shared labels"],
)
def test_pairs_of_one_kind_alone_are_a_mistake_of_the_user(labels):
    with pytest.raises(UserError, match="`labelled_per_class`: the 4 labelled images make pairs"):
        InBatchPairs(labels, 2)


@pytest.mark.parametrize("labels", [[[1, 0], [1, 0], [0, 1]], [[1, 1, 0], [0, 1, 1], [0, 0, 1]]])
def test_two_that_share_a_label_and_two_that_do_not_are_enough(labels):
    members, _ = drawn_of(InBatchPairs(np.array(labels, np.uint8), 3))
    assert sorted(members) == [0, 1, 2]


@pytest.mark.parametrize("labels", [np.ones((4, 1)), np.eye(4), [[1, 1], [1, 0], [1, 1]], [[1, 0]]])
def test_pairs_of_one_kind_are_refused(labels):
    with pytest.raises(UserError, match="`labelled_per_class`: the . .* of one kind alone; two"):
        check_pairs(np.asarray(labels, np.uint8))


def test_pairs_of_both_kinds_pass():
    check_pairs(np.uint8([[1, 1, 0], [0, 1, 0], [0, 0, 1]]))
