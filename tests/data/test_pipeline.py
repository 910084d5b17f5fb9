"""Batches as a function of seed and step, and the augmentations by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfhash.data.pairs import InBatchPairs
from tfhash.data.pipeline import FlipAndShift, TrainingBatches, random_view
from tfhash.data.triplets import InBatchTriplets
from tfhash.errors import UserError

COUNT, SIDE = 20, 4
LABELLED, UNLABELLED = np.arange(1, 13), np.arange(13, 20)
CLASSES = np.arange(12) % 3
# Image i holds i everywhere, whatever flips and shifts do to it.
IMAGES = np.broadcast_to(
    np.arange(COUNT, dtype=np.uint8)[:, None, None, None, None], (COUNT, 1, SIDE, SIDE, 3)
)


def make_batches(**options):
    defaults = {
        "inputs": IMAGES,
        "labelled": LABELLED,
        "unlabelled": UNLABELLED,
        "sampler": InBatchTriplets(np.eye(3, dtype=np.uint8)[CLASSES], 5, 2),
        "groups": 2,
        "unlabelled_size": 4,
        "noise_size": 7,
        "augment": FlipAndShift(flip=True, shift=1),
        "seed": (0, 0),
    }
    return TrainingBatches(**{**defaults, **options})


def assert_same(one, other):
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]))


def test_shapes_and_types():
    batch = make_batches()(0)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "images": ((2, 5, SIDE, SIDE, 3), "uint8"),
        "triplets": ((2, 10, 3), "int32"),
        "unlabelled": ((2, 4, SIDE, SIDE, 3), "uint8"),
        "noise": ((2, 9, 7), "float32"),
    }


def test_a_batch_follows_from_seed_and_step_alone():
    """Another object, asked in another order, gives the same; another seed or step does not."""
    first, second = make_batches(), make_batches()
    steps = {step: first(step) for step in (0, 1, 2)}
    for step in (2, 0, 1):
        assert_same(second(step), steps[step])
    for other in (steps[1], make_batches(seed=(1, 0))(0), make_batches(seed=(0, 1))(0)):
        for name in other:
            assert other[name].tolist() != steps[0][name].tolist(), name


def test_the_images_are_those_that_the_triplets_speak_of():
    """Each image still shows its number, and from that its class."""
    batches = make_batches()
    for step in range(5):
        batch = batches(step)
        numbers = batch["images"][..., 0, 0, 0].astype(int)
        assert np.isin(numbers, LABELLED).all()
        assert np.isin(batch["unlabelled"][..., 0, 0, 0], UNLABELLED).all()
        for group, triplets in zip(numbers, batch["triplets"], strict=True):
            q, p, n = (CLASSES[group[role] - LABELLED[0]] for role in triplets.T)
            assert (q == p).all() and (q != n).all()


def test_groups_have_their_own_images_triplets_and_noise():
    batch = make_batches()(0)
    for name, array in batch.items():
        assert array[0].tolist() != array[1].tolist(), name


def test_noise_is_standard_normal():
    """2 · 9 · 2000 values: the mean is within 5 deviations of 1/190, the variance likewise."""
    noise = make_batches(noise_size=2000)(0)["noise"]
    assert abs(noise.mean()) < 5 / 190
    assert abs(noise.var() - 1) < 5 * np.sqrt(2) / 190


def test_labelled_batches_are_the_same_with_and_without_unlabelled_images():
    """So that an ablation differs from the method in nothing else."""
    with_them, without = make_batches()(0), make_batches(unlabelled_size=0, noise_size=0)(0)
    for name in ("images", "triplets"):
        np.testing.assert_array_equal(with_them[name], without[name])


def test_another_view_is_of_the_same_items():
    """Each item has its number in its middle, and 100 at one edge, where flips and shifts show."""
    inputs = np.zeros((COUNT, 1, 5, 5, 3), np.uint8)
    inputs[:, :, 1:4, 1:4] = np.arange(COUNT)[:, None, None, None, None]
    inputs[:, :, :, 0] = 100
    plain, both = (make_batches(inputs=inputs, other_view=other)(0) for other in (False, True))
    assert_same(plain, {name: both[name] for name in plain})
    assert set(both) - set(plain) == {"other_images", "other_unlabelled"}
    for name in ("images", "unlabelled"):
        one, other = both[name], both[f"other_{name}"]
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_array_equal(one[..., 2, 2, 0], other[..., 2, 2, 0])
        assert one.tolist() != other.tolist()


def test_labels_are_those_of_the_images_of_a_batch():
    """Image i shows its number, and its label says it again in bits; no draw is another for it."""
    labels = np.unpackbits(np.arange(COUNT, dtype=np.uint8)[:, None], axis=1)
    plain, both = make_batches()(3), make_batches(labels=labels)(3)
    assert_same(plain, {name: both[name] for name in plain})
    assert set(both) - set(plain) == {"labels"}
    assert (both["labels"].shape, both["labels"].dtype) == ((2, 5, 8), np.float32)
    numbers = np.packbits(both["labels"].astype(np.uint8), axis=-1)[..., 0]
    np.testing.assert_array_equal(numbers, both["images"][..., 0, 0, 0])
    (from_dataset,) = make_batches(labels=labels).dataset(3, 4)
    assert_same(both, from_dataset)


def test_the_dataset_has_the_batches_of_its_steps():
    batches = make_batches()
    for step, batch in enumerate(batches.dataset(0, 3)):
        assert_same(batch, batches(step))


def test_a_dataset_goes_on_where_another_one_stopped():
    batches = make_batches()
    whole = list(batches.dataset(0, 6))
    parts = [*batches.dataset(0, 3), *batches.dataset(3, 6)]
    assert len(whole) == len(parts) == 6
    for one, other in zip(whole, parts, strict=True):
        assert_same(one, other)


def test_the_dataset_says_its_shapes_before_it_runs():
    spec = make_batches().dataset(0, 1).element_spec
    assert spec["images"].shape.as_list() == [2, 5, SIDE, SIDE, 3]
    assert spec["noise"].dtype.name == "float32"


@pytest.mark.parametrize("unlabelled", [UNLABELLED, np.zeros(0, np.int64)])
def test_no_unlabelled_images_where_none_are_asked_for(unlabelled):
    batches = make_batches(unlabelled=unlabelled, unlabelled_size=0, noise_size=0)
    (batch,) = batches.dataset(0, 1)
    assert batch["unlabelled"].shape == (2, 0, SIDE, SIDE, 3)
    assert batch["noise"].shape == (2, 5, 0)
    assert_same(batch, batches(0))


def test_unlabelled_images_that_are_not_there_are_a_mistake_of_the_user():
    with pytest.raises(UserError, match="`dataset`: no unlabelled images"):
        make_batches(unlabelled=np.zeros(0, np.int64))


def test_places_are_where_the_images_of_a_batch_stand_among_the_labelled():
    """Image i shows its number, and LABELLED[place] is i; no draw is another for it."""
    plain, both = make_batches()(3), make_batches(places=True)(3)
    assert_same(plain, {name: both[name] for name in plain})
    assert set(both) - set(plain) == {"places"}
    assert (both["places"].shape, both["places"].dtype) == ((2, 5), np.int64)
    np.testing.assert_array_equal(LABELLED[both["places"]], both["images"][..., 0, 0, 0])
    (from_dataset,) = make_batches(places=True).dataset(3, 4)
    assert_same(both, from_dataset)


@dataclasses.dataclass(frozen=True)
class Chooser:
    """Draws pairs, a number of its own, and, where `unlabelled` says so, unlabelled images too."""

    unlabelled: int | None
    group_size: int = 3

    def sample(self, rng):
        first = rng.integers(0, len(LABELLED) - 2)
        sample = {
            "images": np.arange(first, first + 3),
            "pairs": np.array([[0, 1], [1, 2]], np.int32),
            "weight": np.full(1, first / 8, np.float32),
        }
        if self.unlabelled is not None:
            # Those that stand as far from the end as the first labelled one from its beginning.
            sample["unlabelled"] = (6 - first - np.arange(self.unlabelled)) % len(UNLABELLED)
        return sample


def test_whatever_a_sampler_answers_stands_in_the_batch():
    batch = make_batches(sampler=Chooser(None))(0)
    assert set(batch) == {"images", "pairs", "weight", "unlabelled", "noise"}
    assert (batch["pairs"].shape, batch["pairs"].dtype) == ((2, 2, 2), np.int32)
    assert batch["pairs"].tolist() == [[[0, 1], [1, 2]]] * 2
    first = batch["images"][:, 0, 0, 0, 0] - LABELLED[0]
    assert first[0] != first[1]
    np.testing.assert_allclose(batch["weight"][:, 0], first / 8)
    # It chose no unlabelled images: there are unlabelled_size of them, as for triplets.
    assert batch["unlabelled"].shape == (2, 4, SIDE, SIDE, 3)
    assert batch["noise"].shape == (2, 3 + 4, 7)
    (from_dataset,) = make_batches(sampler=Chooser(None)).dataset(0, 1)
    assert_same(batch, from_dataset)


@pytest.mark.parametrize("unlabelled_size", [0, 4])
def test_a_sampler_may_choose_the_unlabelled_images(unlabelled_size):
    """Two of them, by positions among the unlabelled, whatever unlabelled_size is."""
    batches = make_batches(sampler=Chooser(2), unlabelled_size=unlabelled_size, other_view=True)
    for step in range(5):
        batch = batches(step)
        first = batch["images"][:, 0, 0, 0, 0].astype(int) - LABELLED[0]
        expected = UNLABELLED[(6 - first[:, None] - np.arange(2)) % len(UNLABELLED)]
        np.testing.assert_array_equal(batch["unlabelled"][..., 0, 0, 0], expected)
        np.testing.assert_array_equal(batch["other_unlabelled"][..., 0, 0, 0], expected)
        assert batch["unlabelled"].shape == (2, 2, SIDE, SIDE, 3)
        assert batch["noise"].shape == (2, 3 + 2, 7)
    (from_dataset,) = batches.dataset(4, 5)
    assert_same(batch, from_dataset)


def test_a_sampler_may_choose_no_unlabelled_images():
    batch = make_batches(sampler=Chooser(0))(0)
    assert batch["unlabelled"].shape == (2, 0, SIDE, SIDE, 3)
    assert batch["noise"].shape == (2, 3, 7)


def test_pairs_of_the_images_of_a_batch():
    """All pairs within a group, and the labels say which of them share one."""
    labels = np.zeros((COUNT, 3), np.uint8)
    labels[LABELLED] = np.eye(3, dtype=np.uint8)[CLASSES]
    sampler = InBatchPairs(labels[LABELLED], 4)
    batch = make_batches(sampler=sampler, labels=labels)(0)
    assert set(batch) == {"images", "pairs", "unlabelled", "noise", "labels"}
    expected = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert batch["pairs"].tolist() == [expected, expected]
    classes = CLASSES[batch["images"][..., 0, 0, 0] - LABELLED[0]]
    np.testing.assert_array_equal(batch["labels"].argmax(axis=-1), classes)


def test_each_round_of_a_stage_has_draws_of_its_own():
    """The first is the stage as it is; no later one repeats that of another stage."""
    batches = [make_batches(seed=(5, stage)) for stage in range(3)]
    assert batches[0].of_round(1) == batches[0]
    drawn = [of.of_round(number)(7) for of in batches for number in (1, 2, 3)]
    assert len({batch["images"].tobytes() + batch["noise"].tobytes() for batch in drawn}) == 9


def augmented(image, augment, count=300):
    """What becomes of an image [H, W, 3] in many draws, as a set of its first channel's rows."""
    images = np.repeat(np.asarray(image)[None, None], count, axis=0)
    results = augment(images, np.random.default_rng(0))
    assert results.dtype == images.dtype
    return {str(result[..., 0].tolist()) for result in results}


