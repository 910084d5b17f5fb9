"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tfhash.errors import NO_LOCKS, NotNowError, unwritable

_LOCK = ".lock"


@contextlib.contextmanager
def lock(directory: Path, setting: str, wait: bool = False) -> Iterator[None]:
    """Holds a folder, which is made, against other processes; the kernel frees it when one dies.

    setting: what names the folder, for the error. wait: until it is free, which is told.
    NotNowError where another process holds it, UserError where it cannot be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file: BinaryIO = open(directory / _LOCK, "a+b", buffering=0)
    except OSError as error:
        raise unwritable(f"`{setting}`", directory, error) from None
    with file:
        try:
            _hold(file, directory, setting, wait)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise unwritable(f"`{setting}`", directory, error) from None
        with contextlib.suppress(OSError):  # the number is for the message alone
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


def _hold(file: BinaryIO, directory: Path, setting: str, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        works = f"process {file.read(20).decode() or '?'} works in {directory}"
        if not wait:
            raise NotNowError(
                f"`{setting}`: {works}; allowed: to wait for its end, or another folder"
            ) from None
        print(f"{works}: this one waits for it", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
