"""Images with several labels: what holds for every method, whatever it makes of labels.

Digits 0 to 3 have the concepts below. 3 shares one with 1 and one with 2, and these share none: no
partition into classes says the same.
"""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.methods.test_conformance import NAMES, class_of, make
from tfhash import methods
from tfhash.errors import UserError
from tfhash.hashers.gan import GANHasher
from tfhash.hashers.linear.similarity import similarity_factors

CONCEPTS_OF = ({"zero"}, {"odd", "one"}, {"large", "two"}, {"odd", "large", "three"})
CONCEPTS = ("zero", "odd", "large", "one", "two", "three")
COUNT, LABELLED = 80, 60
PAGE = Path(__file__).parents[2] / "docs" / "several-labels.md"
# Methods to which labels say no more than which two images share one.
OF_PAIRS = {
    "BGDH": {}, "BRE": {}, "CNNH": {}, "DHN": {}, "DPSH": {}, "KSH": {}, "MLH": {}, "NINH": {},
    "SSDH": {"classification": False}, "SSGAH": {}, "SSH": {},
}  # fmt: skip

# These see factors of the similarities, which other label sets round otherwise; a bit that is as
# good either way may then differ.
BY_FACTORS = ("BRE", "CNNH", "KSH")

pytestmark = pytest.mark.usefixtures("eagerly")


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [80, 8, 8, 3], and the digit that each shows."""
    found = load_digits(n_class=4)
    images = np.repeat(np.uint8(np.rint(found.images[:COUNT] * 15))[..., None], 3, axis=-1)
    images.setflags(write=False)
    return images, found.target[:COUNT]


def all_labels() -> np.ndarray:
    """The concepts of each image, [80, 6]; none of the last 20, which are unlabelled."""
    _, shown = digits()
    rows = [[name in CONCEPTS_OF[digit] for name in CONCEPTS] for digit in shown]
    labels = np.array(rows, np.int64)
    labels[LABELLED:] = 0
    return labels


def one_label(which: int) -> np.ndarray:
    """The first label of each image alone (0), as an argmax has it, or the last one (-1)."""
    labels = all_labels()
    alone = np.zeros_like(labels)
    for row in range(LABELLED):
        alone[row, np.flatnonzero(labels[row])[which]] = 1
    return alone


def twice_labels() -> np.ndarray:
    """Two of the concepts stand there twice, so that images share more labels, and the same do."""
    labels = all_labels()
    return np.column_stack([labels, labels[:, [0, 2]]])


def other_labels() -> np.ndarray:
    """Further, a part of a concept: images of the same labels have others now; the same share."""
    some_odd = all_labels()[:, 1] * (np.arange(COUNT) % 2)
    return np.column_stack([twice_labels(), some_odd])


def pairs_that_share(labels: np.ndarray) -> set[tuple[int, int]]:
    """By the definition, pair by pair."""
    sets = [set(np.flatnonzero(row)) for row in labels]
    return {(i, j) for i, j in itertools.combinations(range(COUNT), 2) if sets[i] & sets[j]}


@functools.cache
def embedded(name: str, kind: str, **options) -> np.ndarray:
    """What a method that learned of labels of this kind makes of all images."""
    labels = {
        "all": all_labels,
        "first": lambda: one_label(0),
        "last": lambda: one_label(-1),
        "twice": twice_labels,
        "other": other_labels,
    }[kind]()
    images, _ = digits()
    return make(name, **options).fit(images, labels).embed(images)


def test_the_labels_are_what_the_tests_need():
    shared = pairs_that_share(all_labels())
    assert shared == pairs_that_share(other_labels()) == pairs_that_share(twice_labels())
    for which in (0, -1):
        assert pairs_that_share(one_label(which)) < shared
    _, shown = digits()
    kinds = {tuple(sorted((shown[i], shown[j]))) for i, j in shared}
    assert kinds == {(0, 0), (1, 1), (2, 2), (3, 3), (1, 3), (2, 3)}


@pytest.mark.parametrize("name", NAMES)
def test_every_method_learns_of_several_labels(name):
    found = embedded(name, "all")
    assert found.shape == (COUNT, 12) and np.isfinite(found).all()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in NAMES
        for kind in ("first", "last")
        if kind == "first" or not issubclass(class_of(name), GANHasher)  # which takes long
    ],
)
def test_no_label_is_passed_over(name, kind):
    """A method that made one class of an image's labels would learn the same of that one alone."""
    same = np.array_equal(embedded(name, "all"), embedded(name, kind))
    assert same != class_of(name).learns_from_labels


@pytest.mark.parametrize("kind", ["first", "last"])
def test_cnnh_plus_passes_over_none(kind):
    plus = {"class_outputs": True}
    assert not np.array_equal(embedded("CNNH", "all", **plus), embedded("CNNH", kind, **plus))


@pytest.mark.parametrize("name", OF_PAIRS)
def test_pairs_and_triplets_ask_whether_two_images_share_a_label(name):
    """How many they share, which, and what else they have, changes nothing."""
    options = OF_PAIRS[name]
    found = embedded(name, "all", **options)
    same = embedded(name, "twice" if name in BY_FACTORS else "other", **options)
    np.testing.assert_array_equal(found, same)
    assert not np.allclose(found, embedded(name, "first", **options), atol=1e-3)


@pytest.mark.parametrize("labels", [all_labels, twice_labels, other_labels])
def test_the_factors_are_those_of_similarities(labels):
    """1 for two images that share a label and -1 for others, pair by pair."""
    known = labels()[:LABELLED]
    factors, weights = similarity_factors(known.astype(np.uint8))
    shared = pairs_that_share(labels())
    expected = [
        [1 if i == j or (min(i, j), max(i, j)) in shared else -1 for j in range(LABELLED)]
        for i in range(LABELLED)
    ]
    np.testing.assert_allclose(factors * weights @ factors.T, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DSHGAN", {"unlabelled_confidence": 0.5}),
        ("SSDHLatent", {"class_loss": "softmax"}),
        ("SSGAH", {"gate": True}),
    ],
)
def test_what_takes_one_label_says_so_before_it_learns(name, options):
    images, _ = digits()
    hasher = make(name, **options)
    with pytest.raises(UserError, match=f"`{next(iter(options))}`: .*label") as raised:
        hasher.fit(images, all_labels())
    assert "\n" not in str(raised.value) and hasher.history == {}


def test_the_page_has_a_row_for_each_method():
    rows = re.findall(r"^\| (`[^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted({*listed}) and set(listed) == set(methods.names())