def colour(plane):
    """A plane [H, W] as an image whose channels are the plane, 10 and 20 more."""
    return np.asarray(plane, np.uint8)[..., None] + np.array([0, 10, 20], np.uint8)


@pytest.mark.parametrize(
    ("flip", "shift", "rows"),
    [
        (False, 0, ["123"]),
        (True, 0, ["123", "321"]),
        (False, 1, ["123", "112", "233"]),
        (True, 1, ["123", "112", "233", "321", "211", "332"]),
        (False, 2, ["123", "112", "233", "111", "333"]),
    ],
)
def test_flip_and_shift_of_a_row_by_hand(flip, shift, rows):
    """Each result that is possible is drawn, and no other: the edge is repeated, not wrapped."""
    expected = {str([[int(pixel) for pixel in row]]) for row in rows}
    assert augmented(colour([[1, 2, 3]]), FlipAndShift(flip, shift)) == expected


def test_flip_and_shift_of_a_column_by_hand():
    """Up and down there are shifts but no flips."""
    columns = ([1, 2, 3], [1, 1, 2], [2, 3, 3])
    expected = {str([[pixel] for pixel in column]) for column in columns}
    assert augmented(colour([[1], [2], [3]]), FlipAndShift(True, 1)) == expected


@pytest.mark.parametrize(
    ("shift", "row", "rows"),
    [
        (1, [1, 2, 3], ["123", "212", "232"]),
        (2, [1, 2, 3], ["123", "212", "232", "321"]),
        (3, [1, 2, 3], ["123", "212", "232", "321"]),
        (1, [4], ["4"]),
    ],
)
def test_what_comes_in_reflected_by_hand(shift, row, rows):
    """The pixel at the edge stands once; a shift beyond the image mirrors it again."""
    expected = {str([[int(pixel) for pixel in row]]) for row in rows}
    reflected = FlipAndShift(False, shift, "reflect")
    assert augmented(colour([row]), reflected) == expected
    columns = {str([[int(pixel)] for pixel in row]) for row in rows}
    assert augmented(colour([[pixel] for pixel in row]), reflected) == columns


