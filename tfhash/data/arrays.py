"""Plain arrays, or paths of files, as an ImageSet and its parts: what Python callers give `fit`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfhash import given
from tfhash.data import image_files
from tfhash.data import images as image_ops
from tfhash.data.sources import FILES_SIZE, ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError

_RESIZED = 256  # images at a time
_EMPTY = np.empty(0, np.int64)

Images = np.ndarray | Sequence[str | Path]


def as_images(images: Any, what: str, size: int | None = None) -> np.ndarray:
    """Images of one size: uint8 [n, size, size, 3].

    images: uint8 [n, H, W, 3], RGB, or a list of paths of JPEG and PNG files. size: in px; by
    default the side of square images, and FILES_SIZE of files. what: the argument, for errors.
    Images that have that size already are not copied. UserError for anything else, naming it, and
    for a file that cannot be read.
    """
    if _are_paths(images, what):
        return _read(images, what, size or FILES_SIZE)
    images = _array(images, what)
    if images.shape == (0,):
        raise UserError(f"{what}: an empty list; allowed: at least one image")
    if np.issubdtype(images.dtype, np.floating):
        raise UserError(
            f"{what}: {images.dtype} {list(images.shape)}; allowed: uint8 in 0 to 255; convert "
            "them, as by np.uint8(np.rint(images * 255)) where they are in 0 to 1"
        )
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(
            f"{what}: {images.dtype} {list(images.shape)}; allowed: uint8 [n, height, width, 3], "
            f"RGB, or a list of paths{_remedy(images)}"
        )
    height, width = images.shape[1:3]
    if not (height and width):
        raise UserError(f"{what}: {height} x {width} px; allowed: at least 1 x 1")
    if size is None:
        if height != width:
            raise UserError(
                f"{what}: {height} x {width} px; allowed: square ones, or give image_size, the "
                "side that they are resized to"
            )
        return images
    if (height, width) == (size, size):
        return images
    resized = np.empty((len(images), size, size, 3), np.uint8)
    for start in range(0, len(images), _RESIZED):
        part = slice(start, start + _RESIZED)
        resized[part] = image_ops.resize(images[part], size)
    return resized


def _array(value: Any, what: str) -> np.ndarray:
    try:
        return given.array(value, what)
    except ValueError as error:
        raise UserError(str(error)) from None


def _remedy(images: np.ndarray) -> str:
    """What makes images of an array that is close to some."""
    shape = images.shape
    if images.dtype.kind not in "iu":
        return ""
    if images.ndim == 3 and shape[2] == 3:
        return "; of one image, give images[None]"
    if images.ndim == 3:
        return "; of grey ones, give np.repeat(images[..., None], 3, axis=-1)"
    if images.ndim == 4 and shape[3] == 1:
        return "; of grey ones, give np.repeat(images, 3, axis=-1)"
    if images.ndim == 4 and shape[3] == 4:
        return "; of RGBA, give images[..., :3]"
    if images.ndim == 4 and shape[1] == 3 != shape[3]:
        return "; of channels first, give images.transpose(0, 2, 3, 1)"
    if images.ndim == 4 and shape[3] == 3:
        return "; of values in 0 to 255, give images.astype(np.uint8)"
    return ""


def _are_paths(images: Any, what: str) -> bool:
    if isinstance(images, str | os.PathLike) or not hasattr(images, "__len__"):
        raise UserError(
            f"{what}: {images!r}; allowed: uint8 [n, height, width, 3], or a list of paths, as by "
            "sorted(glob(...))"
        )
    if isinstance(images, np.ndarray) and (images.dtype.kind not in "UO" or images.ndim != 1):
        return False
    return len(images) > 0 and all(isinstance(one, str | os.PathLike) for one in images)


def _read(paths: Sequence[Any], what: str, size: int) -> np.ndarray:
    absolute = [str(Path(os.fspath(path)).expanduser().absolute()) for path in paths]
    pixels = np.empty((len(absolute), size, size, 3), np.uint8)
    reasons = image_files.fill(pixels, Path("/"), absolute).reasons
    if reasons:
        first, reason = next(iter(reasons.items()))
        raise UserError(
            f"{what}: {len(reasons)} of {len(absolute)} files are unreadable, the first is {first} "
            f"({reason}); leave them out"
        )
    return pixels


def as_labels(
    labels: Any, count: int, what: str, classes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels as multi-hot uint8 [n, C], and what the C classes are called.

    labels: integers [n], -1 where there is none; or multi-hot [n, C] of 0 and 1, a row of 0 where
    there is none. count: n, as many as images. classes: those that are known; by default the
    integers that occur, ascending. UserError for anything else, naming `what`.
    """
    labels = _array(labels, what)
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
        remedy = {
            "f": "; of whole numbers, give labels.astype(int)",
            "U": "; of names, give np.unique(labels, return_inverse=True)[1]",
        }.get(labels.dtype.kind, "")
        raise UserError(
            f"{what}: {labels.dtype} {list(labels.shape)}; allowed: integers [n], -1 where there "
            f"is no label, or multi-hot [n, C]{remedy}"
        )
    if len(labels) != count:
        raise UserError(f"{what}: {len(labels)} of them for {count} images; allowed: one an image")
    if labels.ndim == 2:
        if labels.shape[1] == 1:  # a column of classes, as some data sets have it, or one class?
            raise UserError(
                f"{what}: [{count}, 1]; allowed: integers [n], as by labels[:, 0], or multi-hot "
                "[n, C] of two classes and more"
            )
        if classes is not None and not np.array_equal(classes, np.arange(len(classes))):
            raise UserError(
                f"{what}: multi-hot, beside labels that are integers with gaps; allowed: integers"
            )
        if not np.isin(labels, (0, 1)).all():
            raise UserError(f"{what}: multi-hot [n, C] with other values; allowed: 0 and 1")
        found = np.arange(labels.shape[1])
        multi_hot = labels.astype(np.uint8)
    else:
        if labels.min(initial=0) < -1:
            raise UserError(f"{what}: {labels.min()}; allowed: -1, which means none, and above")
        found = np.unique(labels[labels >= 0])
        found = found if classes is None else classes
        multi_hot = (labels[:, None] == found).astype(np.uint8)
        if unknown := np.setdiff1d(labels[labels >= 0], found).tolist():
            raise UserError(
                f"{what}: class {unknown[0]}; allowed: those of the images learned from"
            )
    if classes is not None and multi_hot.shape[1] != len(classes):
        raise UserError(f"{what}: {multi_hot.shape[1]} classes; allowed: {len(classes)}, as labels")
    return multi_hot, found


