"""Protocols by classes: counts worked out by hand."""

import numpy as np
import pytest

from tests.data.tiny_splits import counts, image_set, make, single_label
from tfhash.data import protocols
from tfhash.errors import UserError


def test_per_class_counts():
    """3 classes of 6 and 2 without a label. A class gives 1 query, 5 to the database, of which 4
    are picked: max(1, round(.1 * 4)) = 1 for validation, 3 labelled; 1 + 2/3 a class is left."""
    images = single_label(3, 6, without_label=2)
    split = make(images)
    assert counts(split) == {
        "query": 3, "database": 15, "labelled": 9, "validation": 3, "unlabelled": 5
    }  # fmt: skip
    for part, per_class in {"query": 1, "database": 5, "labelled": 3, "validation": 1}.items():
        np.testing.assert_array_equal(images.labels[getattr(split, part)].sum(0), [per_class] * 3)
    learned = np.concatenate([split.labelled, split.validation, split.unlabelled])
    np.testing.assert_array_equal(np.sort(np.append(learned, split.query)), np.arange(20))
    assert {18, 19} <= set(split.unlabelled)
    assert set(split.labelled) | set(split.validation) < set(split.database)
    assert split.protocol == "per_class(queries=1, labelled=4, validation=0.1)"


def test_per_class_on_the_sizes_of_cifar10():
    """DESIGN: 100 queries a class, all others the database, 500 labelled a class: 60,000 - 1,000 =
    59,000; 500 * .1 = 50 a class validate; 59,000 - 5,000 = 54,000 are unlabelled."""
    split = make(single_label(10, 6000), queries_per_class=100, labelled_per_class=500)
    assert counts(split) == {
        "query": 1000, "database": 59_000, "labelled": 4500, "validation": 500,
        "unlabelled": 54_000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("labelled", "fraction", "validation"),
    [(4, 0.1, 1), (3, 0.1, 0), (4, 0.0, 0), (20, 0.1, 2), (20, 0.5, 10), (3, 0.5, 2), (1, 0.5, 0)],
)
def test_validation_counts_and_comes_out_of_the_labelled(labelled, fraction, validation):
    """round(fraction * labelled), at least 1 of 4 or more; Python rounds 1.5 to 2 and .5 to 0."""
    images = single_label(2, 30)
    split = make(images, labelled_per_class=labelled, validation_fraction=fraction)
    assert len(split.validation) == 2 * validation
    assert len(split.labelled) == 2 * (labelled - validation)


def test_per_class_with_several_labels_picks_an_image_once():
    """a has images 0-3, b has 2-5: 1 query and 1 labelled for each class are 4 different images."""
    for seed in range(20):
        images = image_set([[1, 0], [1, 0], [1, 1], [1, 1], [0, 1], [0, 1]])
        split = make(images, seed=seed, labelled_per_class=1)
        assert counts(split) == {
            "query": 2, "database": 4, "labelled": 2, "validation": 0, "unlabelled": 2
        }  # fmt: skip
        assert images.labels[split.query].any(axis=0).all()
        assert images.labels[split.labelled].any(axis=0).all()


def test_random_order_is_a_permutation_in_which_no_position_is_favoured():
    """Each of 5 items should come first in 1/5 of 2,000 seeds: 400, standard deviation 18."""
    orders = np.array([protocols.random_order(5, seed, 0) for seed in range(2000)])
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(5), (2000, 1)))
    assert np.abs(np.bincount(orders[:, 0]) - 400).max() < 5 * 18


def test_unseen_classes_counts():
    """4 classes of 8: 3 seen, 1 unseen. train75 and test75 have 12, train25 and test25 have 4."""
    images = single_label(4, 8, without_label=3)
    split = make(images, protocol="unseen_classes", queries_per_class=None, labelled_per_class=2)
    assert counts(split) == {
        "query": 4, "database": 16, "labelled": 6, "validation": 0, "unlabelled": 6
    }  # fmt: skip
    assert split.protocol == "unseen_classes(queries=all, labelled=2, validation=0.1)"
    learned = np.concatenate([split.labelled, split.unlabelled])
    assert not set(learned) & set(split.database)
    query_classes = images.labels[split.query].any(axis=0)
    seen_classes = images.labels[learned].any(axis=0)
    assert query_classes.sum() == 1 and not (query_classes & seen_classes).any()
    np.testing.assert_array_equal(
        images.labels[split.labelled].sum(axis=0), np.where(query_classes, 0, 2)
    )
    every_image = np.concatenate([split.query, split.database, learned])
    np.testing.assert_array_equal(np.sort(every_image), np.arange(32))


def test_unseen_classes_sees_7_of_10_and_the_seed_picks_them():
    images = single_label(10, 20)
    seen = set()
    for seed in range(5):
        split = make(images, protocol="unseen_classes", seed=seed, labelled_per_class=1)
        classes = images.labels[split.labelled].any(axis=0)
        assert classes.sum() == 7
        seen.add(tuple(classes))
    assert len(seen) > 1


def test_unseen_classes_of_several_labels():
    """4 classes: 3 seen, u unseen. Sets of labels 30 times each: an image with u, whatever else it
    has, is neither learned from nor in test75; half of those with u are queries, once each."""
    sets = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]]
    sets += [[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]]
    images = image_set(sets * 30)
    split = make(
        images, protocol="unseen_classes", queries_per_class=None, labelled_per_class=3, seed=1
    )
    learned = np.concatenate([split.labelled, split.validation, split.unlabelled])
    (unseen,) = np.flatnonzero(~images.labels[learned].any(axis=0))
    shows = images.labels[:, unseen] == 1
    assert not shows[learned].any() and shows[split.query].all()
    assert len(split.query) == shows.sum() // 2 == len(set(split.query))
    assert shows[split.database].sum() == shows.sum() - len(split.query)
    assert len(learned) == (~shows).sum() / 2
    every_image = np.sort(np.concatenate([split.query, split.database, learned]))
    np.testing.assert_array_equal(every_image, np.arange(270))


def test_unseen_classes_ask_for_an_image_of_two_of_them_once():
    """8 classes, 2 of them unseen; each image has two labels, so some have both unseen ones."""
    pairs = [[int(c in (a, b)) for c in range(8)] for a in range(8) for b in range(a)]
    split = make(
        image_set(pairs * 20), protocol="unseen_classes", queries_per_class=9, labelled_per_class=2
    )
    assert len(set(split.query)) == len(split.query) <= 18


def test_unseen_classes_limits_the_queries_of_a_class():
    images = single_label(8, 40)  # 6 seen; 2 unseen with 40 in test25 together
    split = make(images, protocol="unseen_classes", queries_per_class=3)
    assert sorted(images.labels[split.query].sum(axis=0)) == [0] * 6 + [3, 3]
    assert len(split.database) == 40 + 120


def test_per_class_refuses_several_labels_that_use_each_other_up():
    """The 3 images have both classes; each class alone has enough for 1 + 1, both need 4."""
    with pytest.raises(UserError, match="class 'b' has 0 images to pick from, 1 are needed"):
        make(image_set([[1, 1]] * 3), labelled_per_class=1)


def test_unseen_classes_refuses_what_it_cannot_split():
    arguments = {"protocol": "unseen_classes", "labelled_per_class": 1}
    with pytest.raises(UserError, match="expected at least 3 classes, received 2"):
        make(single_label(2, 9), **arguments)
    with pytest.raises(UserError, match="class '[abc]' has 1 images, 2 are needed"):
        make(single_label(3, 1), **arguments)
