"""The folder of an index: damage, full disks, copies, and what can only be read."""

from __future__ import annotations

import os
import sqlite3

import numpy as np
import pytest

from tests.search.items import BITS, COUNT, in_folder, made
from tfhash.errors import NotNowError, UserError
from tfhash.search.index import Index
from tfhash.search.store import Store


def test_it_comes_back_as_it_was_saved(index, tmp_path):
    index.remove(index.ids()[::3])
    queries, _ = made(4, seed=1)
    expected = index.search(queries, k=12)
    index.save(tmp_path / "saved")
    with Index.load(tmp_path / "saved") as loaded:
        found = loaded.search(queries, k=12)
        assert (loaded.code_length, loaded.model, loaded.notes) == (BITS, "m1", [])
        assert len(loaded) == len(index) == 40
    for field in ("ids", "payload"):
        assert getattr(found, field) == getattr(expected, field)
    assert [d.tolist() for d in found.distances] == [d.tolist() for d in expected.distances]
    assert {p.name for p in tmp_path.iterdir()} <= {"saved", "index"}  # nothing aside is left
    with pytest.raises(UserError, match="`path`: .*saved is there already; allowed: a new folder"):
        index.save(tmp_path / "saved")


def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path, file_size_limit):
    codes, ids = made()
    index = Index(codes, ids=ids, code_length=BITS, path=tmp_path / "i")
    more, names = made(90_000, seed=6)[0], [f"x{n}" for n in range(90_000)]
    before = index.search(codes[:3], k=60).ids
    with file_size_limit(300_000), pytest.raises(NotNowError) as caught:
        index.add(more, ids=names)
    assert "`index`: " in str(caught.value) and "\n" not in str(caught.value)
    assert index.search(codes[:3], k=60).ids == before
    index.close()
    with Index.load(tmp_path / "i") as again:
        assert again.search(codes[:3], k=60).ids == before
        again.add(more[:5], ids=names[:5])
        assert len(again) == COUNT + 5


def cut(path, count):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - count)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda d: cut(d / "codes-1.bin", 3), r"codes-1.bin is cut short: 477 bytes, 480 were"),
        (lambda d: flip(d / "codes-1.bin", 99), "codes-1.bin is damaged in codes 0 to 59; move"),
        (
            lambda d: (d / "codes-1.bin").unlink(),
            "codes-1.bin is missing; move .* away and b",
        ),
        (
            lambda d: (d / "items.sqlite").write_bytes(b"no" * 999),
            "is damaged .*; move .* away and build",
        ),
        (lambda d: (d / "items.sqlite").write_bytes(b""), "is damaged .no such table"),
        (lambda d: (d / "items.sqlite").unlink(), "`index`: no index in "),
    ],
)
def test_damage_is_one_line(tmp_path, damage, line):
    folder = in_folder(tmp_path)
    damage(folder)
    with pytest.raises(UserError, match=line) as caught:
        Index.load(folder)
    assert "\n" not in str(caught.value) and "`index`: " in str(caught.value)


def test_a_torn_tail_is_told_and_cut_off_by_the_next_change(tmp_path):
    folder = in_folder(tmp_path)
    with open(folder / "codes-1.bin", "ab") as file:
        file.write(b"\1" * 20)
    with Index.load(folder) as index:
        assert index.notes == [
            "2 codes at the end belong to a change that did not end: passed over"
        ]
        assert len(index.search(made(1)[0], k=99).ids[0]) == COUNT
        index.add(made(1)[0], ids=["x"])
    assert (folder / "codes-1.bin").stat().st_size == 61 * 8
    with Index.load(folder) as index:
        assert index.notes == [] and len(index) == COUNT + 1


def test_no_second_index_in_a_folder(tmp_path):
    folder = in_folder(tmp_path)
    with pytest.raises(UserError, match="`index`: .* holds an index already"):
        Index(code_length=12, path=folder)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="`index`: cannot write to"):
        Index(code_length=12, path=tmp_path / "file")


def test_an_index_that_cannot_be_made_leaves_its_folder_free(tmp_path):
    codes, _ = made(2)
    with pytest.raises(UserError, match="`ids`: x twice"):
        Index(codes, ids=["x", "x"], code_length=BITS, path=tmp_path / "new" / "i")
    assert not (tmp_path / "new" / "i").exists()
    Index(codes, ids=["x", "y"], code_length=BITS, path=tmp_path / "new" / "i").close()
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="`payload`: "):
        Index(codes, ids=["x", "y"], code_length=BITS, payload=[{1}, 2], path=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "mine.txt"}


