"""Paths for TensorFlow, which takes some names for patterns, and none that is no UTF-8."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NEEDS_A_LINK = re.compile(r"[*?\[\]\\\ud800-\udfff]")  # the last are bytes that are no UTF-8


@contextlib.contextmanager
def literal(folder: Path | str) -> Iterator[Path]:
    """The same folder under a plain name, as long as the context lasts.

    TensorFlow looks for the shards of a SavedModel's variables by a pattern, so that it finds none
    in a folder `run[1]`; and it takes no name that is no UTF-8. A link in the folder for temporary
    files leads there then.
    """
    if not _NEEDS_A_LINK.search(os.fspath(folder)):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch, "folder")
        link.symlink_to(Path(folder).absolute(), target_is_directory=True)
        yield link
