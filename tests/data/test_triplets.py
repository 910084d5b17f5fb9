"""Triplets from labels, checked by looking at the labels, and from a user's CSV."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.data.triplets import (
    ImpliedPositives,
    InBatchTriplets,
    ListedTriplets,
    SampledTriplets,
    check_group_size,
    read_csv,
    relevance,
)
from tfhash.errors import UserError

ONE_LABEL = np.eye(3, dtype=np.uint8)[np.arange(12) % 3]
SEVERAL_LABELS = np.array(
    [[1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0]], np.uint8
)
# Image 1 shares a label with all others, image 4 below with none: neither can be a query.
ONE_WITHOUT_NEGATIVES = np.array([[1, 0], [1, 1], [1, 0], [0, 1], [1, 0]], np.uint8)
ONE_WITHOUT_POSITIVES = np.array([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1]], np.uint8)
LABELS = {
    "one label": ONE_LABEL,
    "several labels": SEVERAL_LABELS,
    "no negative": ONE_WITHOUT_NEGATIVES,
    "no positive": ONE_WITHOUT_POSITIVES,
}


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn_of(sampler, seed=0):
    """The images and the triplets of a group; a sampler of triplets answers nothing else."""
    sample = sampler.sample(rng(seed))
    assert set(sample) == {"images", "triplets"}
    return sample["images"], sample["triplets"]


def share(labels, i, j):
    return bool((labels[i] & labels[j]).any())


def assert_right(labels, members, triplets):
    """By brute force over labels, and on positions: an image that stands twice is two of them."""
    for q, p, n in triplets:
        assert q != p and q != n
        assert share(labels, members[q], members[p])
        assert not share(labels, members[q], members[n])


def test_relevance_by_hand():
    """0-1 share the second label, 1-2 too, 0-2 none; no image is its own positive."""
    labels = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], np.uint8)
    assert relevance(labels).tolist() == [
        [False, True, False], [True, False, True], [False, True, False]
    ]  # fmt: skip


def test_relevance_of_many_shared_labels():
    """256 of them are 0 in a uint8."""
    assert relevance(np.ones((2, 256), np.uint8)).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("group_size", [3, 4, 7])
def test_in_batch_triplets_are_right(labels, group_size):
    """Groups smaller and larger than the labelled images, where each place is a position."""
    sampler = InBatchTriplets(labels, group_size, triplets_per_query=2)
    assert sampler.group_size == group_size
    for seed in range(30):
        members, triplets = drawn_of(sampler, seed)
        assert (members.shape, members.dtype) == ((group_size,), np.int64)
        assert (triplets.shape, triplets.dtype) == ((2 * group_size, 3), np.int32)
        assert_right(labels, members, triplets)
        copies = group_size - len(set(members.tolist()))
        assert (copies > 0) == (group_size > len(labels))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_sampled_triplets_bring_their_own_images(labels):
    sampler = SampledTriplets(labels, triplets=5)
    assert sampler.group_size == 15
    for seed in range(30):
        members, triplets = drawn_of(sampler, seed)
        assert (members.shape, members.dtype) == ((15,), np.int64)
        assert triplets.dtype == np.int32
        assert triplets.tolist() == np.arange(15).reshape(5, 3).tolist()
        assert_right(labels, members, triplets)
        assert all(members[q] != members[p] for q, p, _ in triplets)


def test_the_first_triplets_of_a_complete_group_have_different_queries():
    """A group of all images: each has a positive and a negative, so each is a query once."""
    sampler = InBatchTriplets(ONE_LABEL, len(ONE_LABEL), triplets_per_query=2)
    _, triplets = drawn_of(sampler)
    assert sorted(triplets[:12, 0]) == sorted(triplets[12:, 0]) == list(range(12))


def test_every_possible_triplet_is_drawn():
    """Of 2 + 2 images each is the query of 1 positive and 2 negatives: 8 triplets."""
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.uint8)
    expected = {(q, q ^ 1, n) for q in range(4) for n in range(4) if n // 2 != q // 2}
    for sampler in (InBatchTriplets(labels, 4), SampledTriplets(labels, 40)):
        drawn = set()
        for seed in range(10):
            members, triplets = drawn_of(sampler, seed)
            drawn |= {tuple(row) for row in members[triplets].tolist()}
        assert drawn == expected


@pytest.mark.parametrize(
    "sampler",
    [
        InBatchTriplets(ONE_LABEL, 6),
        ImpliedPositives(ONE_LABEL, 6),
        SampledTriplets(ONE_LABEL, 4),
        ListedTriplets(np.arange(30).reshape(10, 3), 4),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_sample_follows_from_the_generator_alone(sampler):
    (members, triplets), (again, same), (others, _) = (
        drawn_of(sampler, seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(members, again)
    np.testing.assert_array_equal(triplets, same)
    assert members.tolist() != others.tolist()


IMPLIED_LABELS = LABELS | {"one image a class": np.eye(4, dtype=np.uint8)}


@pytest.mark.parametrize("labels", IMPLIED_LABELS.values(), ids=IMPLIED_LABELS)
@pytest.mark.parametrize("group_size", [3, 4, 7])
def test_implied_positives_are_the_queries_and_negatives_share_no_label(labels, group_size):
    sampler = ImpliedPositives(labels, group_size, triplets_per_query=2)
    assert sampler.group_size == group_size
    for seed in range(30):
        members, triplets = drawn_of(sampler, seed)
        assert (members.shape, members.dtype) == ((group_size,), np.int64)
        assert (triplets.shape, triplets.dtype) == ((2 * group_size, 3), np.int32)
        assert (triplets[:, 0] == triplets[:, 1]).all()
        for q, _, n in triplets:
            assert not share(labels, members[q], members[n])


def test_every_image_with_a_negative_in_its_group_is_a_query_of_it():
    """Images 0 to 2 of ONE_WITHOUT_NEGATIVES and 4 have image 3 as a negative, or are it; image 1
    has none, so that another one takes its turn."""
    sampler = ImpliedPositives(ONE_WITHOUT_NEGATIVES, 5)
    for seed in range(30):
        members, triplets = drawn_of(sampler, seed)
        different = [
            i for i in range(5)
            if any(not share(ONE_WITHOUT_NEGATIVES, members[i], m) for m in members)
        ]  # fmt: skip
        assert set(triplets[:, 0].tolist()) == set(different)
        assert 1 not in members[triplets[:, 0]]


def test_every_pair_of_different_labels_is_drawn():
    """Of one image a class: 4 queries, 3 negatives each."""
    drawn = set()
    for seed in range(60):
        members, triplets = drawn_of(ImpliedPositives(np.eye(4, dtype=np.uint8), 4), seed)
        drawn |= {tuple(row) for row in members[triplets[:, [0, 2]]].tolist()}
    assert drawn == {(q, n) for q in range(4) for n in range(4) if q != n}


def test_implied_positives_count_256_shared_labels():
    """256 of them are 0 in a uint8; without a third image no two would be different."""
    labels = np.zeros((3, 257), np.uint8)
    labels[:2, :256] = labels[2, 256] = 1
    for seed in range(10):
        members, triplets = drawn_of(ImpliedPositives(labels, 3), seed)
        for q, _, n in triplets:
            assert (members[q] == 2) != (members[n] == 2)


@pytest.mark.parametrize("labels", [[[1], [1]], [[1, 0], [1, 1]]])
def test_labels_that_all_share_one_have_no_negative(labels):
    with pytest.raises(UserError, match="`labelled_per_class`: no triplet .* share no label"):
        ImpliedPositives(np.array(labels, np.uint8), 4)


def test_listed_triplets_are_rows_of_the_list():
    listed = np.array([[5, 6, 7], [0, 9, 3]])
    sampler = ListedTriplets(listed, 20)
    assert sampler.group_size == 60
    members, triplets = drawn_of(sampler)
    assert {tuple(row) for row in members[triplets].tolist()} == {(5, 6, 7), (0, 9, 3)}


@pytest.mark.parametrize(
    "labels",
    [np.ones((4, 1), np.uint8), np.eye(4, dtype=np.uint8), np.zeros((4, 2), np.uint8)],
    ids=["one class", "one image a class", "no labels"],
)
@pytest.mark.parametrize("make", [lambda x: InBatchTriplets(x, 4), lambda x: SampledTriplets(x, 2)])
def test_no_possible_triplet_is_a_mistake_of_the_user(labels, make):
    with pytest.raises(UserError, match="`labelled_per_class`: no triplet can be made of the 4"):
        make(labels)


@pytest.mark.parametrize("sampler", [InBatchTriplets, ImpliedPositives])
def test_a_group_has_at_least_three_places(sampler):
    message = "`batch_size`: 2 labelled images a group; at least 3 are allowed"
    with pytest.raises(UserError, match=message):
        sampler(ONE_LABEL, 2)
    with pytest.raises(UserError, match=message):
        check_group_size(2)
    sampler(ONE_LABEL, 3)
    check_group_size(3)


IDS = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2, wet.png"]


def write(tmp_path, content):
    path = tmp_path / "triplets.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("header", ["", "query,positive,negative\n", "Query, POSITIVE, negative\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_read_csv_gives_positions(tmp_path, header, mark):
    """Spaces around an id, an empty line and an id in quotes; Excel begins with the mark."""
    rows = 'cat/1.png, cat/2.png ,dog/1.png\n\ndog/1.png,"dog/2, wet.png",cat/1.png\n'
    triplets = read_csv(write(tmp_path, mark + header + rows), IDS)
    assert triplets.dtype == np.int64
    assert triplets.tolist() == [[0, 1, 2], [2, 3, 0]]


GOOD = "cat/1.png,cat/2.png,dog/1.png\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GOOD + "cat/1.png,cat/2.png,bird.png\n", ("line 2", "no image 'bird.png'", "`data_dir`")),
        ("query,positive,negative\n" + GOOD + "cat/1.png,dog/1.png\n", ("line 3", "three")),
        ("cat/1.png,cat/2.png,dog/1.png,dog/1.png\n", ("line 1", "three different")),
        (GOOD + "cat/1.png,cat/1.png,dog/1.png\n", ("line 2", "three different")),
        (GOOD + "query,positive,negative\n", ("line 2", "no image 'query'")),
        ("", ("no triplets in it",)),
        ("query,positive,negative\n\n", ("no triplets in it",)),
        (b"\xff\xd8\xff\xe0", ("line 1", "three different")),
        (GOOD.replace(",", ";"), ("line 1", "with ';' between the columns", "three different")),
        (GOOD.encode("utf-16"), ("line 1", "a byte 0; allowed: a CSV in utf-8")),
        ("a,b,c\n" + GOOD, ("line 1", "no image 'a'", "or the header query,positive,negative")),
        (GOOD + "cat/1.png,CAT/2.png,dog/1.png\n", ("no image 'CAT/2.png'", "there is cat/2.png")),
        ('"cat/1.png,\n', ("line 1", "three different")),
        ('"' + "x" * 200_000, ("field larger",)),
    ],
    ids=[
        "unknown",
        "two",
        "four",
        "twice",
        "late header",
        "empty",
        "header",
        "jpeg",
        "semicolons",
        "UTF-16",
        "other header",
        "case",
        "open",
        "quote",
    ],
)
def test_read_csv_refuses_in_one_line(tmp_path, content, words):
    path = write(tmp_path, content)
    with pytest.raises(UserError) as error:
        read_csv(path, IDS)
    message = str(error.value)
    assert message.startswith(f"`triplets_csv`: {path}")
    assert all(word in message for word in words)
    assert "\n" not in message


def test_read_csv_names_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="`triplets_csv`: .*none.csv.*No such file"):
        read_csv(tmp_path / "none.csv", IDS)


def test_names_that_differ_in_composition_or_are_no_utf8_are_found(tmp_path):
    """The folder has é as two characters, the CSV as one; the last name has a byte of Latin-1."""
    ids = ("cafe\u0301/1.png", "caf\udce9/2.png", "dog/1.png")
    path = write(tmp_path, "café/1.png,".encode() + b"caf\xe9/2.png,dog/1.png\n")
    assert read_csv(path, ids).tolist() == [[0, 1, 2]]


def test_paths_as_other_programs_write_them_are_found(tmp_path):
    path = write(tmp_path, "cat\\1.png,./cat/2.png,.\\dog\\1.png\n")
    assert read_csv(path, IDS).tolist() == [[0, 1, 2]]
