"""Codes by what is in a file: a known content keeps its own under any name, others are encoded."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfhash.search.encoder import Encoder
from tfhash.search.index import Index

BATCH = 32  # files that are encoded at once

Coded = tuple[np.ndarray, Any]  # a code and the payload that goes with it


class File(NamedTuple):
    """A file with its bytes; content: size, time and digest, as the index keeps them."""

    path: str
    content: str
    data: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.content)


def digest_of(content: str | None) -> str:
    """The SHA-256 in what the index keeps of a file; empty where there is none."""
    return (content or "").rpartition(" ")[2]


class Contents:
    """What codes files have, while an index is brought up to them.

    A content is looked up in the index under the name that it had at the beginning. Before another
    content takes that name, its code is put aside: a file may be moved to a name whose own file has
    moved on, and so on along a chain.

    known: of each id in the index what was kept of its file. encoded, moved, unchanged: how many
    files had a new content, one of another name, or their own; refused: names of files without one.
    """

    def __init__(self, index: Index, encoder: Encoder, known: Mapping[str, str | None]):
        self.index, self.encoder, self.known = index, encoder, known
        self.encoded = self.moved = self.unchanged = 0
        self.refused: list[str] = []
        self._name_of = {digest_of(text): name for name, text in known.items() if text}
        self._aside: dict[str, Coded] = {}
        self._bad: set[str] = set()

    def take(self, some: Sequence[File]) -> None:
        """Puts files into the index, in one step."""
        coded = self._there({file.digest for file in some})
        new: dict[str, File] = {}
        for file in some:
            if file.digest not in coded and file.digest not in self._bad:
                new.setdefault(file.digest, file)
        coded |= self._encode(new)
        taken = [file for file in some if file.digest in coded]
        self.refused += [file.path for file in some if file.digest not in coded]
        encoded = sum(file is new.get(file.digest) for file in taken)
        same = sum(file.digest == digest_of(self.known.get(file.path)) for file in taken)
        self.encoded += encoded
        self.unchanged += same
        self.moved += len(taken) - encoded - same
        self._put_aside(taken)
        codes = np.array([coded[file.digest][0] for file in taken], np.uint8)
        self.index.change(
            codes.reshape(len(taken), -(-self.index.code_length // 8)),
            ids=[file.path for file in taken],
            payload=[coded[file.digest][1] for file in taken],
            content=[file.content for file in taken],
            replace=True,
        )

    def _there(self, digests: set[str]) -> dict[str, Coded]:
        """Those of the contents that have a code already."""
        rest = sorted(digests & self._name_of.keys() - self._aside.keys())
        names = [self._name_of[digest] for digest in rest]
        with _one_moment(self.index):
            found = zip(self.index.codes(names), self.index.payload(names), strict=True)
        aside = {digest: self._aside[digest] for digest in digests & self._aside.keys()}
        return aside | dict(zip(rest, found, strict=True))

    def _encode(self, new: Mapping[str, File]) -> dict[str, Coded]:
        found: dict[str, Coded] = {}
        digests = list(new)
        for start in range(0, len(digests), BATCH):
            batch = digests[start : start + BATCH]
            answers, valid = self.encoder([new[digest].data for digest in batch])
            for digest, code, is_valid in zip(batch, answers, valid, strict=True):
                if is_valid:
                    found[digest] = code, None
                else:
                    self._bad.add(digest)
        return found

    def _put_aside(self, taken: Sequence[File]) -> None:
        """What is under the names that other contents take; these are found by their names then."""
        lost = set()
        for file in taken:
            before = digest_of(self.known.get(file.path))
            if before != file.digest and self._name_of.get(before) == file.path:
                lost.add(before)
        self._aside |= self._there(lost)
        for file in taken:
            self._name_of.setdefault(file.digest, file.path)


def _one_moment(index: Any) -> contextlib.AbstractContextManager[None]:
    """That of an index in a folder; a database may have none."""
    return index.reading() if hasattr(index, "reading") else contextlib.nullcontext()
