"""splits: counts worked out by hand, and the promises that hold for every split."""

import dataclasses

import numpy as np
import pytest

from tfhash.data import protocols, splits
from tfhash.data.sources import ImageSet
from tfhash.errors import UserError


def image_set(labels: list[list[int]]) -> ImageSet:
    """Images of one pixel with these label rows; split protocols never look at pixels."""
    count = len(labels)
    return ImageSet(
        name="tiny",
        images=np.zeros((count, 1, 1, 3), np.uint8),
        labels=np.array(labels, np.uint8),
        class_names=tuple("abcdefghijklmnopqrstu"[: len(labels[0])]),
        ids=tuple(f"image/{index}" for index in range(count)),
    )


def single_label(classes: int, images_per_class: int, without_label: int = 0) -> ImageSet:
    rows = np.eye(classes, dtype=int).tolist() * images_per_class + [[0] * classes] * without_label
    return image_set(rows)


def make(images: ImageSet, **arguments) -> splits.RetrievalSplits:
    defaults = {"seed": 0, "queries_per_class": 1, "labelled_per_class": 4}
    return splits.make(images, **{**defaults, **arguments})


def counts(split: splits.RetrievalSplits) -> dict[str, int]:
    return {part: len(getattr(split, part)) for part in splits.PARTS}


def same(one: splits.RetrievalSplits, other: splits.RetrievalSplits, *parts: str) -> bool:
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


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


def test_one_seed_one_split_another_seed_another():
    images = single_label(3, 20)
    assert same(make(images, seed=1), make(images, seed=1), *splits.PARTS)
    assert not same(make(images, seed=1), make(images, seed=2), "query")
    assert not same(make(images, seed=1), make(images, seed=2), "labelled")


def test_more_labels_leave_the_queries_and_keep_the_labels():
    images = single_label(3, 20)
    few, many = (make(images, labelled_per_class=n, validation_fraction=0) for n in (5, 10))
    assert same(few, many, "query", "database")
    assert set(few.labelled) < set(many.labelled)


def test_fingerprint_is_the_same_everywhere():
    """Golden values; the first was also derived by hand: SHA-256 over the protocol and, for
    each part, "\\nNAME COUNT CLASSES\\n" and "ID\\0LABELS" of each image."""
    split = make(single_label(3, 6, without_label=2))
    assert split.query.tolist() == [3, 11, 13]
    assert split.validation.tolist() == [5, 7, 15]
    assert split.fingerprint == "e2a55bee4f03fabd"
    unseen = make(single_label(4, 8), protocol="unseen_classes", labelled_per_class=2)
    assert unseen.labelled.tolist() == [4, 17, 19, 20, 25, 27]
    assert unseen.fingerprint == "5265befa30ae7563"


def test_fingerprint_tells_every_difference():
    images = single_label(3, 6)
    original = make(images)
    other_id = dataclasses.replace(images, ids=(*images.ids[:-1], "image/new"))
    labels = images.labels.copy()
    labels[-1] = [1, 0, 1]  # was class c: a second label
    fingerprints = [
        original.fingerprint,
        make(other_id).fingerprint,
        make(dataclasses.replace(images, labels=labels)).fingerprint,
        make(images, seed=1).fingerprint,
        make(images, queries_per_class=2).fingerprint,
        make(images, labelled_per_class=5).fingerprint,
        make(images, validation_fraction=0.0).fingerprint,
        make(images, validation_fraction=0.11).fingerprint,  # the same parts, another protocol
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert all(len(bytes.fromhex(fingerprint)) == 8 for fingerprint in fingerprints)


def test_fingerprint_ignores_pixels():
    images = single_label(3, 6)
    larger = dataclasses.replace(images, images=np.ones((18, 2, 2, 3), np.uint8))
    assert make(images).fingerprint == make(larger).fingerprint


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


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_no_query_is_learned_from_or_found(protocol):
    images = single_label(5, 30, without_label=10)
    for seed in range(10):
        split = make(images, protocol=protocol, seed=seed, queries_per_class=4)
        for part in splits.PARTS[1:]:
            assert not set(split.query) & set(getattr(split, part))
        for part in splits.PARTS:
            indices = getattr(split, part)
            assert indices.dtype == np.int64 and (np.diff(indices) > 0).all()
        assert images.labels[split.database].any(axis=1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "holdout"}, "`protocol`=holdout: expected one of per_class, unseen_classes"),
        ({"seed": -1}, "`seed`=-1: expected 0 or more"),
        ({"queries_per_class": 0}, "`queries_per_class`=0: expected at least 1"),
        ({"queries_per_class": None}, "`queries_per_class`: all; `protocol`=per_class"),
        ({"labelled_per_class": 0}, "`labelled_per_class`=0: expected at least 1"),
        ({"validation_fraction": 0.6}, "`validation_fraction`=0.6: expected 0 to 0.5"),
        (
            {"queries_per_class": 3},
            "class 'a' has 6 images, 7 are needed; lower `queries_per_class` or `labelled_per_",
        ),
        ({"protocol": "unseen_classes"}, "class '[abc]' has [0-3] images to pick from, 4 are need"),
    ],
)
def test_make_refuses_and_names_the_flag(arguments, message):
    """6 images a class: 3 + 4 = 7 are too many. Two seen classes share 6 images of train75, so one
    of them has at most 3."""
    with pytest.raises(UserError, match=message):
        make(single_label(3, 6), **arguments)


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


