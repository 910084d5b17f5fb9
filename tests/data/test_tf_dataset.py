"""sources.from_dataset: elements by hand, and each kind that it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfhash.data import images as image_ops
from tfhash.data import sources
from tfhash.errors import UserError

PIXELS = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)
LABELLED = {"image": PIXELS, "label": [1, -1, 0]}


def dataset(**changes) -> tf.data.Dataset:
    elements = LABELLED | changes
    return tf.data.Dataset.from_tensor_slices(
        {name: value for name, value in elements.items() if value is not None}
    )


def read(elements: tf.data.Dataset, **arguments) -> sources.ImageSet:
    defaults = {"class_names": ["cat", "dog"], "name": "mine", "image_size": 4}
    return sources.from_dataset(elements, **defaults | arguments)


def test_labels_ids_and_pixels():
    result = read(dataset(id=["x", "y", "z"], other=[1, 2, 3]))
    assert (result.name, result.class_names, result.ids) == ("mine", ("cat", "dog"), tuple("xyz"))
    assert result.labels.tolist() == [[0, 1], [0, 0], [1, 0]] and result.labels.dtype == np.uint8
    np.testing.assert_array_equal(result.images, image_ops.resize(PIXELS, 4))
    assert result.notes == ("1 images without a label",)


def test_any_number_of_images_keep_their_places():
    """There is room for 64 at first, then for twice as many again and again."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), np.uint8)
    result = read(dataset(image=pixels, label=[0] * 300))
    np.testing.assert_array_equal(result.images, pixels)


