"""Data sets that TFDS has prepared, as arrays, in memory or on disk; nothing is downloaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfhash.data import images as image_ops
from tfhash.errors import UserError
from tfhash.names import encoded
from tfhash.storage import rows as stored
from tfhash.storage.place import Storage

CIFAR10_SPLITS = ("train", "test")
_READ_BATCH = 1000


def cifar10(
    data_dir: str | os.PathLike | None, image_size: int | None, storage: Storage
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Train and test of CIFAR-10 together, 60,000 images 32x32, sorted by id.

    Returns images uint8 [n, image_size, image_size, 3], by default as they are; labels uint8
    one-hot [n, 10]; class names; ids. UserError where nothing is prepared in data_dir.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder("cifar10", data_dir=os.fspath(data_dir)) if data_dir else None
    if builder is None or not builder.is_prepared():
        raise UserError(
            f"`data_dir`={data_dir or ''}: no prepared cifar10 there; prepare it once with"
            " python -c 'import tensorflow_datasets as tfds;"
            """ tfds.load("cifar10", data_dir="DIR")' and give `data_dir`=DIR"""
        )
    read = Prepared(builder, CIFAR10_SPLITS, image_size or 32)
    ids, targets = [], []
    for batch in read.without_images():
        ids += [f"cifar10/{id_.decode()}" for id_ in batch["id"].numpy()]
        targets += batch["label"].numpy().tolist()
    # By id: the order in the files depends on who prepared them.
    order = np.argsort(ids)
    label = builder.info.features["label"]
    return (
        read.pixels(order, storage),
        np.eye(label.num_classes, dtype=np.uint8)[np.array(targets)[order]],
        tuple(label.names),
        tuple(ids[row] for row in order),
    )


def nus_wide(
    data_dir: str | os.PathLike | None, image_size: int, storage: Storage, lists: bool
) -> tuple[
    np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]
]:
    """NUS-WIDE as `nus_wide.builder` has prepared it, sorted by id.

    lists: that of the lists, else that of the owners. Returns images uint8 [n, S, S, 3]; labels
    uint8 multi-hot [n, 21]; the names of the concepts; ids; notes on what is lost or unreadable;
    and the list of each image. UserError where nothing is prepared in data_dir.
    """
    from tfhash.data.nus_wide import listed

    builder = _nus_wide_builder(data_dir, lists)
    parts = sorted(builder.info.splits)
    read = Prepared(builder, parts, image_size)
    metadata = builder.info.metadata
    place = {name: number for number, name in enumerate(metadata["concepts"])}
    ids, of_images = [], []
    for batch in read.without_images():
        ids += [id_.decode() for id_ in batch["id"].numpy()]
        of_images += [[place[name.decode()] for name in own] for own in batch["concepts"].to_list()]
    of_lists = np.repeat(parts, [builder.info.splits[part].num_examples for part in parts])
    order = np.argsort(ids)
    labels = np.zeros((len(ids), len(place)), np.uint8)
    for row, own in enumerate(of_images):
        labels[row, own] = 1
    notes = [f"{len(ids):,} images: {listed.variant(len(ids))}"] if not lists else []
    for what in ("lost", "unreadable"):
        if count := len(metadata[what]):
            notes.append(f"{count:,} images that are listed are {what}")
    return (
        read.pixels(order, storage),
        labels[order],
        tuple(place),
        tuple(ids[row] for row in order),
        tuple(notes),
        tuple(of_lists[order].tolist()),
    )


def nus_wide_words(data_dir: str | os.PathLike | None, lists: bool) -> Path:
    """The file of the owners' bags of words that `prepare_nus_wide --bow` kept.

    lists: as `nus_wide` has it. UserError where none was kept, or nothing is prepared in data_dir.
    """
    from tfhash.data.nus_wide import words

    builder = _nus_wide_builder(data_dir, lists)
    path = words.place(builder)
    if not path.is_file():
        raise UserError(
            f"`features`=bow: no bags of words with {builder.data_dir}; keep the owners' once with "
            f"python -m tfhash.prepare_nus_wide --source=FOLDER --data_dir={data_dir} "
            f"--config={builder.builder_config.name} --bow=BoW_int.dat, or give `features_file`"
        )
    return path


