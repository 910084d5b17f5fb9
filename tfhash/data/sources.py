"""Data sets as arrays: real images, multi-hot labels, names that never change."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfhash.data import class_names as names_of_classes
from tfhash.data import copies, folder, image_files, mosaics, prepared, table, tf_dataset
from tfhash.data import images as image_ops
from tfhash.data.image_files import Reading
from tfhash.errors import UserError
from tfhash.storage.place import Storage

if TYPE_CHECKING:
    import tensorflow as tf

_SHOWN_CLASSES = 8  # at either end, where there are more
_BATCH = 1000  # mosaics that are made at a time
FILES_SIZE = 64  # px, the default image_size of a user's own images


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with labels, before any split.

    images: uint8 [n, S, S, 3], RGB. labels: uint8 multi-hot [n, C]; an all-zero row has no label.
    class_names: C names. ids: n different strings, the same on every machine. notes: what the
    source has to report (unreadable files, duplicates, images without a label, empty classes),
    a sentence each. triplets: int64 [T, 3], positions of images (query, positive, negative) of
    which a user said that the positive is nearer to the query; None where nobody did. first: int64
    [n], the position of the image that each is a copy of, its own where of none; copies stand in
    one part of a split. None: whatever copies there are, each image stands for itself. of_list: of
    each image train, test or database, for `protocol`=lists; None where nobody listed them. Raises
    ValueError where these do not hold.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    notes: tuple[str, ...] = ()
    triplets: np.ndarray | None = None
    first: np.ndarray | None = None
    of_list: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.ids)
        side = self.images.shape[1] if self.images.ndim == 4 else None
        expected = {"images": (count, side, side, 3), "labels": (count, len(self.class_names))}
        for field, shape in expected.items():
            array = getattr(self, field)
            if array.dtype != np.uint8 or array.shape != shape:
                raise ValueError(
                    f"{self.name}: expected {field} as uint8 {shape}, received {array.dtype}"
                    f" {array.shape}"
                )
        if duplicates := count - len(set(self.ids)):
            raise ValueError(f"{self.name}: ids must be unique, {duplicates} are duplicates")
        if self.labels.max(initial=0) > 1:
            raise ValueError(f"{self.name}: labels must be 0 or 1, received {self.labels.max()}")
        triplets = np.empty((0, 3), int) if self.triplets is None else self.triplets
        if triplets.shape[1:] != (3,) or not np.isin(triplets, range(count)).all():
            raise ValueError(f"{self.name}: triplets must be [T, 3] positions below {count}")
        first = np.arange(count) if self.first is None else self.first
        if first.shape != (count,) or not np.array_equal(first[first], first):
            raise ValueError(f"{self.name}: first must be [{count}] positions of first images")

    def summary(self) -> str:
        """The classes with the numbers of their images, and how many have no label; one line."""
        counts = self.labels.sum(axis=0, dtype=int)
        parts = [f"{name} {count:,}" for name, count in zip(self.class_names, counts, strict=True)]
        if len(parts) > 2 * _SHOWN_CLASSES:
            between = f"..., {counts.min():,} to {counts.max():,} images each"
            parts = [*parts[:_SHOWN_CLASSES], between, *parts[-_SHOWN_CLASSES:]]
        without = int((~self.labels.any(axis=1)).sum())
        classes = f"{len(self.class_names):,} classes ({', '.join(parts)}), " if parts else ""
        return f"{len(self.ids):,} images: {classes}{without:,} without a label"


def names() -> tuple[str, ...]:
    """The data sets that `load` knows."""
    return tuple(_SOURCES)


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int | None = None,
    unreadable: str = image_files.REFUSE,
    max_image_megapixels: int = image_ops.MEGAPIXELS,
    duplicates: str | None = None,
    labels_csv: str | os.PathLike | None = None,
    storage: Storage | None = None,
    lists: bool = False,
) -> ImageSet:
    """The data set `name`, every image resized to image_size x image_size pixels.

    data_dir: where cifar10 (prepared by TFDS; cifar10_mosaics is made of it), the class folders of
    folder, or the files of csv and images are; digits needs none. image_size: None is the data
    set's own default. unreadable: what to do with a file that is not a readable JPEG or PNG,
    "refuse" or "skip". max_image_megapixels: the limit of `images.decode`, for a file. duplicates:
    whether copies of an image stand where the first does ("group"), are left out ("drop"), or stand
    anywhere ("keep"); None: "group" for a user's own files, while the others, which have none, are
    not searched.
    labels_csv: the labels of csv, see table.read_table; without data_dir the images of csv have no
    pixels, and only given descriptors can tell them apart. storage: where the pixels of files are;
    None: in memory. lists: of nus_wide the images of the lists of papers, not of the owners. Raises
    UserError, naming the flag.
    """
    if name not in _SOURCES:
        raise UserError(f"`dataset`={name}: expected one of {', '.join(_SOURCES)}")
    if image_size is not None and image_size < 1:
        raise UserError(f"`image_size`={image_size}: expected at least 1")
    if unreadable not in (image_files.REFUSE, image_files.SKIP):
        raise UserError(f"`unreadable`={unreadable}: expected refuse or skip")
    if labels_csv and name != "csv":
        raise UserError(f"`labels_csv`={labels_csv}: only with `dataset`=csv, received {name}")
    if duplicates not in (None, *copies.CHOICES):
        raise UserError(f"`duplicates`={duplicates}: expected one of {', '.join(copies.CHOICES)}")
    if name == "csv" and not data_dir and duplicates not in (None, copies.KEEP):
        raise UserError(f"`duplicates`={duplicates}: without `data_dir` no images can be compared")
    storage = storage or Storage()
    reading = Reading(image_size or FILES_SIZE, unreadable, max_image_megapixels, storage)
    image_set = _SOURCES[name](
        data_dir=data_dir,
        image_size=image_size,
        reading=reading,
        labels_csv=labels_csv,
        lists=lists,
    )
    if duplicates is None and name in _WITHOUT_COPIES or not image_set.images.size:
        return image_set
    return _with_copies(image_set, duplicates or copies.GROUP)


def own_descriptors(
    name: str, *, data_dir: str | os.PathLike | None = None, lists: bool = False, **_
) -> Path:
    """The file of given descriptors that goes with a data set, as `features_file` has it.

    Arguments: those of `load`. UserError, naming the flag, where there is none.
    """
    if name != "nus_wide":
        raise UserError(
            f"`features_file`: missing; `features`=bow needs it with `dataset`={name}, for of "
            "nus_wide alone are bags of words kept"
        )
    return prepared.nus_wide_words(data_dir, lists)


def _with_copies(image_set: ImageSet, choice: str) -> ImageSet:
    """The images, with notes on those that are there twice, and what `choice` makes of them.

    The pixels of image_set are used up.
    """
    images, labels = image_set.images, image_set.labels
    first = copies.first_of_copies(images, labels)
    notes = (*image_set.notes, *copies.notes_on(first, images, labels, choice))
    kept = np.flatnonzero(first == np.arange(len(first)))
    of_list = image_set.of_list
    if choice == copies.KEEP or len(kept) == len(first):
        return dataclasses.replace(image_set, notes=notes)
    if choice == copies.GROUP:
        return dataclasses.replace(image_set, notes=notes, first=first)
    return dataclasses.replace(
        image_set,
        images=image_files.kept(images, kept),
        labels=labels[kept],
        ids=tuple(image_set.ids[row] for row in kept),
        of_list=None if of_list is None else tuple(of_list[row] for row in kept),
        notes=notes,
    )


def from_dataset(
    dataset: tf.data.Dataset,
    *,
    class_names: Sequence[str] = (),
    name: str = "dataset",
    image_size: int = FILES_SIZE,
    most: int = 100_000,
    duplicates: str = copies.GROUP,
) -> ImageSet:
    """The elements of a finite tf.data.Dataset, held in memory.

    An element is a dict: "image", uint8 [H, W, 3] of any size, RGB; its classes as "label", an
    integer, of which -1 means none, or "labels", multi-hot [C], both absent where nothing is
    labelled; and "id", a string, the same wherever the dataset is made. Without "id" images are
    named by their number, and the split and its fingerprint depend on their order. Other entries
    are passed over. most: the largest number of images that is read. duplicates: as in `load`.
    Raises UserError for other elements, for a dataset that is empty, larger or without an end, for
    ids that repeat, and for a name that `load` knows.
    """
    if name in _SOURCES:
        raise UserError(f"name: {name!r} is taken by `dataset`={name}; allowed: other names")
    if duplicates not in copies.CHOICES:
        raise UserError(f"duplicates: {duplicates!r}; allowed: {', '.join(copies.CHOICES)}")
    images, labels, ids, notes = tf_dataset.read(dataset, class_names, name, image_size, most)
    notes += tuple(names_of_classes.notes(class_names))
    image_set = ImageSet(name, images, labels, tuple(class_names), ids, notes)
    return _with_copies(image_set, duplicates)


def _digits(*, image_size: int | None, **_) -> ImageSet:
    """scikit-learn's 1,797 handwritten digits, 8x8, grey levels 0 to 16."""
    from sklearn import datasets

    digits = datasets.load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    return ImageSet(
        name="digits",
        images=image_ops.resize(rgb, image_size or 16).numpy(),
        labels=np.eye(10, dtype=np.uint8)[digits.target],
        class_names=tuple(str(digit) for digit in range(10)),
        ids=tuple(f"digits/{index:04d}" for index in range(len(rgb))),
    )


