"""Files of images below a folder, as arrays."""

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

_PROGRESS_EVERY = 5000


def folder(data_dir: str | os.PathLike, content: str) -> Path:
    """data_dir as a path. UserError, naming the content that is expected, where it is no folder."""
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"`data_dir`={data_dir}: expected a folder {content}")
    return root


def list_below(root: Path) -> list[str]:
    """All files below root as sorted relative paths with "/"; hidden ones are left out."""
    files = []
    for parent, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if name[0] != "."]
        paths = (Path(parent, name) for name in names if name[0] != ".")
        files += [path.relative_to(root).as_posix() for path in paths]
    return sorted(files)


def images_below(root: Path) -> list[str]:
    """`list_below` without the .csv files, which may stand beside the images that they speak of."""
    return [file for file in list_below(root) if not file.lower().endswith(".csv")]


def read(
    root: Path, ids: list[str], image_size: int, unreadable: str
) -> tuple[np.ndarray, list[str], list[str]]:
    """The images root/ID, resized to image_size x image_size pixels.

    JPEG and PNG are told by content. Returns uint8 [n, image_size, image_size, 3], the ids of
    these images, and notes: a sentence each on files left out and on files of the same bytes.
    Raises UserError where unreadable="refuse" and a file is no readable image ("skip" leaves it
    out).
    """
    pixels = np.empty((len(ids), image_size, image_size, 3), np.uint8)
    digests, reasons = fill(pixels, root, ids)
    if reasons and unreadable == "refuse":
        first, reason = next(iter(reasons.items()))
        raise UserError(
            f"`data_dir`={root}: {len(reasons)} of {len(ids)} files are unreadable, the first is"
            f" {first} ({reason}); remove them or choose `unreadable`=skip"
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


def fill(pixels: np.ndarray, root: Path, ids: list[str]) -> tuple[list[bytes], dict[str, str]]:
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
