"""Walks on a graph of images and anchors: how often they end where, and what a group holds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from tfhash.data.pairs import InBatchPairs
from tfhash.data.walks import AnchorWalks, PairsAndWalks

# Five images, three anchors; the last anchor has no link.
LINKS = np.array([[1, 0, 0], [0.25, 0.75, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 1, 0]])
LABELS = np.eye(2, dtype=np.uint8)[[0, 1, 0]]  # of the first three


def walks():
    return AnchorWalks(scipy.sparse.csr_array(LINKS))


def sampler(group_size=2, unlabelled_size=4, contexts=3, negatives=2, on=None):
    return PairsAndWalks(
        InBatchPairs(LABELS, group_size), on or walks(), unlabelled_size, contexts, negatives
    )


def test_walks_end_as_often_as_the_graph_says():
    """A = Z diag(Z'1)^-1 Z' by hand; 40,000 walks an image, a share within 4 deviations.

    Anchor 0 has links 1, 1/4, 1/2, the sum 7/4; anchor 1 has 3/4, 1/2, 1, 1, the sum 13/4. From
    image 0 by anchor 0: to 0 with 4/7, to 1 with 1/7, to 2 with 2/7. From image 3 by anchor 1: to 1
    with 3/13, to 2 with 2/13, to 3 and 4 with 4/13.
    """
    expected = LINKS[:, :2] @ np.diag([4 / 7, 4 / 13]) @ LINKS[:, :2].T
    np.testing.assert_allclose(expected[0], [4 / 7, 1 / 7, 2 / 7, 0, 0])
    np.testing.assert_allclose(expected[3], [0, 3 / 13, 2 / 13, 4 / 13, 4 / 13])
    ends = walks().contexts(np.arange(5), 40_000, np.random.default_rng(0))
    assert (ends.shape, ends.dtype) == ((5, 40_000), np.int64)
    found = np.stack([np.bincount(row, minlength=5) for row in ends]) / 40_000
    deviation = np.sqrt(expected * (1 - expected) / 40_000)
    assert (np.abs(found - expected) <= 4 * deviation).all()


def test_links_of_weight_zero_are_not_taken():
    links = scipy.sparse.csr_array(np.ones((3, 2)))
    links.data = np.array([0, 1, 1, 0, 1, 0.0])
    ends = AnchorWalks(links).contexts(np.array([0, 1, 2]), 1000, np.random.default_rng(0))
    assert set(ends[0]) == {0} and set(ends[1]) == set(ends[2]) == {1, 2}


def test_a_group_has_its_pairs_and_contexts_of_all_its_images():
    """Image 0 of the graph has contexts 0 to 2 alone, images 3 and 4 have 1 to 4."""
    for seed in range(50):
        group = sampler().sample(np.random.default_rng(seed))
        alone = InBatchPairs(LABELS, 2).sample(np.random.default_rng(seed))
        for name in ("images", "pairs"):
            np.testing.assert_array_equal(group[name], alone[name])
        assert group["unlabelled"].shape == (4,) and set(group["unlabelled"]) <= {0, 1}
        assert group["contexts"].shape == (6, 3) and group["negatives"].shape == (6, 6)
        assert all(group[name].dtype == np.int64 for name in group if name != "pairs")
        members = [*group["images"], *(group["unlabelled"] + 3)]
        for image, ends in zip(members, group["contexts"], strict=True):
            assert (LINKS[image] @ LINKS[ends].T > 0).all()


def test_everything_is_drawn_in_time():
    groups = [sampler().sample(np.random.default_rng(seed)) for seed in range(50)]
    assert set(np.ravel([g["unlabelled"] for g in groups])) == {0, 1}
    for name in ("contexts", "negatives"):
        drawn = np.concatenate([g[name] for g in groups])
        assert set(drawn.ravel()) == set(range(5))
    # Negatives are any image with 1/5: 1,800 draws of deviation 17.
    assert np.abs(np.bincount(np.ravel([g["negatives"] for g in groups])) - 360).max() < 80


def test_without_unlabelled_images_it_walks_among_labelled_ones():
    labelled = AnchorWalks(scipy.sparse.csr_array(LINKS[:3]))
    group = sampler(on=labelled).sample(np.random.default_rng(0))
    assert group["unlabelled"].shape == (0,) and group["contexts"].shape == (2, 3)
    assert group["contexts"].max() < 3 and group["negatives"].max() < 3


def test_a_group_follows_from_the_generator_alone():
    groups = [sampler().sample(np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert sampler().group_size == 2
    for name, values in groups[0].items():
        np.testing.assert_array_equal(values, groups[1][name])
    assert any((groups[0][name] != groups[2][name]).any() for name in groups[0])


@pytest.mark.parametrize("unlabelled_size", [0, 1])
def test_as_many_unlabelled_images_as_are_asked_for(unlabelled_size):
    group = sampler(unlabelled_size=unlabelled_size).sample(np.random.default_rng(0))
    assert len(group["unlabelled"]) == unlabelled_size
    assert len(group["contexts"]) == 2 + unlabelled_size