def test_shifts_in_both_directions_are_independent():
    """3 · 3 shifts of an image whose middle pixels are all different."""
    plane = np.arange(16).reshape(4, 4)
    assert len(augmented(colour(plane), FlipAndShift(False, 1))) == 9


def test_flip_and_shift_keeps_channels_and_images_apart():
    planes = np.arange(50 * 9).reshape(50, 3, 3) % 200
    images = np.stack([colour(plane) for plane in planes])
    results = FlipAndShift(True, 1)(images[:, None], np.random.default_rng(0))
    assert results.shape == images.shape
    assert len({str(r[..., 0].tolist()) for r in results - results[:, :1, :1]}) > 2
    for image, result in zip(images, results, strict=True):
        assert set(result[..., 0].ravel()) <= set(image[..., 0].ravel())
        np.testing.assert_array_equal(result[..., 1] - result[..., 0], 10)
        np.testing.assert_array_equal(result[..., 2] - result[..., 0], 20)


def test_random_view_takes_one_of_each_items_own_views():
    """View v of item i is (i, v)."""
    inputs = np.stack(np.meshgrid(np.arange(100), np.arange(2), indexing="ij"), axis=-1)
    chosen = random_view(inputs, np.random.default_rng(0))
    assert chosen[:, 0].tolist() == list(range(100))
    assert set(chosen[:, 1]) == {0, 1}


