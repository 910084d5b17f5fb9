"""Processes that are killed while they change an index: what they had answered is there."""

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

from tests.search.items import COUNT, in_folder, made
from tfhash.errors import UserError
from tfhash.search.index import Index

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
        index = Index(code_length=8, path=folder, model="m1", backend="exact")
        index.add(codes, ids=[*"abcdefghi"])
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
