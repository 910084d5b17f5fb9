"""A folder of images whose labels, none or several an image, stand in a CSV, as arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np

from tfhash import names
from tfhash.data import class_names as names_of_classes
from tfhash.data import csv_files, image_files
from tfhash.data.image_files import Reading
from tfhash.errors import UserError

PATH, LABELS, SEPARATOR = "path", "labels", ";"


@dataclass(frozen=True)
class Table:
    """What a CSV says: the labels of each path, the classes that it speaks of, ignored columns, and
    the line of each path."""

    labels: dict[str, set[str]]
    classes: set[str]
    ignored: list[str]
    lines: dict[str, int]


def read(
    data_dir: str | os.PathLike,
    labels_csv: str | os.PathLike,
    reading: Reading,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Every image below data_dir, with the labels that labels_csv (see `read_table`) gives it.

    A file that the CSV does not name has no label. Returns, sorted by id, images uint8
    [n, size, size, 3]; labels uint8 multi-hot [n, C], all zero without a label; class
    names (C, sorted, without empty classes); ids (paths relative to data_dir); notes. Raises
    UserError for a missing data_dir, what `read_table` refuses, fewer than two classes with images,
    and, where reading.unreadable is "refuse", for a path without a file, and a folder or an image
    that cannot be read ("skip" leaves them out).
    """
    root = image_files.folder(data_dir, "of images")
    table = read_table(labels_csv)
    files, passed_over = image_files.below(root, reading.unreadable)
    table, notes_on_paths = _of_files(labels_csv, table, files)
    missing = sorted(table.labels.keys() - set(files), key=table.lines.__getitem__)
    if missing and reading.unreadable == image_files.REFUSE:
        raise UserError(
            f"`labels_csv`: {labels_csv}: {len(missing)} of {len(table.labels)} paths have no file"
            f" in {root}, the first is {missing[0]} in line {table.lines[missing[0]]}"
            f"{csv_files.hint(missing[0], files)}; remove them or choose `unreadable`=skip"
        )
    _class_names(labels_csv, table, files)  # refuses before hours of reading, not after
    pixels, ids, notes = image_files.read(root, files, reading)
    if missing:
        notes.append(f"{len(missing)} paths of the CSV without a file skipped")
    labels, class_names, of_labels = _labels(labels_csv, table, ids)
    return (
        pixels,
        labels,
        class_names,
        tuple(ids),
        tuple(passed_over + notes_on_paths + notes + of_labels),
    )


def _of_files(
    labels_csv: str | os.PathLike, table: Table, files: list[str]
) -> tuple[Table, list[str]]:
    """The table with its paths as the files are called (see `csv_files.finder`), and notes."""
    find = csv_files.finder(files)
    labels: dict[str, set[str]] = {}
    lines: dict[str, int] = {}
    of_windows = 0
    for path, of_image in table.labels.items():
        file = find(path)
        if file in labels:
            raise UserError(
                f"`labels_csv`: {labels_csv}, line {table.lines[path]}: {file} stands there twice,"
                f" written differently in line {lines[file]}; allowed: one row an image"
            )
        labels[file], lines[file] = of_image, table.lines[path]
        of_windows += path.count("\\") > file.count("\\")
    notes = [f"{of_windows} paths of the CSV have \\ where folders end"] if of_windows else []
    return Table(labels, table.classes, table.ignored, lines), notes