def test_a_copy_has_all_that_is_known_and_the_mode_of_any_folder(tmp_path):
    folder = in_folder(tmp_path)
    with Index.load(folder) as index:
        index.remember(export="/x", folder="/y")
        index.tie("m7")
        index.save(tmp_path / "new" / "copy")
        facts = index.facts()
    with Index.load(tmp_path / "new" / "copy") as copy:
        assert copy.facts() == facts and copy.facts()["export"] == "/x"
        assert (copy.model, str(copy.folder)) == ("m7", "/y")
        with pytest.raises(UserError, match="`model`: m8; the index has codes of m7"):
            copy.tie("m8")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "new" / "copy").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_index_that_can_only_be_read_is_searched(tmp_path, monkeypatch):
    """No log can be written beside it; where somebody else left one, SQLite is asked as ever."""
    folder = in_folder(tmp_path)
    codes, ids = made()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with Index.load(folder) as index:
        assert set(index.search(codes[:1], radius=0).ids[0]) >= {ids[0]}
        with pytest.raises(UserError, match="`index`: cannot write to .*i .*readonly"):
            index.add(codes[:1], ids=["x"])
    assert {path.name for path in folder.iterdir()} == {"items.sqlite", "codes-1.bin"}


@pytest.mark.parametrize("is_open", [True, False])
def test_who_can_only_read_sees_what_others_change(tmp_path, monkeypatch, is_open):
    """While the other process has it open there is a log; after it only another file."""
    folder = in_folder(tmp_path)
    codes, ids = made()

    def can_write(answer):
        monkeypatch.setattr(os, "access", lambda path, mode: answer)

    can_write(False)
    with Index.load(folder) as reader:
        assert len(reader.search(codes[:1], k=99).ids[0]) == COUNT
        can_write(True)
        with Index.load(folder) as owner:
            owner.remove(ids[:40])
            owner.compact()
            owner.add(codes[:1], ids=["x"], payload=["new"])
            if not is_open:
                owner.close()
            can_write(False)
            assert set(reader.search(codes[:1], k=99).ids[0]) == {*ids[40:], "x"}
            assert len(reader) == 21 and reader.payload(["x", ids[50]]) == ["new", None]
        assert (reader._store._stamp is None) == is_open


def test_an_emptied_index_of_before_takes_items(tmp_path):
    """Its table of checks has a row of no codes, which the first ones that come replace."""
    folder = in_folder(tmp_path)
    codes, ids = made()
    with Index.load(folder) as index:
        index.remove(ids)
        index.compact()
    with sqlite3.connect(folder / "items.sqlite") as database:
        database.execute("INSERT INTO checks VALUES (0, 0, 0)")
    database.close()
    with Index.load(folder) as index:
        index.add(codes, ids=ids)
    with Index.load(folder) as index:
        assert index.ids() == sorted(ids)


def test_what_a_table_refuses_is_no_damage(tmp_path):
    codes, ids = made(1)
    with Index(codes, ids=ids, code_length=BITS, path=tmp_path / "i") as index:
        with pytest.raises(UserError, match="`index`: .* constraint .*; nothing of this") as caught:
            with index._store.transaction():
                index._store.append(np.zeros((1, 1), np.uint64), ids, None)
        assert "damaged" not in str(caught.value) and len(index) == 1


def test_two_that_make_an_index_at_once_make_one(tmp_path, monkeypatch):
    """Both see an empty folder; the one that comes second is told, and takes nothing away."""
    plain, codes = Store._check_free, made()[0]

    def faster(directory):
        plain(directory)
        monkeypatch.undo()
        Index(codes[:5], ids=[*"abcde"], code_length=BITS, path=directory).close()

    monkeypatch.setattr(Store, "_check_free", staticmethod(faster))
    with pytest.raises(UserError, match="`index`: .* holds an index already"):
        Index(code_length=12, path=tmp_path / "i")
    with Index.load(tmp_path / "i") as index:
        assert index.ids() == list("abcde") and index.code_length == BITS


def test_items_that_are_missing_are_damage(tmp_path):
    folder = in_folder(tmp_path)
    with sqlite3.connect(folder / "items.sqlite") as database:
        database.execute("DELETE FROM items WHERE number = 7")
    database.close()
    with Index.load(folder) as index:
        with pytest.raises(UserError, match="is damaged .fewer than 60 items in it.; move"):
            index.search(made()[0][:1])


def test_an_index_of_another_format_is_one_line(tmp_path):
    folder = in_folder(tmp_path)
    with Index.load(folder) as index, index._store.transaction():
        index._store.set_meta("format", "1")
    with pytest.raises(UserError, match="has format 1; known: 2; move .* away and build it again"):
        Index.load(folder)
