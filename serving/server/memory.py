"""Memory back to the system: the C library's allocator would keep what large requests needed."""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_LARGE = 4 * 2**20  # smaller blocks are kept for the next request, which is faster
_ARENAS = 4


def give_back_large_blocks() -> None:
    """Has large blocks go back once they are freed, and threads share few heaps.

    For the whole process, so for a command to call. Nothing happens without glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 4 * _LARGE)
        mallopt(_M_ARENA_MAX, _ARENAS)