def read_without_images(
    labels_csv: str | os.PathLike,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The rows of labels_csv as images of 0 x 0 pixels: what `read` returns, sorted by id."""
    table = read_table(labels_csv)
    ids = sorted(table.labels)
    labels, class_names, notes = _labels(labels_csv, table, ids)
    notes.insert(0, "labels alone, no images")
    return np.empty((len(ids), 0, 0, 3), np.uint8), labels, class_names, tuple(ids), tuple(notes)


def _labels(
    labels_csv: str | os.PathLike, table: Table, ids: list[str]
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Labels of the ids, multi-hot uint8 [n, C], the C classes that have an image, and notes."""
    class_names = _class_names(labels_csv, table, ids)
    column = {name: number for number, name in enumerate(class_names)}
    labels = np.zeros((len(ids), len(class_names)), np.uint8)
    for row, id_ in enumerate(ids):
        labels[row, [column[name] for name in table.labels.get(id_, ())]] = 1
    notes = names_of_classes.notes(class_names)
    if with_comma := sorted(name for name in class_names if "," in name):
        notes.append(
            f"{len(with_comma)} labels of the CSV have a comma in them, such as {with_comma[0]!r};"
            f" several labels have {SEPARATOR!r} between them"
        )
    if table.ignored:
        notes.append(f"columns of the CSV ignored: {', '.join(table.ignored)}")
    if empty := sorted(table.classes - set(class_names)):
        notes.append(f"{len(empty)} classes without images: {', '.join(empty)}")
    if without_label := int((~labels.any(axis=1)).sum()):
        unnamed = sum(id_ not in table.labels for id_ in ids)
        notes.append(f"{without_label} images without a label, {unnamed} of them not in the CSV")
    return labels, class_names, notes


def read_table(path: str | os.PathLike) -> Table:
    """Reads a CSV of paths and labels.

    Its first line names the columns: `path`, relative to the data folder, and either `labels`,
    names with ";" between them, or one column a class, each 1 or 0. An image has no label where
    `labels` is empty, or no class has a 1. Beside `labels` other columns are ignored.
    Raises UserError with the line's number for a row of another length, a path that leaves the data
    folder or stands there twice, and a class that is neither 0 nor 1; for a missing file; and for a
    first line without these columns.
    """
    rows = csv_files.rows(path, "labels_csv")
    header = [_column(name) for name in next(rows, (1, []))[1]]
    classes = _class_columns(path, header)
    labels: dict[str, set[str]] = {}
    lines: dict[str, int] = {}
    for line, fields in rows:
        try:
            image, of_image = _parse(header, fields, classes)
            if image in labels:
                raise ValueError(
                    f"{image} stands there twice, first in line {lines[image]}; allowed: one row an"
                    " image"
                )
        except ValueError as error:
            raise UserError(f"`labels_csv`: {path}, line {line}: {error}") from None
        labels[image], lines[image] = of_image, line
    if classes:
        return Table(labels, set(classes), [], lines)
    ignored = [name for name in header if name not in (PATH, LABELS)]
    return Table(labels, set().union(*labels.values()), ignored, lines)


def _class_columns(path: str | os.PathLike, header: list[str]) -> list[str]:
    """The columns that are classes; none where there is a column `labels`."""
    classes = [] if LABELS in header else [name for name in header if name != PATH]
    if fault := _fault(header, classes):
        raise UserError(
            f"`labels_csv`: {path}, line 1: {','.join(header)!r}{fault}; allowed: the different"
            f" names of the columns, {PATH} and {LABELS}, or {PATH} and each class, with commas"
            " between them"
        )
    return classes


def _fault(header: list[str], classes: list[str]) -> str:
    """What is wrong with the names of the columns, for an error; nothing where they can be used."""
    if mark := csv_files.other_separator(header):
        return mark
    if not all(map(names.is_text, header)):
        return ", which is no utf-8"
    if PATH not in header:
        is_row = any("." in name for name in header[:1])
        return ", which looks like a row, no header" if is_row else f", without a column {PATH}"
    if repeated := [name for name in header if header.count(name) > 1]:
        return f", with {repeated[0]!r} twice"
    if "" in classes:
        return ", with a column without a name"
    return "" if LABELS in header or classes else ", without labels"


def _column(name: str) -> str:
    """The name of a column; those that mean something are known in any case."""
    return name.lower() if name.lower() in (PATH, LABELS) else name


def _parse(header: list[str], fields: list[str], classes: list[str]) -> tuple[str, set[str]]:
    """The path of a row in its plainest form, and its labels. ValueError where one is wrong."""
    if len(fields) != len(header):
        raise ValueError(
            f"{len(fields)} fields; allowed: {len(header)}, as in the first line; a field with a"
            " comma needs quotes, several labels have ; between them"
        )
    row = dict(zip(header, fields, strict=True))
    path = PurePosixPath(row[PATH])
    is_absolute = path.is_absolute() or PureWindowsPath(row[PATH]).drive
    if not path.name or is_absolute or ".." in path.parts:
        raise ValueError(f"{PATH} is {row[PATH]!r}; allowed: a path relative to `data_dir`, in it")
    if not classes:
        if not names.is_text(row[LABELS]):
            raise ValueError(f"{LABELS} is {row[LABELS]!r}; allowed: names in utf-8")
        of_image = (name.strip() for name in row[LABELS].split(SEPARATOR))
        return path.as_posix(), {name for name in of_image if name}
    for name in classes:
        if row[name] not in ("0", "1"):
            raise ValueError(f"{name} is {row[name]!r}; allowed: 0 or 1")
    return path.as_posix(), {name for name in classes if row[name] == "1"}


def _class_names(
    labels_csv: str | os.PathLike, table: Table, ids: Iterable[str]
) -> tuple[str, ...]:
    """The classes with an image among `ids`, sorted."""
    classes = sorted(set().union(*(table.labels.get(id_, ()) for id_ in ids)))
    if len(classes) < 2:
        raise UserError(
            f"`labels_csv`: {labels_csv}: {len(classes)} classes with images; at least 2 are needed"
        )
    return tuple(classes)
