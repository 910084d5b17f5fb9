"""What an export writes aside until it is whole, and what killed exports have left of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tfhash.errors import NO_ROOM


@contextlib.contextmanager
def folder(export_dir: Path, name: str) -> Iterator[Path]:
    """A new hidden folder `.NAME.tmp-*` in export_dir, which is made; removed unless renamed.

    Those that exports left which no longer live are removed first. A living one holds a lock on
    its own, which the kernel frees when it ends, however that is. OSError where export_dir cannot
    be written.
    """
    export_dir.mkdir(parents=True, exist_ok=True)
    with _locked(export_dir, fcntl.LOCK_EX):  # nobody clears what is not locked yet
        _clear(export_dir, name)
        temporary = export_dir / f".{name}.tmp-{secrets.token_hex(4)}"
        temporary.mkdir()
        own = contextlib.ExitStack()
        own.enter_context(_locked(temporary, fcntl.LOCK_SH))
    with own:
        try:
            yield temporary
        except tf.errors.OpError as error:  # TensorFlow has the system's words, not its number
            number = next((n for n in NO_ROOM if os.strerror(n) in error.message), None)
            if number is None:
                raise
            raise OSError(number, os.strerror(number), str(export_dir)) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _clear(export_dir: Path, name: str) -> None:
    # Of versions, of the command's files, and of this one. What others write aside, codes or an
    # index, has other digits behind its name and no lock: it is not to be touched.
    own = re.compile(rf"\.([0-9]+|encoder.*|{re.escape(name)})\.tmp-[0-9a-f]{{8}}", re.DOTALL)
    for leftover in export_dir.glob(".*.tmp-*"):
        if not own.fullmatch(leftover.name):
            continue
        with (
            contextlib.suppress(OSError),
            _locked(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB, os.O_NOFOLLOW),
        ):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


@contextlib.contextmanager
def _locked(path: Path, kind: int, flags: int = 0) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
