"""Where large arrays are, and how much memory there is for them."""

from __future__ import annotations

import os
import resource
import shutil
from collections import namedtuple

import numpy as np
import pytest

from tfhash.errors import NotNowError, UserError
from tfhash.storage import memory
from tfhash.storage.place import Storage

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def a_thousand_bytes(monkeypatch):
    """Of memory are free."""
    monkeypatch.setattr(memory, "available", lambda: 1000)


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("memory", 10**15, False),
        ("disk", 1, True),
        ("auto", 250, False),  # a quarter of what is free
        ("auto", 251, True),
    ],
)
def test_what_has_its_place_on_disk(tmp_path, kind, size, expected):
    assert Storage(kind, tmp_path).on_disk(size) is expected
    assert not Storage(kind).on_disk(size)


@pytest.mark.parametrize("kind", ["memory", "disk", "auto"])
def test_an_array_to_be_filled(tmp_path, kind):
    """Of 63 numbers of 4 bytes, more than a quarter; in a folder that is made, without a name."""
    array = Storage(kind, tmp_path / "a").empty((7, 9), np.float32)
    assert (array.shape, array.dtype) == ((7, 9), np.float32)
    assert isinstance(array, np.memmap) == (kind != "memory")
    values = np.random.default_rng(0).random((7, 9), np.float32)
    array[:] = values
    np.testing.assert_array_equal(array, values)
    assert list(tmp_path.rglob("*")) == ([] if kind == "memory" else [tmp_path / "a"])


def test_an_array_without_numbers_needs_no_disk(tmp_path):
    assert Storage("disk", tmp_path / "a").empty((0, 9), np.float32).shape == (0, 9)
    assert not (tmp_path / "a").exists()


def test_without_room_there_is_no_array(tmp_path, monkeypatch, file_size_limit):
    storage = Storage("disk", tmp_path)
    with file_size_limit(251), pytest.raises(NotNowError, match="`cache_dir`: .*File too large"):
        storage.empty((7, 9), np.float32)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1000, 749, 251))
    with pytest.raises(NotNowError, match="`cache_dir`: 252 bytes are needed in .*, 251 are free"):
        storage.empty((7, 9), np.float32)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="`cache_dir`: cannot write to .*file"):
        Storage("disk", tmp_path / "file").empty((7, 9), np.float32)


def files(root, content):
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


PROC = {"proc/meminfo": "MemTotal: 9999 kB\nMemAvailable:    5000 kB\n"}
TWO = "0::/user/run\n"
KIB = 1024

# What the system says, and how many bytes may then be taken, worked out by hand.
SYSTEMS = {
    "no groups": ({}, 5000 * KIB),
    "a group without a limit": (
        {"proc/self/cgroup": TWO, "groups/user/run/memory.max": "max\n",
         "groups/user/run/memory.current": "7\n"},
        5000 * KIB,
    ),
    "a group": (
        {"proc/self/cgroup": TWO, "groups/user/run/memory.max": "3000\n",
         "groups/user/run/memory.current": "1000\n"},
        2000,
    ),
    "files that the group holds can go": (
        {"proc/self/cgroup": TWO, "groups/user/run/memory.max": "3000\n",
         "groups/user/run/memory.current": "2900\n",
         "groups/user/run/memory.stat": "anon 5\nactive_file 300\ninactive_file 70\n"},
        470,
    ),
    "the group around it": (
        {"proc/self/cgroup": TWO, "groups/user/memory.max": "500\n",
         "groups/user/memory.current": "100\n"},
        400,
    ),
    "a container": (
        {"proc/self/cgroup": "0::/\n", "groups/memory.max": "50\n", "groups/memory.current": "60"},
        0,
    ),
    "version 1": (
        {"proc/self/cgroup": "3:cpu:/\n2:memory:/a\n",
         "groups/memory/a/memory.limit_in_bytes": "800\n",
         "groups/memory/a/memory.usage_in_bytes": "500\n"},
        300,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), SYSTEMS.values(), ids=SYSTEMS)
def test_the_memory_that_is_free(tmp_path, monkeypatch, content, expected):
    monkeypatch.undo()
    files(tmp_path, PROC | content)
    assert memory.available(tmp_path / "proc", tmp_path / "groups") == expected


def test_a_limit_of_the_process_counts(tmp_path, monkeypatch):
    monkeypatch.undo()
    files(tmp_path, PROC | {"proc/self/status": "VmSize: 9000 kB\nVmData:\t 40 kB\n"})
    limits = {resource.RLIMIT_DATA: 100 * KIB}
    monkeypatch.setattr(resource, "getrlimit", lambda of: (limits.get(of, -1), -1))
    assert memory.available(tmp_path / "proc", tmp_path / "groups") == 60 * KIB


def test_without_proc_it_is_all_memory(tmp_path, monkeypatch):
    monkeypatch.undo()
    expected = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.available(tmp_path, tmp_path) == expected


def test_here_it_is_more_than_nothing_and_less_than_all(monkeypatch):
    monkeypatch.undo()
    assert 0 < memory.available() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
