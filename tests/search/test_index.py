"""The exact index: what it finds, changes, keeps and refuses."""

from __future__ import annotations

import os

import numpy as np
import pytest

import tfhash
from tests.search.items import BITS, COUNT, brute_force, labelled, made
from tfhash.errors import UserError
from tfhash.search import index as index_module
from tfhash.search import store
from tfhash.search.index import Index


def test_it_is_a_name_of_the_face():
    assert tfhash.Index is Index


@pytest.mark.parametrize("k", [1, 7, 60, 100])
def test_the_nearest_by_distance_and_id(index, k):
    codes, ids = made()
    queries, _ = made(5, seed=1)
    found = index.search(queries, k=k)
    assert len(found) == 5
    for number, query in enumerate(queries):
        expected = brute_force(query, codes, ids)
        best = expected[:k]
        assert found.ids[number] == [i for _, i, _ in best]
        assert found.distances[number].tolist() == [d for d, _, _ in best]
        assert found.payload[number] == [labelled()[n] for _, _, n in best]
        assert found.ties_cut[number] == sum(d == best[-1][0] for d, _, _ in expected[k:])
    assert index.search(queries).ids == [ids[:10] for ids in index.search(queries, k=60).ids]


@pytest.mark.parametrize("radius", [0, 4, 9])
def test_all_within_a_radius(index, radius):
    codes, ids = made()
    queries = np.concatenate([codes[:2], made(2, seed=1)[0]])
    found = index.search(queries, radius=radius)
    for number, query in enumerate(queries):
        expected = [i for d, i, _ in brute_force(query, codes, ids) if d <= radius]
        assert found.ids[number] == expected
    assert len(found.ids[0]) > 0 and not found.ties_cut.any()


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        ({"label": "b"}, lambda payload: payload["label"] == "b"),
        ({"label": ["a", "b"], "n": range(30)}, None),
        ({"label": ["a", "b"]}, lambda payload: payload["label"] in "ab"),
        ({"n": 7}, lambda payload: payload["n"] == 7),
        ({"label": "b", "n": [1, 4, 5]}, lambda payload: payload["n"] in (1,)),
        ({"label": "nobody"}, lambda payload: False),
        ({"labels": "a"}, lambda payload: "a" in payload["labels"]),
        ({"labels": ["b", "c"], "n": [5, 7]}, lambda payload: payload["n"] == 5),
        ({"labels": '["a"]'}, lambda payload: False),  # text of JSON is no list
        ({'odd "name': 2}, lambda payload: payload["n"] % 4 == 2),
        ({'odd "name': "a"}, lambda payload: False),  # it is in a list of the list
        ({"other": 1}, lambda payload: False),
        ({"label": []}, lambda payload: False),
    ],
)
def test_a_filter_never_answers_short(index, where, keep):
    codes, ids = made()
    if keep is None:  # a range is no list
        with pytest.raises(UserError, match=r"`where`: n=range\(0, 30\); allowed: text, numbers"):
            index.search(codes[:1], where=where)
        return
    of_place = [payload is not None and keep(payload) for payload in labelled()]
    (found,) = index.search(codes[:1], k=50, where=where).ids
    assert found == [i for _, i, _ in brute_force(codes[0], codes, ids, lambda n: of_place[n])]


@pytest.mark.parametrize("limit", [0, 3, 12, 99])
def test_a_limit_counts_all_and_answers_the_first(index, limit):
    codes, _ = made()
    relaxed = np.random.default_rng(7).random((4, BITS)).astype(np.float32)
    for arguments in ({"k": 12}, {"radius": 9}, {"k": 12, "embeddings": relaxed}):
        whole = index.search(codes[:4], **arguments)
        found = index.search(codes[:4], **arguments, limit=limit)
        assert whole.counts is None
        assert found.counts.tolist() == [len(ids) for ids in whole.ids]
        assert found.ties_cut.tolist() == whole.ties_cut.tolist()
        for n in range(4):
            assert found.ids[n] == whole.ids[n][:limit]
            assert found.distances[n].tolist() == whole.distances[n].tolist()[:limit]
            assert found.payload[n] == whole.payload[n][:limit]
    assert found.scores[0].tolist() == whole.scores[0].tolist()[:limit]
    with pytest.raises(UserError, match="`limit`: -1; allowed: whole numbers from 0 on"):
        index.search(codes[:4], limit=-1)


