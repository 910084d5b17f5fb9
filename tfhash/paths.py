"""Paths for TensorFlow, which takes some names for patterns."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_OF_PATTERNS = set("*?[]\\")


@contextlib.contextmanager
def literal(folder: Path | str) -> Iterator[Path]:
    """The same folder under a name that is no pattern, as long as the context lasts.

    TensorFlow looks for the shards of a SavedModel's variables by a pattern, so that it finds none
    in a folder `run[1]`. A link in the folder for temporary files leads there then.
    """
    if not _OF_PATTERNS.intersection(os.fspath(folder)):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch, "folder")
        link.symlink_to(Path(folder).absolute(), target_is_directory=True)
        yield link
