"""Several processes at one index, each as one of the objects here: they share the files alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.search.items import in_folder, made
from tfhash.errors import NotNowError
from tfhash.search import tables
from tfhash.search.answers import found_of
from tfhash.search.index import Index


def test_another_process_that_writes_is_waited_for_and_then_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "WAIT_SECONDS", 0.1)
    folder = in_folder(tmp_path)
    with Index.load(folder) as one, Index.load(folder) as other:
        queries = made(2)[0]
        other.search(queries)
        with one._store.transaction(), pytest.raises(NotNowError, match="another process changes"):
            other.add(queries, ids=["x", "y"])
        one.add(queries, ids=["x", "y"])
        assert other.search(queries, radius=0).ids == one.search(queries, radius=0).ids
        assert "x" in other.search(queries, radius=0).ids[0]
        one.remove(one.ids()[:30])
        one._store.compact()
        assert other.search(queries, k=99).ids == one.search(queries, k=99).ids


def of_bytes(count, seed=0):
    """48-bit codes that are all far from each other."""
    return np.random.default_rng(seed).integers(0, 256, (count, 6), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """An index of a000 to a099."""
    names = [f"a{n:03d}" for n in range(100)]
    Index(of_bytes(100), ids=names, code_length=48, path=tmp_path / "i").close()
    return tmp_path / "i"


def test_what_another_process_added_is_there_after_the_file_is_written_anew(folder):
    with Index.load(folder) as one:
        one.remove(one.ids()[:50])
        one.search(of_bytes(1))  # one has looked at its items
        with Index.load(folder) as other:
            other.add(of_bytes(10, 1), ids=[f"b{n}" for n in range(10)])
        assert one.compact() == 50
        assert len(one) == 60
    with Index.load(folder) as again:
        assert len(again.search(of_bytes(1), k=99).ids[0]) == 60
        np.testing.assert_array_equal(again.codes(["b3", "a077"])[0], of_bytes(10, 1)[3])
        np.testing.assert_array_equal(again.codes(["b3", "a077"])[1], of_bytes(100)[77])


@pytest.mark.parametrize("warm", ["ids", "codes", "search", "content", "first_number"])
def test_every_question_sees_what_others_have_changed(folder, warm, tmp_path):
    """Whatever was asked first: another process removes, writes the file anew and adds."""
    asked = {
        "ids": lambda i: i.ids(),
        "codes": lambda i: i.codes(["a050"]),
        "search": lambda i: i.search(of_bytes(1), k=99).ids,
        "content": lambda i: i.content(),
        "first_number": lambda i: i.first_number(),
    }
    with Index.load(folder) as one, Index.load(folder) as other:
        asked[warm](one)
        number = one.numbers_and_codes(["a050"])[0][0]
        other.remove([f"a{n:03d}" for n in range(30)])
        assert other.compact() == 30
        other.add(of_bytes(30, 1), ids=[f"b{n:02d}" for n in range(30)], payload=[1] * 30)
        for name in ["first_number", "ids", "search", "content"]:
            assert asked[name](one) == asked[name](other)
        names = ["a050", "b07", "a099"]
        expected = [of_bytes(100)[50], of_bytes(30, 1)[7], of_bytes(100)[99]]
        np.testing.assert_array_equal(one.codes(names), expected)
        assert one.payload(["b07", "a050"]) == [1, None]
        assert one.names_of([number]) == ["a050"]
        found = found_of(one, [["b07"]], ["a050"])
        assert found.distances[0] == np.unpackbits(expected[0] ^ expected[1]).sum()
        one.save(tmp_path / "copy")
        assert one.compact() == 0
    with Index.load(tmp_path / "copy") as copy:
        assert len(copy) == 100
        np.testing.assert_array_equal(copy.codes(names), expected)


@pytest.mark.parametrize("asked", ["of_numbers", "codes", "rank"])
def test_a_search_is_of_one_moment(folder, monkeypatch, asked):
    """Between its steps another process removes items, writes the file anew and adds others."""
    one, other = Index.load(folder), Index.load(folder)
    one.search(of_bytes(1))
    done = []

    def change():
        if not done:
            done.append(1)
            other.remove([f"a{n:03d}" for n in range(40)] + ["a060"])
            other.compact()
            other.add(of_bytes(40, 1), ids=[f"b{n}" for n in range(40)])

    cls = type(one._store)
    plain = getattr(cls, asked)
    if asked == "of_numbers":

        def changed(self, *arguments):
            if self is one._store:
                change()
            return plain(self, *arguments)

        monkeypatch.setattr(cls, asked, changed)
    else:

        def seen(self):
            if self is one._store:
                change()
            return plain.fget(self)

        monkeypatch.setattr(cls, asked, property(seen))
    found = one.search(of_bytes(100)[60:61], k=1)
    assert done and (found.ids, found.distances[0].tolist()) == ([["a060"]], [0])
    later = one.search(of_bytes(100)[60:61], k=1)
    assert later.distances[0] > 0
    one.close()
    other.close()


def test_who_opens_a_file_that_is_just_written_anew_takes_the_new_one(folder, monkeypatch):
    with Index.load(folder, check=False) as one, Index.load(folder) as other:
        other.remove(other.ids()[:50])
        plain, done = one._store._mapped, []

        def mapped(*arguments):
            if not done:  # the state was read; the file goes before it is opened
                done.append(other.compact())
            return plain(*arguments)

        monkeypatch.setattr(one._store, "_mapped", mapped)
        assert one.search(of_bytes(100)[70:71], k=1).ids == [["a070"]]
        assert done == [50]


def test_who_searches_is_not_locked_out_by_a_large_change(folder, monkeypatch):
    monkeypatch.setattr(tables, "WAIT_SECONDS", 0.1)
    codes, query = np.zeros((60_000, 1), np.uint64), of_bytes(100)[3:4]
    with Index.load(folder) as one, Index.load(folder) as reader:
        with one._store.transaction():
            # More than SQLite keeps in memory of a change.
            one._store.append(codes, [f"y{n:0500d}" for n in range(len(codes))], None)
            assert reader.search(query, k=1).ids == [["a003"]]
        assert len(reader) == 60_100
        one.remove([f"y{n:0500d}" for n in range(50_000)])
        plain = one._store.set_meta

        def set_meta(*arguments):
            assert reader.search(query, k=1).ids == [["a003"]]
            plain(*arguments)

        monkeypatch.setattr(one._store, "set_meta", set_meta)
        assert one.compact() == 50_000
        assert reader.search(query, k=1).ids == [["a003"]]


def test_numbers_are_of_items_for_good(folder):
    """Not used again, whatever is removed, replaced and written anew; in memory too."""
    for index in (
        Index.load(folder),
        Index(of_bytes(100), ids=map(str, range(100)), code_length=48),
    ):
        ids = index.ids()
        before = dict(zip(ids, index.numbers_and_codes(ids)[0].tolist(), strict=True))
        index.remove(ids[90:])
        for _ in range(2):
            index.remove(index.ids()[:40])
            index._store.compact()
            index.add(of_bytes(5), ids=[f"new{len(index)}-{n}" for n in range(5)])
        index.add(of_bytes(1), ids=ids[85:86], replace=True)
        there = index.ids()
        after = dict(zip(there, index.numbers_and_codes(there)[0].tolist(), strict=True))
        kept = set(before) & set(after) - {ids[85]}
        assert len(kept) == 9 and all(before[name] == after[name] for name in kept)
        others = [after[name] for name in after if name not in kept]
        assert min(others) >= 100 and len(set(after.values())) == len(after)
        index.close()
