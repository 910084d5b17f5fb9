"""What an export of `tfhash.export` says of itself, without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfhash.errors import UserError
from tfhash.names import shown

METADATA = Path("assets.extra", "tfhash.json")
# A SavedModel of its own within a version: image files to the pixels that its network takes. What
# decodes with it, and computes with another engine, gets the pixels of the version itself.
DECODER = Path("assets.extra", "decoder")
SAVED_MODEL = "saved_model.pb"


def newest(directory: Path) -> Path:
    """The folder itself where it is a version, else the highest of those in it.

    UserError where there is none.
    """
    if (directory / SAVED_MODEL).is_file():
        return directory
    found = versions(directory)
    if not found:
        raise UserError(f"`model`: no export in {shown(directory)}; python -m tfhash.export")
    return found[-1]


def versions(directory: Path) -> list[Path]:
    """The versions in a folder, by number: folders called by one, with a SavedModel in them.

    One that is still being copied may have none yet, and a year is a number too.
    """
    found = (path.parent for path in directory.glob(f"*/{SAVED_MODEL}"))
    numbered = [path for path in found if path.name.isascii() and path.name.isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name))


def describe(directory: Path) -> dict[str, Any]:
    """The tfhash.json of a version. UserError where it tells no fingerprint or code_length."""
    path = directory / METADATA
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["fingerprint"], str) or not isinstance(found["code_length"], int):
            raise ValueError("no fingerprint or code_length in it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"`model`: {shown(path)} cannot be read ({error})") from None
    return found
