"""A folder of images with one subfolder a class, as arrays."""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from tfhash.data import images as image_ops
from tfhash.errors import UserError

UNLABELLED = ("unlabelled", "unlabeled")

_PROGRESS_EVERY = 5000


def read(
    data_dir: str | os.PathLike, image_size: int, unreadable: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Every image below data_dir: data_dir/CLASS/**/FILE, and data_dir/unlabelled/**/FILE.

    JPEG and PNG are told by content; hidden files are ignored. Returns, sorted by id,
    images uint8 [n, image_size, image_size, 3]; labels uint8 one-hot [n, C], all zero for the
    unlabelled; class names (C, without empty classes); ids ("CLASS/.../FILE"); notes.
    Raises UserError for a missing data_dir, for fewer than two classes with images, and, where
    unreadable="refuse", for any file that is not a readable image ("skip" leaves them out).
    """
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"--data_dir={data_dir}: expected a folder with one subfolder a class")
    folders, files = _list_files(root)
    ids = [file for file in files if "/" in file]
    _class_names(root, ids)  # refuses before hours of reading, not after
    pixels, ids, notes = _read_files(root, ids, image_size, unreadable)
    class_names = _class_names(root, ids)
    class_of_image = np.array([_top_folder(id_) for id_ in ids])
    labels = (class_of_image[:, None] == np.array(class_names)).astype(np.uint8)

    if empty := sorted(folders - {*class_names, *UNLABELLED}):
        notes.append(f"{len(empty)} class folders without images: {', '.join(empty)}")
    if outside := sum("/" not in file for file in files):
        notes.append(f"{outside} files outside the class folders ignored")
    if without_label := len(ids) - int(labels.sum()):
        notes.append(f"{without_label} images without a label")
    return pixels, labels, class_names, tuple(ids), tuple(notes)


def _list_files(root: Path) -> tuple[set[str], list[str]]:
    """Names of root's subfolders, and all files below root as sorted relative paths with "/"."""
    folders = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
    files = []
    for parent, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if name[0] != "."]
        paths = (Path(parent, name) for name in names if name[0] != ".")
        files += [path.relative_to(root).as_posix() for path in paths]
    return folders, sorted(files)


def _top_folder(id_: str) -> str:
    return id_.split("/", 1)[0]


def _class_names(root: Path, ids: list[str]) -> tuple[str, ...]:
    names = tuple(sorted({_top_folder(id_) for id_ in ids} - set(UNLABELLED)))
    if len(names) < 2:
        raise UserError(
            f"--data_dir={root}: folder with {'one class' if names else 'no class'}; expected at"
            " least two subfolders with images"
        )
    return names


def _read_files(
    root: Path, ids: list[str], image_size: int, unreadable: str
) -> tuple[np.ndarray, list[str], list[str]]:
    """Pixels and ids of the readable files among `ids`, and notes."""
    pixels = np.empty((len(ids), image_size, image_size, 3), np.uint8)
    digests, reasons = _fill(pixels, root, ids)
    if reasons and unreadable == "refuse":
        first, reason = next(iter(reasons.items()))
        raise UserError(
            f"--data_dir={root}: {len(reasons)} of {len(ids)} files are unreadable, the first is"
            f" {first} ({reason}); remove them or choose --unreadable=skip"
        )
    notes = []
    if reasons:
        for id_, reason in reasons.items():
            logging.warning("skipped %s: %s", root / id_, reason)
        notes.append(f"{len(reasons)} unreadable files skipped")
        rows = [row for row, id_ in enumerate(ids) if id_ not in reasons]
        for target, source in enumerate(rows):  # in place: a second copy may not fit in memory
            pixels[target] = pixels[source]
        pixels, ids = pixels[: len(rows)], [ids[row] for row in rows]
    if repeated := len(digests) - len(set(digests)):
        notes.append(f"{repeated} images repeat the bytes of another image")
    return pixels, ids, notes


def _fill(pixels: np.ndarray, root: Path, ids: list[str]) -> tuple[list[bytes], dict[str, str]]:
    """Decodes and resizes each file into its row of `pixels`, uint8 [n, size, size, 3].

    Returns the digests of the files that could be read, and for each other id the reason.
    """
    size = pixels.shape[1]

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])  # three times as fast as eagerly
    def decode_and_resize(image_bytes: tf.Tensor) -> tf.Tensor:
        return image_ops.resize(image_ops.decode(image_bytes), size)

    def fill_row(row: int) -> tuple[bytes, str]:
        try:
            image_bytes = (root / ids[row]).read_bytes()
            pixels[row] = decode_and_resize(image_bytes).numpy()
        except (OSError, tf.errors.InvalidArgumentError) as error:
            return b"", _one_line(error)
        return hashlib.sha256(image_bytes).digest(), ""

    digests, reasons = [], {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for row, (digest, reason) in enumerate(threads.map(fill_row, range(len(ids)))):
            if reason:
                reasons[ids[row]] = reason
            else:
                digests.append(digest)
            if (row + 1) % _PROGRESS_EVERY == 0:
                logging.info("read %d of %d files of %s", row + 1, len(ids), root)
    return digests, reasons


def _one_line(error: Exception) -> str:
    """The reason alone: TensorFlow puts a traceback before it and the name of the node after it."""
    reason = str(error).split("\n\t [[")[0].splitlines()[-1]
    return re.sub(r"\{\{.*?\}\} ?|assertion failed: ", "", reason)
