"""The image files: found by a pattern, read one by one, and why one of them has no code."""

from __future__ import annotations

import glob
import os
from typing import NamedTuple

from tfhash.errors import UserError

MAX_BYTES = 32 * 2**20  # what an exported encoder takes
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


class Image(NamedTuple):
    """A file to send: size in bytes, modification time in nanoseconds."""

    path: str
    size: int
    modified: int
    content: bytes


def find(pattern: str) -> list[str]:
    """The files that match, sorted; ** stands for folders in folders. UserError for none."""
    found = glob.glob(os.path.expanduser(pattern), recursive=True)
    paths = sorted(path for path in found if os.path.isfile(path))
    if not paths:
        raise UserError(
            f"--images: no file matches {pattern!r}; to be quoted, such as 'photos/**/*.jpg'"
        )
    return paths


def reason(content: bytes) -> str:
    """Why a server could not read an image.

    Found here, as asking the server again would cost a request: encode_bytes_partial does not tell.
    """
    if not content:
        return "empty"
    if not content.startswith(_STARTS):
        return "not a JPEG or PNG image"
    return "damaged, or too large in pixels"