def _nus_wide_builder(data_dir: str | os.PathLike | None, lists: bool) -> Any:
    """The builder of what was prepared in data_dir. UserError where nothing was."""
    from tfhash.data.nus_wide.builder import NusWide

    config = "lists" if lists else "owners"
    builder = NusWide(config=config, data_dir=os.fspath(data_dir)) if data_dir else None
    if builder is None or not builder.is_prepared():
        raise UserError(
            f"`data_dir`={data_dir or ''}: no prepared nus_wide/{config} there; prepare it once "
            f"with python -m tfhash.prepare_nus_wide --source=FOLDER --data_dir=DIR "
            f"--config={config} and give `data_dir`=DIR"
        )
    return builder


def ids_of(builder: Any) -> list[str]:
    """The ids of all that a builder has prepared, sorted."""
    batches = Prepared(builder, sorted(builder.info.splits), 1).without_images()
    return sorted(id_.decode() for batch in batches for id_ in batch["id"].numpy())


class Prepared:
    """The records of a builder's splits, one split after the other, in the order of its files.

    size: the side in px that images are resized to.
    """

    def __init__(self, builder: Any, splits: Sequence[str], size: int):
        self.builder, self.size = builder, size
        self.splits = tuple(splits)

    def _records(self, **decoders: Any) -> tf.data.Dataset:
        return self.builder.as_dataset(
            split="+".join(self.splits), shuffle_files=False, decoders=decoders
        )

    def without_images(self) -> Iterator[dict[str, Any]]:
        """What else a record holds, in batches; no image is decoded."""
        import tensorflow_datasets as tfds

        records = self._records(image=tfds.decode.SkipDecoding())
        others = records.map(lambda record: {k: v for k, v in record.items() if k != "image"})
        return iter(others.ragged_batch(_READ_BATCH))

    def _resized(self, skipped: int = 0) -> Iterator[np.ndarray]:
        """The images after the first ones: uint8 [b, size, size, 3] each."""
        images = (
            self._records()
            .skip(skipped)
            .map(
                lambda record: image_ops.resize(record["image"], self.size),
                num_parallel_calls=os.cpu_count(),
            )
        )
        return images.batch(_READ_BATCH).as_numpy_iterator()

    def pixels(self, order: np.ndarray, storage: Storage) -> np.ndarray:
        """The images in this order of them, uint8 [n, size, size, 3]."""
        shape = (len(order), self.size, self.size, 3)
        if storage.on_disk(int(np.prod(shape))):
            return self._on_disk(order, storage)
        place, pixels, start = np.argsort(order), np.empty(shape, np.uint8), 0
        for batch in self._resized():
            pixels[place[start : start + len(batch)]] = batch
            start += len(batch)
        return pixels

    def _on_disk(self, order: np.ndarray, storage: Storage) -> np.ndarray:
        """The images [order], in a file beside one that has them in the order of TFDS."""
        assert storage.folder is not None
        builder, size = self.builder, self.size
        name = f"{builder.info.full_name} {self.splits} {tf.__version__} {size}"
        digest = hashlib.sha256(encoded(f"{name} {os.path.realpath(builder.data_dir)}"))
        for path in sorted(Path(builder.data_dir).iterdir()):
            status = path.stat()
            times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
            digest.update(encoded(f"\0{path.name} {times}"))
        batches: Any = None
        next_start = 0

        def make(start: int, stop: int) -> tuple[np.ndarray, dict[str, Any]]:
            nonlocal batches, next_start
            if batches is None or start != next_start:  # a part that is mended may stand anywhere
                batches = self._resized(skipped=start)
            next_start = stop
            return next(batches), {}

        folder = storage.folder / "images" / digest.hexdigest()[:32]
        print(f"images are decoded once, and read from {folder} then", flush=True)
        found = stored.kept(folder, len(order), (size, size, 3), np.uint8, make, _READ_BATCH)
        assert isinstance(found.array, np.memmap)
        return stored.some_of(found.array, order)
