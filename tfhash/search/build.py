"""An index of image files: what is new or changed is encoded, and what is gone goes.

What has a code keeps it until its file is seen to be gone or to be no image: a disk that does not
answer takes nothing out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from tfhash import files
from tfhash.errors import UserError
from tfhash.names import is_text, shown
from tfhash.search.contents import BATCH, Contents, File
from tfhash.search.encoder import Encoder
from tfhash.search.index import Index

KEPT = 8 * BATCH  # files after which what was done is kept
REFUSED = "damaged, or refused by the model"
_MEGABYTES = 64 * 2**20  # of files that are in memory at a time, unless one alone is larger

Progress = Callable[[int], None]


@dataclass
class Changes:
    """What became of the files: counts, and why some could not be read.

    kept: how many items keep the code that they had, for their files or folders were not read.
    """

    encoded: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    kept: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.encoded:,} encoded", f"{self.unchanged:,} as they were"]
        parts += [f"{self.moved:,} moved or copied"] if self.moved else []
        parts += [f"{self.removed:,} removed"] if self.removed else []
        parts += [f"{len(self.unreadable):,} not read or refused"] if self.unreadable else []
        parts += [f"{self.kept:,} that were not read keep their codes"] if self.kept else []
        return ", ".join(parts)


class Files(NamedTuple):
    """Image files of a pattern, why others and folders could not be looked into, and notes."""

    paths: list[str]
    unreadable: dict[str, str]
    notes: list[str]


def find(pattern: str) -> Files:
    """The image files that a pattern matches.

    UserError where none does, or the folder cannot be listed.
    """
    pattern = os.path.expanduser(pattern)
    try:
        folder, found = files.match(pattern)
    except OSError as error:
        raise UserError(f"`images`: {shown(pattern)}: {error.strerror}") from None
    if not found.files and not found.unreadable:
        hint = "; 'FOLDER/**' takes all in a folder" if os.path.isdir(pattern) else ""
        raise UserError(f"`images`: no image file matches {shown(pattern)}{hint}")
    paths = [os.path.join(folder, name) for name in found.files]
    bad = {os.path.join(folder, name): reason for name, reason in found.unreadable.items()}
    return Files(paths, bad, found.notes())


def encode_files(encoder: Encoder, pattern: str) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """The files of a pattern that have a code, their codes, and why others have none."""
    paths, unreadable, _ = find(pattern)
    names: list[str] = []
    codes = [np.zeros((0, -(-encoder.code_length // 8)), np.uint8)]
    for start in range(0, len(paths), BATCH):
        data: dict[str, bytes] = {}
        for path in paths[start : start + BATCH]:
            try:
                data[path] = files.read(path, encoder.limits.max_bytes).data
            except OSError as error:
                unreadable[path] = str(error.strerror or error).replace("`", "")
        if not data:
            continue
        answers, valid = encoder(list(data.values()))
        names += [path for path, is_valid in zip(data, valid, strict=True) if is_valid]
        bad = [path for path, is_valid in zip(data, valid, strict=True) if not is_valid]
        unreadable |= dict.fromkeys(bad, REFUSED)
        codes.append(answers[valid])
    return names, np.concatenate(codes), unreadable


def update(
    index: Index,
    encoder: Encoder,
    found: str | Files,
    *,
    drop: bool,
    text_only: bool = False,
    progress: Progress = lambda count: None,
    total: Callable[[int], None] = lambda count: None,
) -> Changes:
    """Brings an index up to files: those of a pattern, or what `find` has found.

    A file is the same where size and time are, or its SHA-256; its payload goes with its content.
    drop: what was not found any more goes. text_only: names that are no UTF-8 are refused, for the
    index cannot hold them. total, progress: told how many files there are, and how many more are
    done. After each KEPT files what was done is kept, so that another call goes on from there.
    UserError for an encoder of another model than the index is of, or where codes of an unknown one
    would stay in it.
    """
    check_model(index, encoder.code_length, encoder.fingerprint)
    check_origin(index, encoder.fingerprint, drop=drop)
    tie(index, encoder.fingerprint)
    paths, unreadable, notes = find(found) if isinstance(found, str) else found
    total(len(paths))
    known = index.content()
    contents = Contents(index, encoder, known)
    reader = _Reader(known, progress, text_only, encoder.limits.max_bytes)
    for some in _groups(reader.files(paths)):
        contents.take(some)
        progress(len(some))
    listed = set(paths)
    lacking = {name for name in known if name not in listed} if drop else set()
    unsure = _below(lacking, unreadable)
    gone = sorted(known.keys() & {*reader.no_images, *contents.refused} | lacking - unsure)
    for start in range(0, len(gone), 10_000):
        index.remove(gone[start : start + 10_000])
    return Changes(
        encoded=contents.encoded,
        moved=contents.moved,
        unchanged=contents.unchanged + reader.unchanged,
        removed=len(lacking - unsure),
        kept=len(unsure) + len(known.keys() & reader.not_read),
        unreadable=unreadable
        | reader.no_images
        | reader.not_read
        | dict.fromkeys(contents.refused, REFUSED),
        notes=notes,
    )


def _below(names: set[str], unreadable: Mapping[str, str]) -> set[str]:
    """Those of the names that are, or lie below, what could not be looked into."""
    if not unreadable:
        return set()
    closed = {PurePosixPath(path) for path in unreadable}
    paths = ((name, PurePosixPath(name)) for name in names)
    return {name for name, path in paths if not closed.isdisjoint([path, *path.parents])}


def check_model(index: Index, code_length: int, fingerprint: str) -> None:
    """UserError where codes of this model do not belong in the index."""
    if code_length != index.code_length:
        raise UserError(
            f"`model`: makes codes of {code_length} bits, the index has {index.code_length}; "
            "allowed: the model that the index was made with, or another index"
        )
    if index.model and fingerprint != index.model:
        raise UserError(
            f"`model`: its fingerprint is {fingerprint or 'unknown'}, that of the index "
            f"{index.model}: codes of two models cannot be compared; allowed: the model that the "
            "index was made with, or another index"
        )


def check_origin(index: Index, fingerprint: str, *, drop: bool) -> None:
    """UserError where the index is to be tied to a model and would keep codes of an unknown one.

    drop: those without content go or are made anew.
    """
    if index.model or not fingerprint or not hasattr(index, "tie"):
        return
    contents = index.content().values()
    if any(contents) if drop else contents:
        allowed = "another index" if drop else "build, or another index"
        raise UserError(
            f"`model`: its fingerprint is {fingerprint}; which model made the codes that the index "
            f"has is not known; allowed: {allowed}"
        )


def tie(index: Index, fingerprint: str) -> None:
    """Keeps the model of all codes in an index that knew none; a database cannot be told."""
    if fingerprint and not index.model and hasattr(index, "tie"):
        index.tie(fingerprint)


class _Reader:
    """Opens files that may have changed.

    unchanged: how many have not, by size and time. no_images, not_read: why others have no bytes
    here, those that are gone or hold no image, and those that the system did not read. max_bytes:
    of a file that the model takes.
    """

    def __init__(
        self,
        known: Mapping[str, str | None],
        progress: Progress,
        text_only: bool,
        max_bytes: int,
    ):
        self.known, self.progress = known, progress
        self.text_only, self.max_bytes = text_only, max_bytes
        self.unchanged = 0
        self.no_images: dict[str, str] = {}
        self.not_read: dict[str, str] = {}

    def files(self, paths: Sequence[str]) -> Iterator[File]:
        """Those with their bytes; of the others `progress` is told."""
        for path in paths:
            try:
                file = self._open(path)
            except OSError as error:
                file = None
                is_read = isinstance(error, (files.FileError, FileNotFoundError))
                is_read &= not isinstance(error, files.NotReadError)
                reasons = self.no_images if is_read else self.not_read
                reasons[path] = str(error.strerror or error).replace("`", "")
            if file is None:
                self.progress(1)
            else:
                yield file

    def _open(self, path: str) -> File | None:
        if self.text_only and not is_text(path):
            raise files.FileError("its name is no UTF-8, and the index cannot hold it")
        status = os.stat(path)
        before = (self.known.get(path) or "").rpartition(" ")[0]
        if before == f"{status.st_size} {status.st_mtime_ns}":
            self.unchanged += 1
            return None
        content = files.read(path, self.max_bytes)
        digest = hashlib.sha256(content.data).hexdigest()
        return File(path, f"{content.size} {content.modified} {digest}", content.data)


def _groups(opened: Iterator[File]) -> Iterator[list[File]]:
    group: list[File] = []
    size = 0
    for file in opened:
        if group and (len(group) == KEPT or size + len(file.data) > _MEGABYTES):
            yield group
            group, size = [], 0
        group.append(file)
        size += len(file.data)
    if group:
        yield group