def test_features_come_as_they_are():
    """[n, views, F] float32 -> [B, m, F] float32."""
    inputs = np.random.default_rng(0).normal(size=(COUNT, 2, 6)).astype(np.float32)
    batches = dataclasses.replace(make_batches(), inputs=inputs, augment=random_view)
    images = batches(0)["images"]
    assert (images.shape, images.dtype) == ((2, 5, 6), np.float32)
    views = inputs.reshape(-1, 6).tolist()
    assert all(row in views for row in images.reshape(-1, 6).tolist())


def test_unlabelled_images_may_have_a_view_of_their_own():
    """Their first one alone: the labelled images and all second views are as they were."""

    def darker(images, rng):
        return images[:, 0] // 2

    plain = make_batches(other_view=True)(3)
    changed = make_batches(other_view=True, unlabelled_augment=darker)(3)
    np.testing.assert_array_equal(changed["images"], plain["images"])
    np.testing.assert_array_equal(changed["unlabelled"], plain["unlabelled"] // 2)
    np.testing.assert_array_equal(changed["other_unlabelled"], plain["other_unlabelled"])


def test_the_other_view_may_be_of_other_inputs():
    """Such as features of the same images: item i of `others` is i + 1000, or its second view."""
    others = np.stack([np.arange(COUNT), np.arange(COUNT)], axis=1)[..., None] + [[1000], [2000]]
    batches = make_batches(
        other_view=True, others=others.astype(np.float32), other_augment=random_view
    )
    batch, plain = batches(3), make_batches(other_view=True)(3)
    views = set()
    for name in ("images", "unlabelled"):
        np.testing.assert_array_equal(batch[name], plain[name])
        other = batch[f"other_{name}"]
        assert other.dtype == np.float32 and other.shape == (*batch[name].shape[:2], 1)
        np.testing.assert_array_equal(other[..., 0] % 1000, batch[name][..., 0, 0, 0])
        views |= set(np.unique(other // 1000))
    assert views == {1, 2}
    (from_dataset,) = batches.dataset(3, 4)
    assert_same(batch, from_dataset)
