"""Rows that are kept in a file: made once, part by part, and whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import namedtuple

import numpy as np
import pytest

from tfhash.errors import NotNowError, UserError
from tfhash.storage import locks, rows

COUNT = 10


class Maker:
    """Rows [i, 10 i] of items i, but none of those in `without`; remembers what it was asked."""

    def __init__(self, without=()):
        self.asked, self.without = [], set(without)

    def __call__(self, start, stop):
        self.asked.append((start, stop))
        items = [item for item in range(start, stop) if item not in self.without]
        made = np.array([[item, 10 * item] for item in items], np.int32).reshape(-1, 2)
        return made, {"left_out": sorted(self.without & set(range(start, stop)))}


def kept(folder, make, part=4):
    return rows.kept(folder, COUNT, (2,), np.int32, make, part)


EXPECTED = np.stack([np.arange(10), 10 * np.arange(10)], axis=1)


def test_they_are_made_in_parts_and_then_only_read(tmp_path):
    make = Maker()
    first = kept(tmp_path / "a", make)
    assert make.asked == [(0, 4), (4, 8), (8, 10)] and not first.was_there
    again = kept(tmp_path / "a", None, part=7)  # nothing is asked for
    assert again.was_there and again.facts == [{"left_out": []}] * 3
    for found in (first, again):
        assert isinstance(found.array, np.memmap) and found.array.dtype == np.int32
        np.testing.assert_array_equal(found.array, EXPECTED)
    with pytest.raises(ValueError, match="read-only"):
        again.array[0] = 7


def test_the_file_is_the_bytes_of_the_rows(tmp_path):
    kept(tmp_path, Maker())
    assert (tmp_path / "rows").read_bytes() == EXPECTED.astype(np.int32).tobytes()
    assert (tmp_path / "record.jsonl").read_text().count("\n") == 3


def test_items_without_a_row_are_left_out_and_told_again(tmp_path):
    make = Maker(without=(0, 5, 9))
    for _ in range(2):
        found = kept(tmp_path, make)
        np.testing.assert_array_equal(found.array, EXPECTED[[1, 2, 3, 4, 6, 7, 8]])
        assert [of_part["left_out"] for of_part in found.facts] == [[0], [5], [9]]
    assert len(make.asked) == 3


def test_no_rows_at_all_are_an_empty_array(tmp_path):
    make = Maker(without=range(10))
    for _ in range(2):
        assert kept(tmp_path, make).array.shape == (0, 2)
    assert len(make.asked) == 3
    assert rows.kept(tmp_path / "none", 0, (2,), np.int32, None, 4).array.shape == (0, 2)


@pytest.mark.parametrize("whole", [0, 1, 2])
@pytest.mark.parametrize("half", [b"", b"[4, 4", b"[4, 4]\n", b"{}\n", b"null\n", b"\xff\n"])
def test_it_goes_on_after_the_last_line_that_is_whole(tmp_path, whole, half):
    """What follows such a line is taken for nothing, as are rows without a line."""
    kept(tmp_path, Maker())
    record = tmp_path / "record.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:whole]) + half)
    content = bytearray((tmp_path / "rows").read_bytes())
    content[whole * 4 * 8 + 1 :] = b"?" * 33
    (tmp_path / "rows").write_bytes(content)
    make = Maker()
    np.testing.assert_array_equal(kept(tmp_path, make).array, EXPECTED)
    assert make.asked == [(0, 4), (4, 8), (8, 10)][whole:]
    assert record.read_bytes() == b"".join(lines)


def test_a_damaged_part_is_made_anew_and_named(tmp_path, capsys):
    """An array that is in use shows the right rows again."""
    before = kept(tmp_path, Maker()).array
    content = bytearray((tmp_path / "rows").read_bytes())
    content[5 * 8] ^= 1
    with open(tmp_path / "rows", "r+b") as file:
        file.write(content)
    make = Maker()
    found = kept(tmp_path, make)
    assert make.asked == [(4, 8)] and not found.was_there
    np.testing.assert_array_equal(found.array, EXPECTED)
    np.testing.assert_array_equal(before, EXPECTED)
    assert capsys.readouterr().err == f"{tmp_path}/rows is damaged (row 4 on): made anew\n"
    assert kept(tmp_path, None).was_there


def test_a_damaged_part_that_has_other_rows_now_moves_what_follows(tmp_path):
    kept(tmp_path, Maker())
    (tmp_path / "rows").write_bytes(b"\1" + (tmp_path / "rows").read_bytes()[1:])
    make = Maker(without=(1,))
    np.testing.assert_array_equal(kept(tmp_path, make).array, np.delete(EXPECTED, 1, axis=0))
    assert make.asked == [(0, 4), (4, 8), (8, 10)]
    np.testing.assert_array_equal(kept(tmp_path, None).array, np.delete(EXPECTED, 1, axis=0))


def test_forgotten_rows_are_made_anew_and_arrays_in_use_stay(tmp_path):
    before = kept(tmp_path, Maker(without=(1,))).array
    rows.forget(tmp_path)
    np.testing.assert_array_equal(kept(tmp_path, Maker()).array, EXPECTED)
    np.testing.assert_array_equal(before, np.delete(EXPECTED, 1, axis=0))


def test_some_of_them_are_in_a_file_of_their_own(tmp_path):
    array = kept(tmp_path, Maker()).array
    for positions in ([9, 0, 3], [1], [0, 0]):
        found = rows.some_of(array, np.array(positions))
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, EXPECTED[positions])
    assert len(list(tmp_path.glob("some-*"))) == 3


Usage = namedtuple("Usage", "total used free")


def test_without_room_on_the_disk_nothing_begins(tmp_path, monkeypatch):
    """10 rows of 8 bytes are needed, 79 are free; after a part of 4, 48 are enough."""
    make = Maker()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 21, 79))
    words = f"`cache_dir`: 80 bytes are needed in {tmp_path}, 79 are free; allowed: "
    with pytest.raises(NotNowError, match=words):
        kept(tmp_path, make)
    assert make.asked == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 20, 80))
    kept(tmp_path, make)
    lines = (tmp_path / "record.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_bytes(lines[0])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 52, 48))
    np.testing.assert_array_equal(kept(tmp_path, make).array, EXPECTED)


@pytest.mark.parametrize("call", range(6))
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_gets_full_ends_it_and_the_next_call_goes_on(
    tmp_path, monkeypatch, call, number
):
    """The writes are in turn a part and its line; what had its line is not made again."""
    plain, calls = os.pwrite, []

    def refuse(*arguments):
        calls.append(arguments)
        if len(calls) == call + 1:
            raise OSError(number, os.strerror(number))
        return plain(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        with pytest.raises(NotNowError, match=f"`cache_dir`: cannot write to {tmp_path}"):
            kept(tmp_path, Maker())
    make = Maker()
    np.testing.assert_array_equal(kept(tmp_path, make).array, EXPECTED)
    assert make.asked == [(0, 4), (4, 8), (8, 10)][call // 2 :]


def test_a_limit_of_the_system_is_told_too(tmp_path, file_size_limit):
    with file_size_limit(50), pytest.raises(NotNowError, match="File too large"):
        kept(tmp_path, Maker())
    make = Maker()
    np.testing.assert_array_equal(kept(tmp_path, make).array, EXPECTED)
    assert make.asked == [(4, 8), (8, 10)]


def test_a_write_that_takes_only_some_bytes_is_gone_on_with(tmp_path, monkeypatch):
    plain = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: plain(fd, data[:3], offset))
    kept(tmp_path, Maker())
    monkeypatch.undo()
    np.testing.assert_array_equal(kept(tmp_path, None).array, EXPECTED)


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="`cache_dir`: cannot write to .*a"):
        kept(tmp_path / "a", Maker())


def test_an_error_of_the_maker_is_its_own_and_frees_the_folder(tmp_path):
    def broken(start, stop):
        raise OSError("of a file that is read")

    with pytest.raises(OSError, match="of a file that is read") as error:
        kept(tmp_path, broken)
    assert not isinstance(error.value, UserError)
    np.testing.assert_array_equal(kept(tmp_path, Maker()).array, EXPECTED)


def test_of_two_at_once_one_makes_and_the_other_reads(tmp_path, capsys):
    """The second one comes while the first is at its second part."""
    begun, goes_on, make = threading.Event(), threading.Event(), Maker()

    def slow(start, stop):
        if start:
            begun.set()
            assert goes_on.wait(60)
        return make(start, stop)

    found = {}
    first = threading.Thread(target=lambda: found.update(first=kept(tmp_path, slow)))
    second = threading.Thread(target=lambda: found.update(second=kept(tmp_path, None)))
    first.start()
    assert begun.wait(60)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    goes_on.set()
    first.join()
    second.join()
    assert (found["first"].was_there, found["second"].was_there) == (False, True)
    np.testing.assert_array_equal(found["second"].array, EXPECTED)
    assert f"works in {tmp_path}: this one waits" in capsys.readouterr().out


def test_a_file_system_without_locks_is_no_reason_not_to_work(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    np.testing.assert_array_equal(kept(tmp_path, Maker()).array, EXPECTED)
