"""Anchors and the links to them, against loops over all images."""

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.hashers.linear import anchors


@pytest.fixture
def points():
    return np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)


def test_links_are_kernels_of_the_nearest_anchors(points):
    weights, width = anchors.anchor_graph(points, points[:12], 3)
    expected = np.zeros((60, 12))
    distances = np.array([[np.linalg.norm(x - a) for a in points[:12]] for x in points])
    assert width == pytest.approx(np.sort(distances)[:, 2].mean() ** 2, rel=1e-5)
    for row, distance in zip(expected, distances, strict=True):
        for anchor in sorted(range(12), key=lambda a: distance[a])[:3]:
            row[anchor] = np.exp(-(distance[anchor] ** 2) / width)
        row /= row.sum()
    np.testing.assert_allclose(weights.toarray(), expected, rtol=1e-4, atol=1e-6)


def test_a_graph_in_chunks_is_the_graph_at_once(points, monkeypatch):
    whole, width = anchors.anchor_graph(points, points[:12], 3)
    monkeypatch.setattr(anchors, "_CHUNK", 7)
    in_chunks, same = anchors.anchor_graph(points, points[:12], 3)
    np.testing.assert_allclose(in_chunks.toarray(), whole.toarray(), rtol=1e-5)
    assert same == pytest.approx(width)


def test_anchors_of_clusters_are_their_means():
    """Four clusters far apart: whichever rows k-means begins with, centres are means of rows."""
    features = np.repeat(100 * np.eye(4), 5, axis=0) + np.arange(20)[:, None] / 10
    found = anchors.kmeans_anchors(features, 20, 2, 5, seed=0)
    np.testing.assert_allclose(found[np.lexsort(found.T)], features[np.lexsort(features.T)])
    few = anchors.kmeans_anchors(features, 1, 1, 5, seed=0)
    np.testing.assert_allclose(few, [features.mean(axis=0)])


def test_anchors_follow_from_the_seed_and_the_iterations(points):
    def found(iterations, seed):
        return anchors.kmeans_anchors(points, 8, 2, iterations, seed)

    np.testing.assert_array_equal(found(5, 0), found(5, 0))
    assert not np.allclose(found(5, 0), found(5, 1)) and not np.allclose(found(5, 0), found(1, 0))


@pytest.mark.parametrize(("count", "images"), [(4, 60), (300, 4)])
def test_more_links_than_anchors_are_refused(points, count, images):
    with pytest.raises(UserError, match="`nearest`: 5; at most 4, the number of anchors"):
        anchors.kmeans_anchors(points[:images], count, 5, 5, seed=0)


def test_images_that_are_all_alike_are_refused(points):
    with pytest.raises(UserError, match="`nearest`: 2; each image equals so many anchors"):
        anchors.anchor_graph(np.ones((5, 3)), np.ones((3, 3)), 2)
