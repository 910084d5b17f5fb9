"""Plain arrays and paths as what a method learns from, and what is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfhash.data import arrays
from tfhash.data.arrays import as_images, as_labels, learning_set
from tfhash.data.sources import FILES_SIZE
from tfhash.errors import UserError


def noise(count, height=8, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def learn_from(images=None, labels=None, unlabelled=None, validation=None, size=None, seed=0):
    images = noise(6) if images is None else images
    return learning_set(images, labels, unlabelled, validation, image_size=size, seed=seed)


def refused(message, call, *arguments, **options):
    """The call raises a UserError of one line that begins with the message."""
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    assert str(error.value).startswith(message), str(error.value)
    assert "\n" not in str(error.value)


# Images.


def test_images_that_fit_are_not_copied():
    images = noise(3)
    assert as_images(images, "images") is images
    assert as_images(images, "images", 8) is images


def test_lists_of_arrays_are_images_too():
    images = noise(3)
    np.testing.assert_array_equal(as_images(list(images), "images"), images)
    np.testing.assert_array_equal(as_images(tf.constant(images), "images"), images)


def test_floats_are_refused_with_what_to_do():
    message = "images: float32 [3, 8, 8, 3]; allowed: uint8 in 0 to 255; convert them, as by "
    refused(message, as_images, noise(3).astype(np.float32), "images")
    with pytest.raises(UserError, match=r"np\.uint8\(np\.rint\(images \* 255\)\)"):
        as_images(noise(3) / 255.0, "images")


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (noise(3).astype(np.int64), "int64 [3, 8, 8, 3]"),
        (noise(3) > 9, "bool [3, 8, 8, 3]"),
        (noise(3)[0], "uint8 [8, 8, 3]"),
        (noise(3)[..., 0], "uint8 [3, 8, 8]"),
        (noise(3)[..., :1], "uint8 [3, 8, 8, 1]"),
        (np.moveaxis(noise(3), 3, 1), "uint8 [3, 3, 8, 8]"),
        (np.array([None, None]), "object [2]"),
    ],
)
def test_other_arrays_are_refused(images, received):
    refused(f"mine: {received}; allowed: uint8 [n, height, width, 3]", as_images, images, "mine")


@pytest.mark.parametrize(
    ("images", "remedy"),
    [
        (noise(3).astype(np.int64), lambda images: images.astype(np.uint8)),
        (noise(3)[0], lambda images: images[None]),
        (noise(3)[..., 0], lambda images: np.repeat(images[..., None], 3, axis=-1)),
        (noise(3)[..., :1], lambda images: np.repeat(images, 3, axis=-1)),
        (np.moveaxis(noise(3), 3, 1), lambda images: images.transpose(0, 2, 3, 1)),
        (np.pad(noise(3), [(0, 0)] * 3 + [(0, 1)]), lambda images: images[..., :3]),
    ],
    ids=["int64", "one", "grey", "grey column", "channels first", "RGBA"],
)
def test_what_is_close_to_images_becomes_some_by_what_the_error_says(images, remedy):
    with pytest.raises(UserError, match="or a list of paths; of ") as error:
        as_images(images, "images")
    said = str(error.value).rpartition("give ")[2]
    np.testing.assert_array_equal(eval(said, {"np": np, "images": images}), remedy(images))
    assert as_images(remedy(images), "images").shape[3] == 3


class OnGPU:
    """As a tensor of torch on a GPU answers."""

    shape = (2, 8, 8, 3)

    def __len__(self):
        return 2

    def __getitem__(self, row):
        return self

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")


def test_tensors_on_a_gpu_and_ragged_lists_are_one_line():
    refused("images cannot be read as an array (can't convert", as_images, OnGPU(), "images")
    refused("labels cannot be read as an array (can't convert", as_labels, OnGPU(), 2, "labels")
    ragged = [noise(1)[0], noise(1, 9, 9)[0]]
    refused("images cannot be read as an array (setting", as_images, ragged, "images")
    with pytest.raises(UserError, match=r"its \.cpu\(\)"):
        as_images(OnGPU(), "images")


def test_labels_of_another_kind_are_refused_with_what_to_do():
    for labels, remedy in (([0.0, 1.0], "labels.astype(int)"), (["a", "b"], "return_inverse")):
        with pytest.raises(UserError, match=re.escape(remedy)):
            as_labels(labels, 2, "labels")


def test_images_of_another_shape_than_square_need_a_size():
    refused("images: 8 x 6 px; allowed: square ones", as_images, noise(2, 8, 6), "images")
    assert as_images(noise(2, 8, 6), "images", 4).shape == (2, 4, 4, 3)
    refused("images: 0 x 8 px; allowed: at least 1 x 1", as_images, noise(2, 0, 8), "images", 4)


def test_resizing_by_hand():
    """2 x 2 px become their mean: 0, 100, 200 and 100 are 100; and 1 px becomes all of them."""
    image = np.array([[0, 100], [200, 100]], np.uint8)[None, :, :, None] * np.ones(3, np.uint8)
    np.testing.assert_array_equal(as_images(image, "images", 1), np.full((1, 1, 1, 3), 100))
    np.testing.assert_array_equal(
        as_images(image[:, :1, 1:], "images", 3), [np.full((3, 3, 3), 100)]
    )


def test_many_images_are_resized_as_each_is(monkeypatch):
    monkeypatch.setattr(arrays, "_RESIZED", 2)
    images = noise(5, 9, 7)
    together = as_images(images, "images", 6)
    assert together.dtype == np.uint8
    for image, resized in zip(images, together, strict=True):
        np.testing.assert_array_equal(as_images(image[None], "images", 6)[0], resized)


# Paths.


@pytest.fixture
def files(tmp_path):
    """Three PNG files, each of one colour, of different sizes."""
    paths = []
    for number, side in enumerate((8, 5, 70)):
        path = tmp_path / f"{number}.png"
        pixels = np.full((side, side + number, 3), 10 * number + 5, np.uint8)
        path.write_bytes(tf.io.encode_png(pixels).numpy())
        paths.append(path)
    return paths


def colours(count, side):
    values = 10 * np.arange(count) + 5
    return np.ones((count, side, side, 3)) * values[:, None, None, None]


@pytest.mark.parametrize(("size", "side"), [(None, FILES_SIZE), (12, 12)])
@pytest.mark.parametrize("kind", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_paths_are_read_and_resized(files, size, side, kind):
    images = as_images(kind(files), "images", size)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, colours(3, side))
    np.testing.assert_array_equal(as_images(kind([str(f) for f in files]), "images", size), images)


def test_a_path_may_be_relative_or_begin_with_a_tilde(files, monkeypatch):
    folder = files[0].parent
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    paths = ["0.png", Path("1.png"), "~/2.png"]
    np.testing.assert_array_equal(as_images(paths, "images", 4), colours(3, 4))


def test_the_order_is_that_of_the_paths_and_one_may_stand_there_twice(files):
    images = as_images([files[2], files[0], files[2]], "images", 4)
    assert images[:, 0, 0, 0].tolist() == [25, 5, 25]


def test_files_that_cannot_be_read_are_named(files):
    bad = files[0].parent / "bad.png"
    bad.write_bytes(b"no image")
    message = f"unlabelled: 2 of 4 files are unreadable, the first is {bad} ("
    missing = files[0].parent / "none.png"
    refused(message, as_images, [files[0], bad, missing, files[1]], "unlabelled")


@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_alone_is_refused(files, kind):
    refused("mine: ", as_images, kind(files[0]), "mine")
    with pytest.raises(UserError, match=r"or a list of paths, as by sorted\(glob"):
        as_images(kind(files[0]), "mine")


@pytest.mark.parametrize("make", [lambda path: path.glob("*.png"), lambda _: None, lambda _: 3])
def test_what_has_no_length_is_refused(files, make):
    refused("mine: ", as_images, make(files[0].parent), "mine")


# Labels.


def test_labels_by_hand():
    """Classes 2, 5 and 9, ascending; -1 is a row of 0."""
    multi_hot, classes = as_labels([5, -1, 2, 9, 5], 5, "labels")
    assert multi_hot.dtype == np.uint8 and classes.tolist() == [2, 5, 9]
    assert multi_hot.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint32, bool])
def test_labels_of_any_kind_of_integers(dtype):
    multi_hot, classes = as_labels(np.array([1, 0, 1]).astype(dtype), 3, "labels")
    assert multi_hot.tolist() == [[0, 1], [1, 0], [0, 1]] and classes.tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_multi_hot_labels_stay_as_they_are(dtype):
    """A column of 0 is a class all the same, and a row of 0 has no label."""
    given = np.array([[1, 0, 1], [0, 0, 0], [0, 0, 1]]).astype(dtype)
    multi_hot, classes = as_labels(given, 3, "labels")
    assert multi_hot.dtype == np.uint8
    np.testing.assert_array_equal(multi_hot, given)
    assert classes.tolist() == [0, 1, 2]


def test_no_labels_at_all_are_no_classes():
    multi_hot, classes = as_labels([-1, -1], 2, "labels")
    assert multi_hot.shape == (2, 0) and classes.tolist() == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, 2.0], "labels: float64 [3]; allowed: integers [n], -1 where there is no label"),
        (["a", "b", "c"], "labels: <U1 [3]; allowed: integers [n]"),
        ([[[1]], [[0]], [[1]]], "labels: int64 [3, 1, 1]; allowed: integers [n]"),
        (7, "labels: int64 []; allowed: integers [n]"),
        ([0, 1], "labels: 2 of them for 3 images; allowed: one an image"),
        ([[0, 1]] * 4, "labels: 4 of them for 3 images; allowed: one an image"),
        ([0, -2, 1], "labels: -2; allowed: -1, which means none, and above"),
        ([[0, 1], [2, 0], [0, 1]], "labels: multi-hot [n, C] with other values; allowed: 0 and 1"),
        ([[0, 1], [-1, 0], [0, 1]], "labels: multi-hot [n, C] with other values; allowed: 0 and 1"),
    ],
)
def test_other_labels_are_refused(labels, message):
    refused(message, as_labels, labels, 3, "labels")


def test_known_classes_bound_further_labels():
    classes = np.array([2, 5])
    assert as_labels([5, -1], 2, "more", classes)[0].tolist() == [[0, 1], [0, 0]]
    multi_hot = [[1, 1], [0, 1]]
    assert as_labels(multi_hot, 2, "more", np.arange(2))[0].tolist() == multi_hot
    refused("more: class 3; allowed: those of", as_labels, [5, 3], 2, "more", classes)
    refused("more: 3 classes; allowed: 2", as_labels, [[0, 1, 0]], 1, "more", np.arange(2))


# The set.


def test_parts_by_hand():
    """Of six images two have no label; two more are unlabelled, and three are watched."""
    images, unlabelled, watched = noise(6), noise(2, seed=1), noise(3, seed=2)
    labels = [4, -1, 7, 4, -1, 7]
    image_set, splits = learn_from(images, labels, unlabelled, (watched, [7, 7, 4]), seed=3)
    np.testing.assert_array_equal(image_set.images, np.concatenate([images, unlabelled, watched]))
    assert image_set.class_names == ("4", "7") and len(set(image_set.ids)) == 11
    assert splits.labelled.tolist() == [0, 2, 3, 5]
    assert splits.unlabelled.tolist() == [1, 4, 6, 7]
    assert splits.validation.tolist() == [8, 9, 10]
    assert len(splits.query) == len(splits.database) == 0
    assert (splits.protocol, splits.seed) == ("arrays", 3)
    none = [0, 0]
    assert image_set.labels.tolist() == [
        [1, 0], none, [0, 1], [1, 0], none, [0, 1], none, none, [0, 1], [0, 1], [1, 0]
    ]  # fmt: skip
    for part in (splits.query, splits.labelled, splits.unlabelled, splits.validation):
        assert part.dtype == np.int64


def test_without_labels_all_images_are_unlabelled():
    image_set, splits = learn_from()
    assert splits.labelled.tolist() == [] and splits.unlabelled.tolist() == list(range(6))
    assert image_set.labels.shape == (6, 0) and image_set.class_names == ()


def test_multi_hot_labels_make_parts_too():
    labels = np.array([[1, 1], [0, 0], [0, 1]] * 2)
    image_set, splits = learn_from(labels=labels, validation=(noise(1), [[1, 1]]))
    assert splits.labelled.tolist() == [0, 2, 3, 5] and splits.unlabelled.tolist() == [1, 4]
    assert image_set.labels[6].tolist() == [1, 1]


def test_one_set_of_images_is_not_copied():
    images = noise(6)
    assert learn_from(images, range(6))[0].images is images


def test_all_parts_get_the_size_of_the_images(files):
    """That of the first ones, or the one that is asked for; here of arrays and of files."""
    for size, side in ((None, 8), (5, 5)):
        image_set, _ = learn_from(noise(6), range(6), files, (noise(2, 20, 30), [0, 1]), size=size)
        assert image_set.images.shape == (6 + 3 + 2, side, side, 3)
        np.testing.assert_array_equal(image_set.images[6:9], colours(3, side))


def test_input_arrays_stay_as_they_are():
    """They may be read-only; one that is written to would raise."""
    given = {
        "images": noise(6, 9, 9),
        "labels": np.array([0, 1, -1] * 2),
        "unlabelled": noise(2, 4, 5, seed=1),
        "watched": noise(2, seed=2),
        "known": np.array([0, 1]),
    }
    before = {name: array.copy() for name, array in given.items()}
    for array in given.values():
        array.flags.writeable = False
    validation = (given["watched"], given["known"])
    for size in (None, 7):
        learn_from(given["images"], given["labels"], given["unlabelled"], validation, size)
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": noise(0)}, "images: none; at least one image is needed"),
        ({"images": []}, "images: an empty list; allowed: at least one image"),
        ({"labels": [0, 1]}, "labels: 2 of them for 6 images"),
        ({"unlabelled": noise(2) / 255}, "unlabelled: float64 [2, 8, 8, 3]; allowed: uint8"),
        ({"validation": noise(2)}, "validation: allowed: a pair of images and their labels"),
        ({"validation": (noise(2),)}, "validation: allowed: a pair"),
        ({"validation": (noise(2), [0])}, "validation: 1 of them for 2 images"),
        ({"validation": (noise(2), [0, 9])}, "validation: class 9; allowed: those of the images"),
        ({"validation": (noise(2), [0, -1])}, "validation: images without a label; allowed: lab"),
        ({"validation": (noise(1), [[1, 0]])}, "validation: 2 classes; allowed: 3"),
    ],
)
def test_mistakes_are_named(options, message):
    refused(message, learn_from, **{"labels": [0, 1, 2] * 2, **options})


def test_empty_parts_are_as_good_as_none():
    plain = learn_from(labels=[0, 1] * 3)[1]
    empty = learn_from(
        labels=[0, 1] * 3, unlabelled=noise(0), validation=(noise(0), np.empty(0, int))
    )[1]
    for part in ("labelled", "unlabelled", "validation"):
        assert getattr(empty, part).tolist() == getattr(plain, part).tolist()


def fingerprint(pixel=0, label=0, watched=2, unlabelled=2, layout="C"):
    """That of a small set, with one thing about it changed."""
    images = noise(6)
    images[5, 7, 7, 2] ^= pixel
    labels = np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1, label]]
    more = noise(4, seed=1)
    _, splits = learn_from(
        np.asarray(images, order=layout),
        np.asarray(labels, order=layout),
        more[:unlabelled],
        (more[4 - watched :], labels[:watched]),
    )
    return splits.fingerprint


def test_a_fingerprint_follows_from_pixels_labels_and_parts():
    changed = [{}, {"pixel": 1}, {"label": 1}, {"watched": 1}, {"unlabelled": 1}]
    fingerprints = [fingerprint(**options) for options in changed]
    assert len(set(fingerprints)) == len(changed)
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in fingerprints)
    assert fingerprint() == fingerprints[0]


def test_how_arrays_lie_in_memory_does_not_matter():
    assert fingerprint(layout="F") == fingerprint()
    labels = np.array([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1]]).T
    assert learn_from(labels=labels)[1].labelled.tolist() == list(range(6))


def test_a_fingerprint_tells_watched_images_from_those_learned_from():
    """The same four images and labels, of which the last two are watched or not."""
    images, labels = noise(4), [0, 1, 0, 1]
    together = learn_from(images, labels)[1]
    apart = learn_from(images[:2], labels[:2], validation=(images[2:], labels[2:]))[1]
    assert together.fingerprint != apart.fingerprint


def test_a_column_of_classes_is_not_taken_for_multi_hot():
    """Keras' CIFAR-10 has labels [n, 1]; with classes 0 and 1 they would pass as one class."""
    column = np.array([[0], [1], [1], [0]])
    refused("labels: [4, 1]; allowed: integers [n], as by labels", as_labels, column, 4, "labels")


def test_multi_hot_validation_needs_classes_without_gaps():
    """Which column would be class 3, and which 7?"""
    gaps = np.array([3, 7])
    refused("more: multi-hot, beside", as_labels, np.eye(2, dtype=int), 2, "more", gaps)
