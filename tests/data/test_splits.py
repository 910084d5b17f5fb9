"""Splits: the promises that hold for every one, fingerprints, and files."""

import dataclasses

import numpy as np
import pytest

from tests.data.tiny_splits import make, same, single_label, with_triplets
from tfhash.data import protocols, splits
from tfhash.errors import UserError


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


@pytest.mark.parametrize("part", splits.PARTS[1:])
def test_a_query_in_another_part_is_refused(part):
    split = make(single_label(3, 6))
    leaky = np.append(getattr(split, part), split.query[0])
    with pytest.raises(ValueError, match="without a common image, 1 are repeated"):
        dataclasses.replace(split, **{part: leaky})


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
