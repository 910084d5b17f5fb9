"""A folder of images, as arrays: with one subfolder a class, or without labels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tfhash.data import class_names as classes
from tfhash.data import image_files
from tfhash.data.image_files import Reading
from tfhash.errors import UserError


def read(
    data_dir: str | os.PathLike, reading: Reading
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Every image below data_dir: data_dir/CLASS/**/FILE, and data_dir/unlabelled/**/FILE.

    "unlabelled" may be written in any case, with blanks or hyphens. JPEG and PNG are told by
    content; hidden files and files that are no images are passed over. Returns, sorted by id,
    images uint8 [n, size, size, 3]; labels uint8 one-hot [n, C], all zero for the unlabelled; class
    names (C, without empty classes); ids ("CLASS/.../FILE"); notes. Raises UserError for a missing
    data_dir, for fewer than two classes with images, and, where reading.unreadable is "refuse", for
    a folder or an image that cannot be read ("skip" leaves it out).
    """
    root = image_files.folder(data_dir, "with one subfolder a class")
    files, passed_over = image_files.below(root, reading.unreadable)
    ids = [file for file in files if "/" in file]
    _class_names(root, ids)  # refuses before hours of reading, not after
    pixels, ids, notes = image_files.read(root, ids, reading)
    notes = passed_over + notes
    class_names = _class_names(root, ids)
    class_of_image = np.array([_top_folder(id_) for id_ in ids])
    labels = (class_of_image[:, None] == np.array(class_names)).astype(np.uint8)

    notes += classes.note_on_parts(class_names) + classes.notes(class_names)
    folders = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
    if empty := sorted(set(_classes(folders)) - set(class_names)):
        notes.append(f"{len(empty)} class folders without images: {', '.join(empty)}")
    if outside := sum("/" not in file for file in files):
        notes.append(f"{outside} files outside the class folders ignored")
    if without_label := len(ids) - int(labels.sum()):
        notes.append(f"{without_label} images without a label")
    return pixels, labels, class_names, tuple(ids), tuple(notes)


def read_without_labels(
    data_dir: str | os.PathLike, reading: Reading
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Every image below data_dir, whatever its folders are called.

    Returns and raises what `read` does, with no class: labels are uint8 [n, 0].
    """
    root = image_files.folder(data_dir, "of images")
    files, passed_over = image_files.below(root, reading.unreadable)
    pixels, ids, notes = image_files.read(root, files, reading)
    if not ids:
        raise UserError(f"`data_dir`={root}: no images in it; expected JPEG or PNG files")
    return pixels, np.zeros((len(ids), 0), np.uint8), (), tuple(ids), tuple(passed_over + notes)


def _classes(folders: Iterable[str]) -> list[str]:
    """The folders that are classes."""
    return [name for name in folders if not classes.is_unlabelled(name)]


def _top_folder(id_: str) -> str:
    return id_.split("/", 1)[0]


def _class_names(root: Path, ids: list[str]) -> tuple[str, ...]:
    found = tuple(sorted(_classes({_top_folder(id_) for id_ in ids})))
    if len(found) < 2:
        what = f"one class, {found[0]}" if found else "no class"
        deeper = found and classes.is_part(found[0])
        raise UserError(
            f"`data_dir`={root}: folder with {what}; expected at least two subfolders with images"
            + (f"; if it holds the classes, give {root / found[0]}" if deeper else "")
        )
    return found