def _cifar10(*, data_dir, image_size: int | None, reading: Reading, **_) -> ImageSet:
    """CIFAR-10 from TFDS: see prepared.cifar10."""
    return ImageSet("cifar10", *prepared.cifar10(data_dir, image_size, reading.storage))


def _cifar10_mosaics(*, data_dir, image_size: int | None, reading: Reading, **_) -> ImageSet:
    """60,000 mosaics of four images of CIFAR-10, 64x64, with the labels of all four."""
    of_tiles = _cifar10(data_dir=data_dir, image_size=None, reading=reading)
    image_size = image_size or mosaics.SIDE
    labels = mosaics.label_sets(mosaics.COUNT)
    wanted = mosaics.tile_classes(labels)
    chosen = mosaics.tiles(of_tiles.images, of_tiles.labels.argmax(axis=1), wanted)
    shape = (mosaics.COUNT, image_size, image_size, 3)
    images = reading.storage.empty(shape, np.uint8)
    for start in range(0, mosaics.COUNT, _BATCH):
        rows = slice(start, start + _BATCH)
        mosaic = mosaics.assembled(of_tiles.images[chosen[rows]])
        same = image_size == mosaic.shape[1]
        images[rows] = mosaic if same else image_ops.resize(mosaic, image_size).numpy()
    return ImageSet(
        name=mosaics.NAME,
        images=images,
        labels=labels,
        class_names=of_tiles.class_names,
        ids=tuple(f"{mosaics.NAME}/{index:05d}" for index in range(mosaics.COUNT)),
        notes=(mosaics.PROXY,),
    )


