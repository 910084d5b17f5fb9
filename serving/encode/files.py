"""The image files: found by a pattern, read one by one, and why one of them has no code."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from tfhash import files
from tfhash.errors import UserError

DAMAGED = "damaged"
# What a graph says of an image that it does not decode: the words of data/images.py, by an assert.
_REFUSED = re.compile(r"\[image_bytes: ([^]]+)\]")


class Image(NamedTuple):
    """A file to send: size in bytes, modification time in nanoseconds."""

    path: str
    size: int
    modified: int
    content: bytes


class Matches(NamedTuple):
    """The image files of a pattern, sorted; why others could not be looked into; and sentences on
    what was passed over."""

    paths: list[str]
    unreadable: dict[str, str]
    notes: list[str]


def find(pattern: str) -> Matches:
    """The image files that match, each real file once; ** stands for folders in folders.

    UserError for none, and for a folder that cannot be listed.
    """
    pattern = os.path.expanduser(pattern)
    try:
        folder, found = files.match(pattern)
    except OSError as error:
        raise UserError(f"--images: {pattern!r}: {error.strerror}") from None
    if not found.files and not found.unreadable:
        hint = (
            "it is a folder; 'FOLDER/**' takes all in it"
            if os.path.isdir(pattern)
            else ("to be quoted, such as 'photos/**/*.jpg'")
        )
        raise UserError(f"--images: no image file matches {pattern!r}; {hint}")
    return Matches(
        [os.path.join(folder, name) for name in found.files],
        {os.path.join(folder, name): reason for name, reason in found.unreadable.items()},
        found.notes(),
    )


def read(path: str, megapixels: int) -> Image:
    """The file of an image. files.FileError where it is none, or too large for so many pixels."""
    content = files.read(path, files.max_bytes(megapixels))
    return Image(path, content.size, content.modified, content.data)


def reason(message: str) -> str:
    """Why a server refuses an image, of its message: a limit of the model, else `DAMAGED`.

    Without the signs of a setting, as it is not that of this command.
    """
    refused = _REFUSED.search(message)
    return f"refused by the model: {refused[1].replace('`', '')}" if refused else DAMAGED