def test_an_exact_index_needs_no_setting_up(index):
    index.set_backend("exact", recall=0.5)
    assert index.optimise() == "" and index.notes == []
    with pytest.raises(UserError, match="`backend`: 'annoy'; allowed: exact, ivf"):
        index.set_backend("annoy")
    assert index.facts()["backend"] == "exact"


def test_adding_and_removing_are_as_building_anew(index):
    codes, ids = made()
    more, names = made(30, seed=2)
    index.add(more, ids=names)
    gone = ids[5:25] + names[:3]
    index.remove(gone)
    changed = [ids[0], ids[40]]
    index.add(more[:2], ids=changed, payload=["new", 1.5], replace=True)
    assert len(index) == COUNT + 30 - 23
    assert ids[0] in index and ids[5] not in index
    of_names = zip(ids + names, np.concatenate([codes, more]), strict=True)
    expected = dict(of_names) | dict(zip(changed, more[:2], strict=True))
    for name in gone:
        del expected[name]
    assert index.ids() == sorted(expected)
    np.testing.assert_array_equal(index.codes(index.ids()), [expected[n] for n in index.ids()])
    assert index.payload(changed + [ids[1], names[5]]) == ["new", 1.5, labelled()[1], None]
    fresh = Index(np.array([*expected.values()]), ids=[*expected], code_length=BITS)
    for arguments in ({"k": 9}, {"radius": 6}):
        one, other = (i.search(made(6, seed=3)[0], **arguments) for i in (index, fresh))
        assert one.ids == other.ids
        assert one.ties_cut.tolist() == other.ties_cut.tolist()


def test_what_is_removed_can_be_cut_out(index):
    before = index.search(made(4, seed=1)[0], k=60)
    gone = index.ids()[:20]
    index.remove(gone)
    assert len(index._store.codes) == COUNT
    assert index._store.compact() == 20
    assert (len(index._store.codes), index._store.compact()) == (40, 0)
    after = index.search(made(4, seed=1)[0], k=60)
    for ids, others in zip(before.ids, after.ids, strict=True):
        assert [i for i in ids if i not in gone] == others
    index.add(made(1)[0], ids=["later"])
    assert index.search(made(1)[0], radius=0).ids[0][-1] == "later"


def test_an_index_may_be_empty():
    index = Index(code_length=BITS)
    found = index.search(made(3)[0])
    assert found.ids == [[], [], []] and len(index) == 0 and index.ids() == []
    assert repr(index) == "Index(0 codes of 20 bits, in memory)"


def test_an_emptied_index_takes_items_again(index, tmp_path):
    codes, ids = made(5, seed=1)
    for _ in range(2):
        index.remove(index.ids())
        index.compact()
        index.add(codes, ids=ids)
        assert sorted(index.search(codes[:1], k=9).ids[0]) == index.ids() == sorted(ids)
    if index._store.directory is None:
        index.save(tmp_path / "i")
    with Index.load(index._store.directory or tmp_path / "i") as again:
        np.testing.assert_array_equal(again.codes(ids), codes)


def test_numbers_are_ids_as_text_is():
    codes, _ = made(12)
    index = Index(codes, ids=range(12), code_length=BITS, payload=[*"abcdefghijkl"])
    assert 3 in index and "3" in index and 12 not in index
    np.testing.assert_array_equal(index.codes([3, np.int64(11)]), codes[[3, 11]])
    assert index.payload([3, "11"]) == ["d", "l"]
    index.remove([2, 3])
    assert 3 not in index and len(index) == 10


def test_a_closed_index_says_so(index):
    codes, _ = made(1)
    index.close()
    for use in (index.ids, index.compact, index.optimise, lambda: index.search(codes),
                lambda: len(index), lambda: index.add(codes, ids=["x"])):  # fmt: skip
        with pytest.raises(UserError, match="^`index`: it was closed$"):
            use()


def test_an_index_may_be_closed_while_it_is_read(index):
    with index.reading():
        index.close()
        with pytest.raises(UserError, match="^`index`: it was closed$"):
            index.ids()


