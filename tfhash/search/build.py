"""An index of image files: what is new or changed is encoded, and what is gone goes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tfhash import files
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.search.encoder import Encoder
from tfhash.search.index import Index

BATCH = 32  # files that are encoded at once
KEPT = 8 * BATCH  # files after which what was done is kept
REFUSED = "damaged, or refused by the model"
_MEGABYTES = 64 * 2**20  # of files that are in memory at a time, unless one alone is larger

Progress = Callable[[int], None]


@dataclass
class Changes:
    """What became of the files: counts, and why some have no code."""

    encoded: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.encoded:,} encoded", f"{self.unchanged:,} as they were"]
        parts += [f"{self.moved:,} moved or copied"] if self.moved else []
        parts += [f"{self.removed:,} removed"] if self.removed else []
        parts += [f"{len(self.unreadable):,} without a code"] if self.unreadable else []
        return ", ".join(parts)


class _File(NamedTuple):
    path: str
    content: str  # size, time and digest, as the index keeps them
    data: bytes


def find(pattern: str) -> tuple[list[str], dict[str, str], list[str]]:
    """The image files that a pattern matches, why others could not be looked into, and notes.

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
    return paths, bad, found.notes()


def encode_files(encoder: Encoder, pattern: str) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """The files of a pattern that have a code, their codes, and why others have none."""
    paths, unreadable, _ = find(pattern)
    names: list[str] = []
    codes = [np.zeros((0, -(-encoder.code_length // 8)), np.uint8)]
    for start in range(0, len(paths), BATCH):
        data: dict[str, bytes] = {}
        for path in paths[start : start + BATCH]:
            try:
                data[path] = files.read(path).data
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


def readings(text: str) -> list[str | int | float | bool]:
    """What a value of a command line may stand for in JSON: text, a number, true or false."""
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    return [text, value] if isinstance(value, (int, float, bool)) else [text]


def update(
    index: Index,
    encoder: Encoder,
    pattern: str,
    *,
    drop: bool,
    progress: Progress = lambda count: None,
    total: Callable[[int], None] = lambda count: None,
) -> Changes:
    """Brings an index up to the files of a pattern.

    A file is the same where size and time are, or its SHA-256. drop: what the pattern does not
    match any more goes. total, progress: told how many files there are, and how many more are done.
    After each KEPT files what was done is kept, so that another call goes on from there. UserError
    for an encoder of another model than the index is of.
    """
    check_model(index, encoder.code_length, encoder.fingerprint)
    paths, unreadable, notes = find(pattern)
    changes = Changes(unreadable=unreadable, notes=notes)
    total(len(paths))
    known = index.content()
    by_digest = {content.split()[-1]: name for name, content in known.items() if content}
    for some in _groups(_opened(paths, known, changes, progress)):
        codes, names, contents, payload = _encoded(index, encoder, some, by_digest, changes)
        index.change(codes, ids=names, content=contents, payload=payload, replace=True)
        progress(len(some))
    if drop:
        gone = sorted(set(known) - set(paths))
        for start in range(0, len(gone), 10_000):
            index.remove(gone[start : start + 10_000])
        changes.removed = len(gone)
    there = set(paths)
    stale = [path for path in changes.unreadable if path in known and path in there]
    if stale:  # what can no longer be read has no code any more
        index.remove(stale)
    return changes


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


def _opened(
    paths: Sequence[str], known: dict[str, str | None], changes: Changes, progress: Progress
) -> Iterator[_File]:
    """The files that may have changed, with their bytes."""
    for path in paths:
        before = known.get(path) or ""
        try:
            status = os.stat(path)
            stamp = f"{status.st_size} {status.st_mtime_ns}"
            if before.rpartition(" ")[0] == stamp:
                changes.unchanged += 1
                progress(1)
                continue
            content = files.read(path)
        except OSError as error:
            changes.unreadable[path] = str(error.strerror or error).replace("`", "")
            progress(1)
            continue
        digest = hashlib.sha256(content.data).hexdigest()
        yield _File(path, f"{content.size} {content.modified} {digest}", content.data)


def _groups(opened: Iterator[_File]) -> Iterator[list[_File]]:
    group: list[_File] = []
    size = 0
    for file in opened:
        if group and (len(group) == KEPT or size + len(file.data) > _MEGABYTES):
            yield group
            group, size = [], 0
        group.append(file)
        size += len(file.data)
    if group:
        yield group


def _encoded(
    index: Index,
    encoder: Encoder,
    some: Sequence[_File],
    by_digest: dict[str, str],
    changes: Changes,
) -> tuple[np.ndarray, list[str], list[str], list[Any]]:
    """Codes, ids, contents and payload of files: known ones by their digest, others encoded."""
    codes: dict[str, np.ndarray] = {}
    payload: dict[str, Any] = {}
    new: dict[str, _File] = {}
    for file in some:
        digest = file.content.split()[-1]
        if digest in by_digest:
            (codes[file.path],) = index.codes([by_digest[digest]])
            same = by_digest[digest] == file.path
            (payload[file.path],) = index.payload([by_digest[digest]]) if same else (None,)
            changes.moved += not same
            changes.unchanged += same
        else:
            new[file.path] = file
    chosen = list(new.values())
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        answers, valid = encoder([file.data for file in batch])
        for file, code, is_valid in zip(batch, answers, valid, strict=True):
            if is_valid:
                codes[file.path] = code
                changes.encoded += 1
            else:
                changes.unreadable[file.path] = REFUSED
    contents = {file.path: file.content for file in some}
    names = list(codes)
    width = -(-index.code_length // 8)
    stacked = np.array([codes[name] for name in names], np.uint8).reshape(len(names), width)
    return stacked, names, [contents[n] for n in names], [payload.get(n) for n in names]