@pytest.mark.parametrize("part", splits.PARTS[1:])
def test_a_query_in_another_part_is_refused(part):
    split = make(single_label(3, 6))
    leaky = np.append(getattr(split, part), split.query[0])
    with pytest.raises(ValueError, match="without a common image, 1 are repeated"):
        dataclasses.replace(split, **{part: leaky})


# Twelve images, five of them queries of triplets; 3 is the query of two, and a positive for 0.
TRIPLETS = [[0, 1, 2], [0, 3, 5], [3, 4, 0], [3, 4, 5], [6, 7, 8], [9, 7, 0], [11, 8, 10]]


def with_triplets(rows: list[list[int]] = TRIPLETS) -> ImageSet:
    """Twelve images without labels."""
    unlabelled = {"class_names": (), "labels": np.zeros((12, 0), np.uint8)}
    return dataclasses.replace(image_set([[1]] * 12), **unlabelled, triplets=np.array(rows))


@pytest.mark.parametrize("seed", range(20))
def test_no_query_of_a_held_out_triplet_is_learned_from(seed):
    """.4 of 5 query images are 2. By brute force over the rows, each of which is held out, learned
    from, or, where a query stands in it as positive or negative, neither."""
    split = splits.from_triplets(with_triplets(), seed=seed, held_out_fraction=0.4)
    query = set(split.query.tolist())
    assert len(query) == 2 and query < {0, 3, 6, 9, 11}
    assert split.held_out.tolist() == [row for row in TRIPLETS if row[0] in query]
    learned = [row for row in TRIPLETS if not query & set(row)]
    assert split.labelled.tolist() == sorted({image for row in learned for image in row})
    assert split.database.tolist() == [image for image in range(12) if image not in query]
    learnable = np.sort(splits.learnable(split))
    np.testing.assert_array_equal(learnable, split.database)
    assert split.validation.size == 0 and split.protocol == "triplets(held_out=0.4)"


def test_one_seed_holds_out_the_same_triplets_and_another_seed_others():
    one, again, other = (splits.from_triplets(with_triplets(), seed=seed) for seed in (0, 0, 1))
    assert one.query.tolist() == again.query.tolist() != other.query.tolist()
    assert one.fingerprint == again.fingerprint != other.fingerprint


def test_the_fingerprint_tells_which_triplets_there_are():
    """Those that judge and those that are learned from, also where the parts stay the same."""
    split = splits.from_triplets(with_triplets(), seed=0)
    fingerprints = {split.fingerprint}
    for held_out in (True, False):
        rows = [list(row) for row in TRIPLETS]
        row = next(r for r in rows if (r[0] in split.query) == held_out and 0 not in r[1:])
        row[1], row[2] = row[2], row[1]
        changed = splits.from_triplets(with_triplets(rows), seed=0)
        assert same(split, changed, *splits.PARTS)
        fingerprints.add(changed.fingerprint)
    assert len(fingerprints) == 3


@pytest.mark.parametrize(
    ("rows", "fraction", "message"),
    [
        (TRIPLETS, 0.0, "`held_out_fraction`: 0.0; allowed: above 0 and below 1"),
        (TRIPLETS, 1.0, "`held_out_fraction`: 1.0; allowed: above 0 and below 1"),
        ([[0, 1, 2]], 0.2, "`triplets_csv`: each of the 1 triplets holds one of 1 images that"),
        ([[0, 1, 2], [1, 0, 2]], 0.2, "each of the 2 triplets holds one of 1 images"),
        (TRIPLETS, 0.9, "each of the 7 triplets holds one of 4 images"),
    ],
)
def test_triplets_that_cannot_be_split(rows, fraction, message):
    """Of 5 queries round(4.5) = 4 are held out; Python rounds to the even number. Where one is
    left over it may be learned from, so the seed is one for which it is 0 or 3."""
    with pytest.raises(UserError, match=message):
        for seed in range(20):
            splits.from_triplets(with_triplets(rows), seed=seed, held_out_fraction=fraction)


def test_images_without_classes_have_no_other_split():
    with pytest.raises(UserError, match="`protocol`=per_class: the images have no classes; allow"):
        make(with_triplets())


def test_no_triplets_no_such_split():
    with pytest.raises(UserError, match="`triplets_csv`: missing; `protocol`=triplets needs it"):
        splits.from_triplets(single_label(3, 6), seed=0)


@pytest.mark.parametrize(
    "split",
    [make(single_label(3, 6)), splits.from_triplets(with_triplets(), seed=0)],
    ids=["per_class", "triplets"],
)
def test_save_and_load(tmp_path, split):
    split.save(tmp_path / "splits.npz")
    loaded = splits.RetrievalSplits.load(tmp_path / "splits.npz")
    assert same(split, loaded, *splits.PARTS, "held_out")
    assert all(getattr(loaded, part).dtype == np.int64 for part in splits.PARTS)
    for field in ("protocol", "seed", "fingerprint"):
        assert getattr(loaded, field) == getattr(split, field)
