"""The image files: found by a pattern, read one by one, and why one of them has no code."""

from __future__ import annotations

import os
from typing import NamedTuple

from tfhash import files
from tfhash.errors import UserError

# Why a server could not read an image of which `read` found nothing wrong: encode_bytes_partial
# does not tell, and asking again would cost a request.
REFUSED = "damaged, or too large in pixels"


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
