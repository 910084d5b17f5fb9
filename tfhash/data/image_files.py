"""Files of images below a folder, as arrays, in memory or on disk."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from tfhash import files
from tfhash.data import images as image_ops
from tfhash.data import libjpeg
from tfhash.errors import UserError
from tfhash.names import encoded, shown
from tfhash.storage import rows as stored
from tfhash.storage.place import Storage

REFUSE, SKIP = "refuse", "skip"
_PROGRESS_EVERY = 5000
_BLOCK = 500  # files between two looks at what libjpeg complained about
_BLOCK_BYTES = 2**26  # of pixels that wait to be written to disk, at most
_DECODER = 1  # to be raised with each change of what decoding makes of a file


@dataclass(frozen=True)
class Reading:
    """How files become pixels.

    size: side in px that images are resized to. unreadable: "refuse" or "skip" what cannot be read.
    megapixels: the limit of `images.decode`. storage: where the pixels are.
    """

    size: int
    unreadable: str = REFUSE
    megapixels: int = image_ops.MEGAPIXELS
    storage: Storage = Storage()


def folder(data_dir: str | os.PathLike, content: str) -> Path:
    """data_dir as a path. UserError, naming the content that is expected, where it is no folder."""
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"`data_dir`={data_dir}: expected a folder {content}")
    return root


def below(root: Path, unreadable: str) -> tuple[list[str], list[str]]:
    """All image files below root as sorted relative paths with "/", as `files.find` has them.

    Returns these, and notes: a sentence each on what was passed over. Raises UserError where root
    cannot be listed and, where unreadable="refuse", where something below it cannot be looked into.
    """
    try:
        found = files.find(root)
    except OSError as error:
        raise UserError(f"`data_dir`={root}: {error.strerror}") from None
    notes = found.notes()
    if found.unreadable:
        what = f"{len(found.unreadable)} folders, links or files could not be looked into"
        first, reason = next(iter(sorted(found.unreadable.items())))
        if unreadable == REFUSE:
            raise UserError(
                f"`data_dir`={root}: {what}, the first is {first} ({reason}); make them readable or"
                " choose `unreadable`=skip"
            )
        for path, reason in found.unreadable.items():
            logging.warning("skipped %s: %s", shown(root / path), reason)
        notes.append(f"{what} and are skipped")
    return found.files, notes


def read(root: Path, ids: list[str], reading: Reading) -> tuple[np.ndarray, list[str], list[str]]:
    """The images root/ID, resized to size x size pixels.

    JPEG and PNG are told by content. Returns uint8 [n, size, size, 3], the ids of these images, and
    notes: a sentence each on files left out, and on files damaged in part. On disk, by
    reading.storage, the array is not writeable, and a second call with the same files only reads.
    Raises UserError where reading.unreadable is "refuse" and a file is no readable image ("skip"
    leaves it out).
    """
    on_disk = reading.storage.on_disk(len(ids) * _row_bytes(reading))
    pixels, filled = (_on_disk if on_disk else _in_memory)(root, ids, reading)
    reasons = filled.reasons
    if reasons and reading.unreadable == REFUSE:
        first, reason = next(iter(reasons.items()))
        raise UserError(
            f"`data_dir`={root}: {len(reasons)} of {len(ids)} files are unreadable, the first is"
            f" {first} ({reason}); remove them or choose `unreadable`=skip"
        )
    notes = []
    if reasons:
        for id_, reason in reasons.items():
            logging.warning("skipped %s: %s", shown(root / id_), reason)
        notes.append(f"{len(reasons)} unreadable files skipped")
        ids = [id_ for id_ in ids if id_ not in reasons]
    for id_, complaint in filled.damaged.items():
        logging.warning("%s is damaged in part: %s", shown(root / id_), complaint)
    if filled.damaged:
        notes.append(f"{len(filled.damaged)} JPEG files are damaged in part and used as they are")
    return pixels, ids, notes


def _row_bytes(reading: Reading) -> int:
    return reading.size * reading.size * 3


def _in_memory(root: Path, ids: Sequence[str], reading: Reading) -> tuple[np.ndarray, Filled]:
    """The pixels of all files that can be read, in their order, and what came of the others."""
    pixels = np.empty((len(ids), reading.size, reading.size, 3), np.uint8)
    filled = fill(pixels, root, ids, reading.megapixels)
    return kept(pixels, [row for row, id_ in enumerate(ids) if id_ not in filled.reasons]), filled


def _on_disk(root: Path, ids: Sequence[str], reading: Reading) -> tuple[np.ndarray, Filled]:
    """What `_in_memory` answers, from a file that an earlier call has made, or begun."""
    assert reading.storage.folder is not None
    folder = reading.storage.folder / "images" / _fingerprint(root, ids, reading)

    def make(start: int, stop: int) -> tuple[np.ndarray, dict[str, dict[str, str]]]:
        pixels, filled = _in_memory(root, ids[start:stop], reading)
        if stop // _PROGRESS_EVERY > start // _PROGRESS_EVERY:
            logging.info("read %d of %d files of %s", stop, len(ids), root)
        return pixels, {"reasons": filled.reasons, "damaged": filled.damaged}

    def found() -> tuple[stored.Kept, Filled]:
        part = min(_BLOCK, max(1, _BLOCK_BYTES // _row_bytes(reading)))
        shape = (reading.size, reading.size, 3)
        of_files = stored.kept(folder, len(ids), shape, np.uint8, make, part)
        filled = Filled()
        for facts in of_files.facts:
            filled.reasons |= facts["reasons"]
            filled.damaged |= facts["damaged"]
        return of_files, filled

    print(f"images are decoded once, and read from {shown(folder)} then", flush=True)
    of_files, filled = found()
    if of_files.was_there and _is_readable_now(root, list(filled.reasons), reading):
        stored.forget(folder)
        of_files, filled = found()
    return of_files.array, filled


def _is_readable_now(root: Path, ids: Sequence[str], reading: Reading) -> bool:
    """Whether one of these can be read: what a system refuses at one time it may give at another"""
    for start in range(0, len(ids), _BLOCK):
        some = ids[start : start + _BLOCK]
        if len(_in_memory(root, some, reading)[0]):
            return True
    return False


def _fingerprint(root: Path, ids: Sequence[str], reading: Reading) -> str:
    """32 hexadecimal digits of all that decides the pixels: the decoder, and each file by its path,
    size and times. A change of its status counts too, for tools that copy files set the other time.
    """
    decoder = f"{_DECODER} {tf.__version__} {reading.size} {reading.megapixels}"
    digest = hashlib.sha256(encoded(f"{decoder} {os.path.realpath(root)}"))
    for id_ in ids:
        try:
            status = os.stat(root / id_)
            times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        except OSError as error:
            times = str(error.errno)
        digest.update(encoded(f"\0{id_}\0{times}"))
    return digest.hexdigest()[:32]


def kept(pixels: np.ndarray, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """These rows alone, ascending, moved within `pixels`: a second copy may not fit in memory.

    Of pixels on disk they go into another file.
    """
    if isinstance(pixels, np.memmap):
        return stored.some_of(pixels, np.asarray(rows, np.int64))
    for target, source in enumerate(rows):
        if target != source:
            pixels[target] = pixels[source]
    return pixels[: len(rows)]


@dataclass
class Filled:
    """What came of files: by id the reason for each that could not be read, and what libjpeg said
    of those that it could read in part."""

    reasons: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)


def fill(
    pixels: np.ndarray, root: Path, ids: Sequence[str], megapixels: int = image_ops.MEGAPIXELS
) -> Filled:
    """Decodes and resizes each file root/ID into its row of `pixels`, uint8 [n, size, size, 3]."""
    limits = image_ops.Limits(megapixels)
    decode_and_resize = _decoder(pixels.shape[1], megapixels)

    def fill_row(row: int) -> str:
        """The reason why it cannot be filled, or none."""
        try:
            image_bytes = files.read(root / ids[row], limits.bytes).data
            pixels[row] = decode_and_resize(image_bytes).numpy()
        except (files.FileError, tf.errors.InvalidArgumentError) as error:
            return _one_line(error)
        return ""

    filled = Filled()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(ids), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(ids)))
            with libjpeg.complaints() as complaints:
                for row, reason in zip(rows, threads.map(fill_row, rows), strict=True):
                    if reason:
                        filled.reasons[ids[row]] = reason
            if complaints:  # of which files? One at a time, it can only be this one
                filled.damaged |= _damaged(rows, ids, fill_row)
            if rows.stop // _PROGRESS_EVERY > start // _PROGRESS_EVERY:
                logging.info("read %d of %d files of %s", rows.stop, len(ids), root)
    return filled


@functools.cache  # tracing takes as long as decoding some hundred images
def _decoder(size: int, megapixels: int) -> Callable[[bytes], tf.Tensor]:
    """From the bytes of a file to its pixels, uint8 [size, size, 3]."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])  # three times as fast as eagerly
    def decode_and_resize(image_bytes: tf.Tensor) -> tf.Tensor:
        return image_ops.resize(image_ops.decode(image_bytes, megapixels), size)

    return decode_and_resize


def _damaged(rows: range, ids: Sequence[str], fill_row: Callable[[int], str]) -> dict[str, str]:
    """What libjpeg says of each file that it reads in part only."""
    damaged = {}
    for row in rows:
        with libjpeg.complaints() as complaints:
            reason = fill_row(row)
        if complaints and not reason:
            damaged[ids[row]] = complaints[0]
    return damaged


def _one_line(error: Exception) -> str:
    """The reason alone: TensorFlow puts a traceback before it and the name of the node after it."""
    reason = str(error).split("\n\t [[")[0].splitlines()[-1]
    return re.sub(r"\{\{.*?\}\} ?|assertion failed: ", "", reason)
