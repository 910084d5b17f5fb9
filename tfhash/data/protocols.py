"""Protocols of papers: which images of each class are queries, and which are learned from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tfhash.errors import UserError

if TYPE_CHECKING:
    from tfhash.data.sources import ImageSet

# One random order for each decision, so that changing one number leaves the other parts alone.
QUERY_ORDER, LABELLED_ORDER, CLASS_ORDER, HALVES_ORDER = range(4)


def _per_class(
    image_set: ImageSet,
    seed: int,
    queries_per_class: int | None,
    labelled_per_class: int,
    validation_per_class: int,
) -> dict[str, np.ndarray]:
    """The protocol of SSGAH, DSH-GANs and their peers on CIFAR-10 and NUS-WIDE.

    queries_per_class queries a class; every other image with a label is the database;
    labelled_per_class of it are labelled or validation; the rest of it, and all images without a
    label, are unlabelled. An image with several labels is picked for one of them only.
    """
    if queries_per_class is None:
        raise UserError("`queries_per_class`: all; `protocol`=per_class needs a number from 1 on")
    has_label = np.asarray(image_set.labels.any(axis=1))
    classes = np.arange(len(image_set.class_names))
    needed = queries_per_class + labelled_per_class
    for class_, count in enumerate(image_set.labels.sum(axis=0, dtype=int)):
        if count < needed:
            raise _too_few(image_set, class_, "images", count, needed)

    order = random_order(len(has_label), seed, QUERY_ORDER)
    query = _pick(image_set, classes, order, has_label, queries_per_class).ravel()
    in_database = has_label.copy()
    in_database[query] = False
    order = random_order(len(has_label), seed, LABELLED_ORDER)
    picked = _pick(image_set, classes, order, in_database, labelled_per_class)
    return {
        "query": query,
        "database": np.flatnonzero(in_database),
        "labelled": picked[:, validation_per_class:].ravel(),
        "validation": picked[:, :validation_per_class].ravel(),
        "unlabelled": np.setdiff1d(np.arange(len(has_label)), np.append(query, picked)),
    }


def _unseen_classes(
    image_set: ImageSet,
    seed: int,
    queries_per_class: int | None,
    labelled_per_class: int,
    validation_per_class: int,
) -> dict[str, np.ndarray]:
    """Retrieval of classes that were never learned: SSGAH section 4.5.

    Three quarters of the classes (rounded down: 7 of 10) are seen. The images of the seen classes
    are halved into train75 and test75, those of the others into train25 and test25. Learned from:
    train75. Query: test25, at most queries_per_class a class. Database: train25 + test75. Images
    without a label may show an unseen class, so they are left out. The paper does not say what
    happens to an image with labels of both kinds: here it belongs to the unseen ones, so that
    nothing is learned from an image that shows an unseen class.
    """
    labels = image_set.labels
    class_count = len(image_set.class_names)
    if class_count < 3:  # two are the least to learn a ranking from
        raise UserError(
            f"`protocol`=unseen_classes: expected at least 3 classes, received {class_count}"
        )
    class_order = random_order(class_count, seed, CLASS_ORDER)
    seen, unseen = np.split(class_order, [3 * class_count // 4])
    for class_ in unseen:
        if (count := int(labels[:, class_].sum(dtype=int))) < 2:
            raise _too_few(image_set, class_, "images", count, 2)

    order = random_order(len(labels), seed, HALVES_ORDER)
    shows_unseen = np.asarray(labels[:, unseen].any(axis=1))
    shows_seen_alone = np.asarray(labels[:, seen].any(axis=1) & ~shows_unseen)
    train75, test75 = np.array_split(order[shows_seen_alone[order]], 2)
    train25, test25 = np.array_split(order[shows_unseen[order]], 2)
    in_train75 = np.zeros(len(labels), bool)
    in_train75[train75] = True
    order = random_order(len(labels), seed, LABELLED_ORDER)
    picked = _pick(image_set, seen, order, in_train75, labelled_per_class)
    queries = [test25[labels[test25, class_] == 1][:queries_per_class] for class_ in unseen]
    return {
        "query": np.unique(np.concatenate(queries)),  # one of several unseen classes counts once
        "database": np.concatenate([train25, test75]),
        "labelled": picked[:, validation_per_class:].ravel(),
        "validation": picked[:, :validation_per_class].ravel(),
        "unlabelled": np.setdiff1d(train75, picked),
    }


PROTOCOLS: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "per_class": _per_class,
    "unseen_classes": _unseen_classes,
}


def random_order(count: int, seed: int, decision: int) -> np.ndarray:
    """A random permutation of range(count).

    Sorts raw bits: NumPy promises the stream of a bit generator for ever, that of
    Generator.permutation only until the next release.
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, decision])).random_raw(count)
    return np.argsort(bits, kind="stable")


def _pick(
    image_set: ImageSet, classes: np.ndarray, order: np.ndarray, available: np.ndarray, count: int
) -> np.ndarray:
    """The first `count` available images of each class in `order`, no image twice: [C, count]."""
    available = available.copy()
    picks = np.empty((len(classes), count), np.int64)
    for row, class_ in enumerate(classes):
        candidates = order[available[order] & (image_set.labels[order, class_] == 1)]
        if len(candidates) < count:
            raise _too_few(image_set, class_, "images to pick from", len(candidates), count)
        picks[row] = candidates[:count]
        available[picks[row]] = False
    return picks


def _too_few(image_set: ImageSet, class_: int, what: str, count: int, needed: int) -> UserError:
    return UserError(
        f"{image_set.name}: class {image_set.class_names[class_]!r} has {count} {what}, {needed}"
        " are needed; lower `queries_per_class` or `labelled_per_class`"
        + ("; images that repeat another one do not count" if image_set.first is not None else "")
    )
