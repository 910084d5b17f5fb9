"""The folder of an index: damage, full disks, copies, and processes that are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from tests.search.items import BITS, COUNT, in_folder, made
from tfhash.errors import NotNowError, UserError
from tfhash.search.index import Index


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


WRITER = """
    import sys
    import numpy as np
    from tfhash.search.index import Index

    index = Index.load(sys.argv[1])
    for number in range(10**6):
        codes = np.full((50, 3), number % 256, np.uint8) & [255, 255, 240]
        names = [f"{number}-{n}" for n in range(50)]
        index.add(codes.astype(np.uint8), ids=names)
        if number % 3 == 2:
            index.remove([f"{number - 1}-{n}" for n in range(50)])
        if number % 20 == 19:
            index._store.compact()
        print(number, flush=True)
"""


@pytest.mark.parametrize("wait", [0.0, 0.03, 0.11])
def test_kill_9_loses_nothing_that_was_answered(tmp_path, wait):
    """What a process had said to be done is there, whole; what it was at is there whole or not."""
    folder = in_folder(tmp_path)
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(25):
        process.stdout.readline()
    time.sleep(wait)
    os.kill(process.pid, signal.SIGKILL)
    *_, last = ["24", *process.communicate()[0].split()]
    with Index.load(folder) as index:
        ids = set(index.ids())
        done = int(last)
        for number in range(done + 2):
            of_number = {f"{number}-{n}" for n in range(50)}
            gone = number % 3 == 1 and number < done
            unsure = number > done or (number % 3 == 1 and number == done)
            assert not of_number & ids if gone else of_number <= ids or unsure, (number, done)
            assert len(of_number & ids) in (0, 50)
        assert set(made()[1]) <= ids
        found = index.search(made(2)[0], radius=0).ids
        assert found[0] and set(found[0]) <= ids
        index.add(made(1)[0], ids=["after"])


STOPS = """
    import os, sys
    import numpy as np
    from tfhash.search import copying, snapshot, store
    from tfhash.search.index import Index

    what, folder, stop = sys.argv[1], sys.argv[2], int(sys.argv[3])
    calls = 0

    def counted(plain):
        def call(*arguments, **options):
            global calls
            calls += 1
            if calls == stop:
                os._exit(9)
            return plain(*arguments, **options)
        return call

    index = None
    if what != "make":
        index = Index.load(folder)
    for module, name in ((os, "fsync"), (os, "rename"), (store.Store, "set_meta"),
                         (store.Store, "append"), (os, "unlink")):
        setattr(module, name, counted(getattr(module, name)))
    if what == "make":
        codes = np.arange(9, dtype=np.uint8)[:, None]
        Index(code_length=8, path=folder, model="m1", backend="exact").add(codes, ids="abcdefghi")
    if what == "save":
        index.save(folder + "-copy")
    if what == "compact":
        index.remove(index.ids()[:40])
        index.compact()
    print(calls)
"""


def stopped(what, folder, stop):
    """A process ended at its stop-th step; how many steps it takes where it was not."""
    command = [sys.executable, "-c", textwrap.dedent(STOPS), what, str(folder), str(stop)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode in (0, 9), ended.stderr
    return None if ended.returncode else int(ended.stdout)


def each_stop(what, folder_of):
    """Folders in which processes ended, at one step after another, until one came to its end."""
    stop = 0
    while True:
        stop += 1
        folder = folder_of(stop)
        steps = stopped(what, folder, stop)
        yield folder
        if steps is not None:
            assert stop > 5, "nothing was stopped"
            return


def test_a_process_killed_while_it_makes_an_index_leaves_none_or_a_whole_one(tmp_path):
    outcomes = set()
    for folder in each_stop("make", lambda stop: tmp_path / str(stop)):
        try:
            with Index.load(folder) as index:
                outcomes.add(len(index))
                assert (index.model, index.facts()["backend"]) == ("m1", "exact")
                assert index.ids() in ([], list("abcdefghi"))
        except UserError as error:
            assert "`index`: no index in " in str(error)
            outcomes.add("none")
            Index(code_length=12, path=folder).close()  # the folder is free
    assert outcomes == {"none", 0, 9}


def test_a_process_killed_while_it_saves_leaves_a_whole_copy_or_none(tmp_path):
    folder = in_folder(tmp_path)
    for _ in each_stop("save", lambda stop: folder):
        copy = tmp_path / "i-copy"
        if copy.exists():
            with Index.load(copy) as index:
                assert len(index) == COUNT and index.notes == []
            shutil.rmtree(copy)
        with Index.load(folder) as index:
            assert len(index) == COUNT


def test_a_process_killed_while_it_writes_the_file_anew_loses_nothing(tmp_path):
    def fresh(stop):
        (tmp_path / str(stop)).mkdir()
        return in_folder(tmp_path / str(stop))

    for folder in each_stop("compact", fresh):
        with Index.load(folder) as index:
            assert len(index) in (COUNT, COUNT - 40)
            codes, ids = made()
            there = index.ids()
            expected = [codes[ids.index(name)] for name in there]
            np.testing.assert_array_equal(index.codes(there), expected)
            index.add(codes[:1], ids=["later"])
            index.remove(index.ids()[:-5])
            index.compact()
            assert len(index.search(codes[:1], k=99).ids[0]) == 5
        (codes_file,) = folder.glob("codes-*")
        assert codes_file.stat().st_size == 5 * 8
        assert {path.name for path in folder.iterdir()} == {
            codes_file.name, codes_file.name.replace("codes", "numbers"), "items.sqlite"
        }  # fmt: skip


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


def test_an_index_of_another_format_is_one_line(tmp_path):
    folder = in_folder(tmp_path)
    with Index.load(folder) as index, index._store.transaction():
        index._store.set_meta("format", "1")
    with pytest.raises(UserError, match="has format 1; known: 2; move .* away and build it again"):
        Index.load(folder)