def learning_set(
    images: Images,
    labels: Any,
    unlabelled: Images | None,
    validation: tuple[Images, Any] | None,
    *,
    image_size: int | None,
    seed: int,
) -> tuple[ImageSet, RetrievalSplits]:
    """What a method learns from, of plain arrays: see `Hasher.fit`.

    Images without a label are the unlabelled part; there are neither queries nor a database. The
    fingerprint follows from every pixel, label and part.
    """
    parts = [as_images(images, "images", image_size)]
    size, count = parts[0].shape[1], len(parts[0])
    if not count:
        raise UserError("images: none; at least one image is needed")
    multi_hot, classes = as_labels(
        np.full(count, -1) if labels is None else labels, count, "labels"
    )
    of_parts = [multi_hot]
    if unlabelled is not None:
        parts.append(as_images(unlabelled, "unlabelled", size))
        of_parts.append(np.zeros((len(parts[-1]), len(classes)), np.uint8))
    learned_from = sum(map(len, parts))
    if validation is not None:
        watched, of_watched = _validation(validation, size, classes)
        parts.append(watched)
        of_parts.append(of_watched)
    everything = parts[0] if len(parts) == 1 else np.concatenate(parts)
    every_label = np.concatenate(of_parts)
    labelled = every_label[:learned_from].any(axis=1)
    image_set = ImageSet(
        name="arrays",
        images=everything,
        labels=every_label,
        class_names=tuple(map(str, classes.tolist())),
        ids=tuple(f"arrays/{row:07d}" for row in range(len(everything))),
    )
    return image_set, RetrievalSplits(
        protocol="arrays",
        seed=seed,
        query=_EMPTY,
        database=_EMPTY,
        labelled=np.flatnonzero(labelled),
        validation=np.arange(learned_from, len(everything)),
        unlabelled=np.flatnonzero(~labelled),
        fingerprint=_fingerprint(everything, every_label, learned_from),
    )


def _validation(validation: Any, size: int, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images and multi-hot labels that are watched."""
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise UserError("validation: allowed: a pair of images and their labels")
    images = as_images(validation[0], "validation", size)
    labels, _ = as_labels(validation[1], len(images), "validation", classes)
    if not labels.any(axis=1).all():
        raise UserError("validation: images without a label; allowed: labelled ones alone")
    return images, labels


def _fingerprint(images: np.ndarray, labels: np.ndarray, learned_from: int) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    digest.update(f"{images.shape} {labels.shape} {learned_from}".encode())
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()[:16]