def _nus_wide(*, data_dir, reading: Reading, lists: bool, **_) -> ImageSet:
    """NUS-WIDE as tfhash.prepare_nus_wide has prepared it: see prepared.nus_wide."""
    read = prepared.nus_wide(data_dir, reading.size, reading.storage, lists)
    images, labels, concepts, ids, notes, of_list = read
    return ImageSet(
        "nus_wide", images, labels, concepts, ids, notes, of_list=of_list if lists else None
    )


def _folder(*, data_dir, reading: Reading, **_) -> ImageSet:
    """One subfolder a class: see folder.read."""
    if not data_dir:
        raise UserError("`data_dir`: missing; `dataset`=folder needs a folder of class folders")
    return ImageSet("folder", *folder.read(data_dir, reading))


def _images(*, data_dir, reading: Reading, **_) -> ImageSet:
    """Files without labels: see folder.read_without_labels."""
    if not data_dir:
        raise UserError("`data_dir`: missing; `dataset`=images needs a folder of images")
    read = folder.read_without_labels(data_dir, reading)
    return ImageSet("images", *read)


def _csv(*, data_dir, reading: Reading, labels_csv, **_) -> ImageSet:
    """Files whose labels stand in a CSV, or without data_dir their labels alone: see table."""
    if not labels_csv:
        raise UserError("`labels_csv`: missing; `dataset`=csv needs a CSV of labels")
    if not data_dir:
        return ImageSet("csv", *table.read_without_images(labels_csv))
    read = table.read(data_dir, labels_csv, reading)
    return ImageSet("csv", *read)


_WITHOUT_COPIES = ("digits", "cifar10", mosaics.NAME, "nus_wide")
_SOURCES: dict[str, Callable[..., ImageSet]] = {
    "digits": _digits,
    "cifar10": _cifar10,
    mosaics.NAME: _cifar10_mosaics,
    "nus_wide": _nus_wide,
    "folder": _folder,
    "csv": _csv,
    "images": _images,
}