def test_without_ids_images_are_numbered_and_that_is_said():
    result = read(dataset())
    assert result.ids == ("mine/000000", "mine/000001", "mine/000002")
    assert "another order gives another split" in result.notes[1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_several_labels(dtype):
    labels = np.array([[1, 1], [0, 0], [0, 1]], dtype)
    assert read(dataset(label=None, labels=labels)).labels.tolist() == labels.tolist()


def test_nothing_labelled():
    assert read(dataset(label=None)).labels.tolist() == [[0, 0]] * 3
    assert read(dataset(label=None), class_names=()).labels.shape == (3, 0)


def test_images_of_different_sizes_of_a_generator():
    """A dataset that knows neither its length nor the sizes."""
    sizes = [(3, 9), (4, 4), (7, 2)]
    spec = {"image": tf.TensorSpec([None, None, 3], tf.uint8)}
    images = [np.full((*size, 3), value, np.uint8) for value, size in enumerate(sizes)]
    generator = tf.data.Dataset.from_generator(
        lambda: ({"image": image} for image in images), output_signature=spec
    )
    result = read(generator)
    np.testing.assert_array_equal(
        result.images, np.broadcast_to(np.arange(3)[:, None, None, None], (3, 4, 4, 3))
    )


def unknown(images=PIXELS, labels=(1, -1, 0), ids=("x", "y", b"\xff")) -> tf.data.Dataset:
    """A generator of which only the dtypes are known, no shape."""
    spec = {
        "image": tf.TensorSpec(None, tf.uint8),
        "label": tf.TensorSpec(None, tf.int64),
        "id": tf.TensorSpec(None, tf.string),
    }
    elements = [dict(zip(spec, of, strict=True)) for of in zip(images, labels, ids, strict=True)]
    return tf.data.Dataset.from_generator(lambda: iter(elements), output_signature=spec)


def test_shapes_that_are_only_unknown_before_are_no_mistake():
    result = read(unknown())
    np.testing.assert_array_equal(result.images, image_ops.resize(PIXELS, 4))
    assert result.labels.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert result.ids == ("x", "y", "\udcff")


def test_sides_of_another_image_than_the_first_are_no_mistake():
    """Static shape [None, 5, 3], and the size that is asked for comes back as it was."""
    ragged = dataset().map(lambda e: {**e, "image": tf.ensure_shape(e["image"], [None, 5, 3])})
    assert read(ragged, image_size=5).images.shape == (3, 5, 5, 3)


REFUSED = {
    "grey, unknown": (
        unknown(images=[PIXELS[0], PIXELS[1, ..., 0], PIXELS[2]]),
        "element 1 has an image of shape [4, 5]; allowed: [H, W, 3]",
    ),
    "RGBA, unknown": (unknown(images=np.zeros((3, 4, 5, 4), np.uint8)), "shape [4, 5, 4]"),
    "no pixels": (unknown(images=np.zeros((3, 0, 5, 3), np.uint8)), "shape [0, 5, 3]"),
    "scalar, unknown": (unknown(images=np.zeros(3, np.uint8)), "shape []"),
    "no pixels, known": (dataset(image=np.zeros((3, 4, 0, 3), np.uint8)), "shape [4, 0, 3]"),
    "column, unknown": (unknown(labels=[[1], [0], [1]]), "element 0 has label of shape [1]"),
    "ids, unknown": (unknown(ids=[["x"], ["y"], ["z"]]), "element 0 has id of shape [1]"),
    "no dict": (dataset().map(lambda e: (e["image"], e["label"])), "allowed with 2 class_names"),
    "no image": (dataset(image=None), "allowed with 2 class_names"),
    "grey": (dataset(image=PIXELS[..., :1]), "allowed with 2 class_names"),
    "float": (dataset(image=PIXELS / 255), "allowed with 2 class_names"),
    "batch": (dataset().batch(2), "unbatch()"),
    "both": (dataset(labels=[[1, 0]] * 3), "allowed with 2 class_names"),
    "name as label": (dataset(label=["dog", "cat", "dog"]), "allowed with 2 class_names"),
    "three columns": (dataset(label=None, labels=[[1, 0, 0]] * 3), "allowed with 2 class_names"),
    "number as id": (dataset(id=[1, 2, 3]), "allowed with 2 class_names"),
    "nested": (
        dataset().map(lambda e: {"image": {"left": e["image"]}}), "allowed with 2 class_names"
    ),
    "label 2": (dataset(label=[1, 2, 0]), "label 2; allowed: -1, which means none, to 1"),
    "label -2": (dataset(label=[-2, 1, 0]), "element 0 has label -2"),
    "labels of 2": (
        dataset(label=None, labels=[[1, 0], [0, 2], [0, 0]]), "element 1 has labels [0, 2]"
    ),
    "endless": (dataset().repeat(), "it never ends"),
    "empty": (dataset().take(0), "no elements in it"),
    "ids": (dataset(id=["x", "y", "x"]), "1 ids stand there twice"),
}  # fmt: skip


@pytest.mark.parametrize(("elements", "words"), REFUSED.values(), ids=REFUSED)
def test_other_elements_are_refused_in_one_line(elements, words):
    with pytest.raises(UserError) as refused:
        read(elements)
    message = str(refused.value)
    assert message.startswith("dataset: ") and words in message and "\n" not in message


def test_no_more_than_most_are_read():
    """Also of a dataset whose length is unknown, such as one that filters an endless one."""
    assert len(read(dataset(), most=3).ids) == 3
    with pytest.raises(UserError, match="more than most=2 images"):
        read(dataset(), most=2)
    endless = dataset().repeat().filter(lambda element: element["label"] >= 0)
    with pytest.raises(UserError, match="more than most=10 images"):
        read(endless, most=10)


def test_a_name_of_the_library_is_refused():
    with pytest.raises(UserError, match="name: 'digits' is taken"):
        read(dataset(), name="digits")


def test_copies_are_grouped_or_left_out_and_told():
    """The third image is the first one again, under another label."""
    twice = PIXELS[[0, 1, 0]]
    grouped = read(dataset(image=twice, id=["x", "y", "z"]))
    assert grouped.first.tolist() == [0, 1, 0]
    assert grouped.notes[1].startswith("1 images repeat another one; ")
    assert grouped.notes[2] == "1 of them have other labels than the image that they repeat"
    assert read(dataset(image=twice), duplicates="drop").images.shape == (2, 4, 4, 3)
    assert read(dataset(image=twice), duplicates="keep").first is None
    with pytest.raises(UserError, match="duplicates: 'all'; allowed: group, drop, keep"):
        read(dataset(), duplicates="all")


def test_classes_that_are_one_to_a_reader_are_told():
    notes = read(dataset(id=["x", "y", "z"]), class_names=["Cat", "cat"]).notes
    assert "Cat, cat differ in case or composition alone, yet are classes of their own" in notes
