"""The elements of a tf.data.Dataset, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfhash.data import images as image_ops
from tfhash.errors import UserError
from tfhash.names import decoded

_SHAPE, _FITS = "tfhash/shape", "tfhash/fits"  # entries beside those of the user
_FIRST = 64  # images that there is room for at first
_ELEMENTS = (
    'elements {"image": uint8 [H, W, 3], "label": integer or "labels": [C], "id": string}, of which'
    " only the image has to be there; from batches come elements by unbatch()"
)


def read(
    dataset: tf.data.Dataset, class_names: Sequence[str], prefix: str, image_size: int, most: int
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """All elements, in their order; see `sources.from_dataset`.

    Returns images uint8 [n, image_size, image_size, 3]; labels uint8 multi-hot [n, C]; ids,
    "PREFIX/000000" and on where the elements have none; notes.
    """
    _check(dataset, len(class_names))
    resized = dataset.map(
        lambda element: {**element, **_resized(element["image"], image_size)},
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    images = np.empty((_FIRST, image_size, image_size, 3), np.uint8)
    labels, ids = [], []
    for number, element in enumerate(resized.as_numpy_iterator()):
        if number == most:
            raise UserError(f"dataset: more than most={most} images; take() fewer, or allow more")
        if not element[_FITS]:
            raise UserError(
                f"dataset: element {number} has an image of shape {element[_SHAPE].tolist()}; "
                "allowed: [H, W, 3]"
            )
        if number == len(images):  # moved by the system, not copied, where there are many
            images.resize((2 * number, *images.shape[1:]), refcheck=False)
        images[number] = element["image"]
        labels.append(_multi_hot(element, class_names, number))
        id_ = _scalar(element, "id", number, f"{prefix}/{number:06d}")
        ids.append(decoded(id_) if isinstance(id_, bytes) else id_)
    if not ids:
        raise UserError("dataset: no elements in it; at least one image is needed")
    if repeated := len(ids) - len(set(ids)):
        raise UserError(f"dataset: {repeated} ids stand there twice; allowed: different ids")
    notes = []
    if without_label := sum(not row.any() for row in labels):
        notes.append(f"{without_label} images without a label")
    if "id" not in dataset.element_spec:
        notes.append("images are named by their number: another order gives another split")
    images.resize((len(ids), *images.shape[1:]), refcheck=False)
    return images, np.stack(labels), tuple(ids), tuple(notes)


def _resized(image: tf.Tensor, size: int) -> dict[str, tf.Tensor]:
    """The image, zeros where it is none; its shape as it was, and whether that is an image's.

    Whoever made the dataset may not know the shape, as of a generator or a py_function.
    """
    shape = tf.shape(image)
    fits = tf.size(image) > 0
    if image.shape.rank is None:
        fits = fits & (tf.rank(image) == 3)
    fits = tf.cond(fits, lambda: shape[-1] == 3, lambda: False)
    pixels = tf.cond(
        fits,
        lambda: image_ops.resize(tf.ensure_shape(image, [None, None, 3]), size),
        lambda: tf.zeros([size, size, 3], tf.uint8),
    )
    return {"image": tf.ensure_shape(pixels, [size, size, 3]), _SHAPE: shape, _FITS: fits}


def _check(dataset: tf.data.Dataset, class_count: int) -> None:
    """Refuses elements of another kind, and a dataset without an end."""
    spec = dataset.element_spec
    # What is not known before an element is there fits here, and is looked at there.
    allowed = {
        "image": lambda s: s.dtype == tf.uint8 and s.shape.is_compatible_with([None, None, 3]),
        "label": lambda s: s.dtype.is_integer and s.shape.is_compatible_with([]),
        "labels": lambda s: s.shape.is_compatible_with([class_count]),
        "id": lambda s: s.dtype == tf.string and s.shape.is_compatible_with([]),
    }
    fits = isinstance(spec, dict) and "image" in spec and not {"label", "labels"} <= set(spec)
    given = {name: spec[name] for name in allowed if name in spec} if fits else {}
    if not given or not all(
        isinstance(one, tf.TensorSpec) and allowed[name](one) for name, one in given.items()
    ):
        raise UserError(
            f"dataset: elements {spec}; allowed with {class_count} class_names: {_ELEMENTS}"
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UserError("dataset: it never ends; allowed: a finite one, so without repeat()")


def _scalar(element: Mapping[str, Any], name: str, number: int, default: Any) -> Any:
    value = element.get(name, default)
    if np.ndim(value):
        raise UserError(
            f"dataset: element {number} has {name} of shape {list(np.shape(value))}; allowed: one "
            "value"
        )
    return value


def _multi_hot(element: Mapping[str, Any], class_names: Sequence[str], number: int) -> np.ndarray:
    """uint8 [C]: the element's "labels", or its "label", of which -1 means that there is none."""
    count = len(class_names)
    if "labels" in element:
        labels = np.asarray(element["labels"])
        if labels.shape != (count,) or not np.isin(labels, (0, 1)).all():
            raise UserError(
                f"dataset: element {number} has labels {labels.tolist()}; allowed: {count} numbers,"
                " each 0 or 1"
            )
        return labels.astype(np.uint8)
    label = int(_scalar(element, "label", number, -1))
    if not -1 <= label < count:
        raise UserError(
            f"dataset: element {number} has label {label}; allowed: -1, which means none, to"
            f" {count - 1}, for class_names are {count}"
        )
    return (np.arange(count) == label).astype(np.uint8)