def test_names_that_are_no_utf8_and_long_codes(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    codes = np.random.default_rng(0).integers(0, 256, (3, 38), np.uint8)
    codes[:, -1] &= 0xF0
    Index(codes, ids=["b", name, "a"], code_length=300, path=tmp_path / "i").close()
    with Index.load(tmp_path / "i") as index:
        assert index.search(codes[1:2], k=1).ids == [[name]]
        assert index.ids() == ["a", "b", name]
        np.testing.assert_array_equal(index.codes([name]), codes[1:2])


@pytest.mark.parametrize(
    ("use", "line"),
    [
        (lambda i: i.add(made(2)[0], ids=["x"]), "`ids`: 1, but 2 codes; allowed: one of each"),
        (lambda i: i.add(made(2)[0], ids=["x", "x"]), "`ids`: x twice; allowed: each once"),
        (lambda i: i.add(made(1)[0], ids=[made()[1][3]]), "already in the index; allowed: others"),
        (lambda i: i.add(made(1)[0][:, :2], ids=["x"]), r"`codes`: .*\[n, 3\] for code_length=20"),
        (
            lambda i: i.add(made(1)[0], ids=["x"], payload=[{1}]),
            "`payload`: {1} is no JSON".replace("{", r"\{"),
        ),
        (lambda i: i.add(made(1)[0], ids=["x"], payload=[float("nan")]), "`payload`: nan is no"),
        (lambda i: i.add(made(2)[0], ids=["x", "y"], payload=[1]), "`payload`: 1, but 2 codes"),
        (lambda i: i.remove(["x", "y", "z"]), "`ids`: x, y and 1 more not in the index"),
        (lambda i: i.codes(["x"]), "`ids`: x not in the index"),
        (lambda i: i.remove("23"), "`ids`: '23' is one text; allowed: a list of ids"),
        (lambda i: i.add(made(1)[0], ids="x"), "`ids`: 'x' is one text; allowed"),
        (lambda i: i.codes(b"23"), "`ids`: b'23' is one text; allowed"),
        (lambda i: i.payload(""), "`ids`: '' is one text; allowed"),
        (lambda i: i.search(made(1)[0], k=0), "`k`: 0; allowed: whole numbers from 1 on"),
        (lambda i: i.search(made(1)[0], radius=-1), "`radius`: -1; allowed: whole numbers from 0"),
        (lambda i: i.search(made(1)[0], k=True), "`k`: True; allowed"),
        (lambda i: i.search(made(1)[0], k=1, radius=1), "`k`: not with `radius`"),
        (lambda i: i.search(made(1, bits=30)[0]), "`codes`: .* for code_length=20"),
        (lambda i: i.search(made(1)[0], where={"a": None}), "`where`: a=None; allowed"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(index, use, line):
    before = index.ids(), index.search(made(3, seed=1)[0], k=60).ids
    with pytest.raises(UserError, match=line) as caught:
        use(index)
    assert "\n" not in str(caught.value)
    assert (index.ids(), index.search(made(3, seed=1)[0], k=60).ids) == before


def test_an_add_of_which_one_part_fails_adds_nothing(index, monkeypatch):
    monkeypatch.setattr(store, "as_json", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        index.add(made(3, seed=5)[0], ids=["x", "y", "z"], payload=[1, 2, 3])
    assert len(index) == COUNT and "x" not in index
    monkeypatch.undo()
    index.add(made(3, seed=5)[0], ids=["x", "y", "z"], payload=[1, 2, 3])
    assert index.payload(["y"]) == [2]


def test_what_is_twice_is_named_in_short():
    assert index_module.some_of(["a", "b"]) == "a, b"
    assert index_module.some_of(["a\n", "b", "c"]) == r"a\n, b and 1 more"


def test_many_items_are_added_and_found_by_parts(monkeypatch):
    """More rows than a query of SQLite takes at a time."""
    monkeypatch.setattr(store, "_CHUNK", 7)
    codes, ids = made()
    index = Index(codes, ids=ids, code_length=BITS)
    assert index.search(codes[:1], k=60).ids[0] == [
        i for _, i, _ in brute_force(codes[0], codes, ids)
    ]
    index.remove(ids)
    assert len(index) == 0
