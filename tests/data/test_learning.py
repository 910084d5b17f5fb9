"""What the stages learn from: whose triplets, and which samplers draw them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfhash.data.learning import LearningData, listed_triplets
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.data.triplets import InBatchTriplets, ListedTriplets, SampledTriplets
from tfhash.errors import UserError

LABELS = np.eye(2, dtype=np.uint8)[np.arange(12) % 2]
PARTS = {"query": (0, 2), "labelled": (2, 8), "validation": (8, 9), "unlabelled": (9, 12)}
SPLITS = RetrievalSplits(
    protocol="by hand",
    seed=0,
    database=np.arange(2, 12),
    fingerprint="0" * 16,
    **{name: np.arange(*ends) for name, ends in PARTS.items()},
)


def make(listed=None):
    inputs = np.arange(12, dtype=np.float32)[:, None, None]
    return LearningData(inputs, LABELS, SPLITS, listed)


def test_triplets_are_made_of_the_labelled_images():
    data = make()
    np.testing.assert_array_equal(data.labelled, np.arange(2, 8))
    in_batch = data.triplets("in_batch", 6, 4)
    assert isinstance(in_batch, InBatchTriplets)
    assert (in_batch.group_size, in_batch.triplets_per_query) == (6, 4)
    np.testing.assert_array_equal(in_batch.labels, LABELS[2:8])
    sampled = data.triplets("sampled", 7, 4)
    assert isinstance(sampled, SampledTriplets) and sampled.triplets == 2  # 7 images hold two
    np.testing.assert_array_equal(sampled.labels, LABELS[2:8])


@pytest.mark.parametrize("kind", ["in_batch", "sampled"])
def test_a_users_own_triplets_come_first(kind):
    """They are positions in all images, and `labelled` is then all of these."""
    listed = np.array([[2, 4, 3], [9, 11, 10]])
    data = make(listed)
    np.testing.assert_array_equal(data.labelled, np.arange(12))
    sampler = data.triplets(kind, 6, 4)
    assert isinstance(sampler, ListedTriplets) and sampler.group_size == 6
    np.testing.assert_array_equal(sampler.listed, listed)


@pytest.mark.parametrize("kind", ["in_batch", "sampled"])
@pytest.mark.parametrize("listed", [None, np.array([[2, 4, 3]])], ids=["labels", "listed"])
def test_a_group_of_two_makes_no_triplet(kind, listed):
    message = "`batch_size`: 2 labelled images a group; at least 3 are allowed"
    with pytest.raises(UserError, match=message):
        make(listed).triplets(kind, 2, 1)
    make(listed).triplets(kind, 3, 1)


def make_set(triplets):
    images = np.zeros((12, 2, 2, 3), np.uint8)
    image_set = ImageSet("toy", images, LABELS, ("a", "b"), tuple(map(str, range(12))))
    return dataclasses.replace(image_set, triplets=triplets)


def test_listed_triplets_leave_the_queries_out(capsys):
    """Images 0 and 1 are queries: of the three, two hold one of them, whatever its role."""
    listed = np.array([[2, 4, 3], [2, 0, 3], [2, 4, 1]])
    assert listed_triplets(make_set(listed), SPLITS).tolist() == [[2, 4, 3]]
    assert capsys.readouterr().out == "2 of 3 triplets hold a query image: left out\n"
    assert listed_triplets(make_set(listed[:1]), SPLITS).tolist() == [[2, 4, 3]]
    assert capsys.readouterr().out == ""


def test_no_triplets_are_no_mistake_and_none_that_is_left_is_one():
    assert listed_triplets(make_set(None), SPLITS) is None
    with pytest.raises(UserError, match="`triplets_csv`: each triplet in it holds an image"):
        listed_triplets(make_set(np.array([[0, 4, 3]])), SPLITS)


def test_triplets_of_what_repeats_a_query_are_left_out(capsys):
    """Image 5 is image 0 again, a query; it has no label, so it stands in no part itself."""
    first = np.where(np.arange(12) == 5, 0, np.arange(12))
    image_set = dataclasses.replace(make_set(np.array([[2, 4, 3], [2, 5, 3]])), first=first)
    assert listed_triplets(image_set, SPLITS).tolist() == [[2, 4, 3]]
    assert capsys.readouterr().out == "1 of 2 triplets hold a query image: left out\n"


def test_listed_triplets_teach_nothing_that_is_held_out(capsys):
    """Image 8 is for validation; 11 stands in no part here, as one of an unseen class does."""
    parts = dataclasses.replace(SPLITS, unlabelled=np.arange(9, 11))
    listed = np.array([[2, 4, 3], [2, 8, 3], [2, 4, 11], [0, 8, 11], [9, 4, 10]])
    assert listed_triplets(make_set(listed), parts).tolist() == [[2, 4, 3], [9, 4, 10]]
    assert capsys.readouterr().out.splitlines() == [
        "1 of 5 triplets hold a query image: left out",
        "1 of 5 triplets hold a validation image: left out",
        "1 of 5 triplets hold an image that is not learned from: left out",
    ]


def test_triplets_of_what_repeats_a_validation_image_are_left_out():
    """Image 10, without a label, is image 8 again."""
    first = np.where(np.arange(12) == 10, 8, np.arange(12))
    image_set = dataclasses.replace(make_set(np.array([[2, 4, 3], [2, 10, 3]])), first=first)
    assert listed_triplets(image_set, SPLITS).tolist() == [[2, 4, 3]]
