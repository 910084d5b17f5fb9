"""What libjpeg says of damaged data: it writes to stderr, and names no file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_SIGN = b"JPEG"  # in all of its warnings, such as "Corrupt JPEG data: premature end of ..."


@contextlib.contextmanager
def complaints() -> Iterator[list[str]]:
    """Catches libjpeg's lines of the code within; the list has them at its end.

    Other lines are written to stderr then. It is the process's stderr that is redirected, so one
    thread at a time may be in here.
    """
    caught: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield caught
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            lines = file.read().splitlines(keepends=True)
            caught += [line.decode(errors="replace").strip() for line in lines if _SIGN in line]
            if others := b"".join(line for line in lines if _SIGN not in line):
                os.write(2, others)
