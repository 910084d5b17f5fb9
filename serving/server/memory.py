"""Memory back to the system: the C library's allocator would keep what large requests needed."""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_LARGE = 2**20
_ARENAS = 4


def give_back_large_blocks() -> None:
    """Has blocks of a MiB and more go back once they are freed, and threads share few heaps.

    For the whole process, so for a command to call. Nothing happens without glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)  # which by itself grows to 32 MiB
        mallopt(_M_TRIM_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, _ARENAS)


def trim() -> None:
    """Gives back the free pages of all heaps."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
