"""How much memory this process may still take."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# The limits of a process, and what /proc/self/status says of its use.
_LIMITS = ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData"))


def available(proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Bytes that the system can still give, and no limit of a container or of the process forbids.

    Files that the system holds in memory count as free, for it drops them where need be.
    """
    return max(0, min([_of_system(proc), *_of_limits(proc), *_of_groups(proc, groups)]))


def _of_system(proc: Path) -> int:
    free = _fields(proc / "meminfo").get("MemAvailable")
    if free is None:  # no Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free * 1024


def _of_limits(proc: Path) -> Iterator[int]:
    used = _fields(proc / "self" / "status")
    for limit, name in _LIMITS:
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            yield most - used.get(name, 0) * 1024


def _of_groups(proc: Path, groups: Path) -> Iterator[int]:
    """What each control group that the process is in leaves of its limit, version 1 or 2."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, place = line.split(":", 2)
        if controllers == "memory":
            root, most, now = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        elif not controllers:
            root, most, now = groups, "memory.max", "memory.current"
        else:
            continue
        own = Path(place.lstrip("/"))
        for group in (own, *own.parents):
            limit, used = (_number(root / group / name) for name in (most, now))
            if limit is not None and used is not None:
                statistics = _fields(root / group / "memory.stat")
                files = ("active_file", "inactive_file")
                yield limit - used + sum(statistics.get(name, 0) for name in files)


def _number(path: Path) -> int | None:
    """What the file says; None where there is none, or no limit in it."""
    text = "".join(_lines(path))
    return int(text) if text.isdecimal() else None


def _fields(path: Path) -> dict[str, int]:
    """The numbers of lines like `MemAvailable: 123 kB`, as they stand there."""
    words = [line.replace(":", " ").split() for line in _lines(path)]
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdecimal()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
