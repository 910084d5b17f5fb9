"""CIFAR-10 as TFDS has prepared it, as arrays, in memory or on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfhash.data import images as image_ops
from tfhash.errors import UserError
from tfhash.names import encoded
from tfhash.storage import rows as stored
from tfhash.storage.place import Storage

SPLITS = ("train", "test")
CLASSES = 10
_SIDE = 32
_READ_BATCH = 1000


def read(
    data_dir: str | os.PathLike | None, image_size: int | None, storage: Storage
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Train and test together, 60,000 images 32x32, sorted by id; never downloads.

    Returns images uint8 [n, image_size, image_size, 3], by default as they are; labels uint8
    one-hot [n, 10]; class names; ids. UserError where nothing is prepared in data_dir.
    """
    import tensorflow_datasets as tfds

    size = image_size or _SIDE
    builder = tfds.builder("cifar10", data_dir=os.fspath(data_dir)) if data_dir else None
    if builder is None or not builder.is_prepared():
        raise UserError(
            f"`data_dir`={data_dir or ''}: no prepared cifar10 there; prepare it once with"
            " python -c 'import tensorflow_datasets as tfds;"
            """ tfds.load("cifar10", data_dir="DIR")' and give `data_dir`=DIR"""
        )
    ids, targets = [], []
    for batch in tfds.as_numpy(_records(builder, image=tfds.decode.SkipDecoding())):
        ids += [f"cifar10/{id_.decode()}" for id_ in batch["id"]]
        targets += batch["label"].tolist()
    # By id: the order in the files depends on who prepared them.
    order = np.argsort(ids)
    on_disk = storage.on_disk(len(ids) * size * size * 3)
    pixels = _on_disk(builder, size, order, storage) if on_disk else None
    if pixels is None:
        place = np.argsort(order)
        pixels = np.empty((len(ids), size, size, 3), np.uint8)
        start = 0
        for batch in _resized(builder, size):
            pixels[place[start : start + len(batch)]] = batch
            start += len(batch)
    return (
        pixels,
        np.eye(CLASSES, dtype=np.uint8)[np.array(targets)[order]],
        tuple(builder.info.features["label"].names),
        tuple(ids[row] for row in order),
    )


def _records(builder: Any, skipped: int = 0, **decoders: Any) -> tf.data.Dataset:
    """All after the first `skipped`, in batches, in the order of the files."""
    split = "+".join(SPLITS)
    dataset = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders)
    return dataset.skip(skipped).batch(_READ_BATCH)


def _resized(builder: Any, size: int, skipped: int = 0) -> Any:
    """The images of `_records`: uint8 [b, size, size, 3] each."""
    batches = _records(builder, skipped).map(
        lambda batch: image_ops.resize(batch["image"], size), num_parallel_calls=os.cpu_count()
    )
    return batches.as_numpy_iterator()


def _on_disk(builder: Any, size: int, order: np.ndarray, storage: Storage) -> np.ndarray:
    """The images [order], in a file beside one that has them in the order of TFDS."""
    assert storage.folder is not None
    kind = f"cifar10 {SPLITS} {tf.__version__} {size} {os.path.realpath(builder.data_dir)}"
    digest = hashlib.sha256(encoded(kind))
    for path in sorted(Path(builder.data_dir).iterdir()):
        status = path.stat()
        name = f"\0{path.name} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        digest.update(encoded(name))
    batches: Any = None

    def make(start: int, stop: int) -> tuple[np.ndarray, dict[str, Any]]:
        nonlocal batches
        batches = batches or _resized(builder, size, skipped=start)
        return next(batches), {}

    folder = storage.folder / "images" / digest.hexdigest()[:32]
    print(f"images are decoded once, and read from {folder} then", flush=True)
    shape = (size, size, 3)
    found = stored.kept(folder, len(order), shape, np.uint8, make, _READ_BATCH)
    assert isinstance(found.array, np.memmap)
    return stored.some_of(found.array, order)
