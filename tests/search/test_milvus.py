"""An index in Milvus, tried on milvus-lite, which is a file; see BUILD.md for its environment."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.errors import NotNowError, UserError
from tfhash.search.index import Index

pytest.importorskip("pymilvus", reason="needs the extra milvus")
pytest.importorskip("milvus_lite", reason="needs milvus-lite, in an environment of its own")

from tfhash.search.milvus import MilvusIndex  # noqa: E402

BITS = 24


@pytest.fixture
def index(tmp_path):
    with MilvusIndex(str(tmp_path / "m.db"), code_length=BITS, model="m1") as index:
        yield index


def made(count=60, seed=0, kinds=9):
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2, (kinds, BITS), np.uint8)
    codes = np.packbits(few[rng.integers(0, kinds, count)], axis=1)
    return codes, [f"{n * 37 % 101:03d}é{seed}" for n in range(count)]


def labelled(count=60):
    return [None if n % 5 == 4 else {"label": "abc"[n % 3], "n": n} for n in range(count)]


def test_it_answers_as_the_exact_index(index):
    codes, ids = made()
    exact = Index(codes, ids=ids, code_length=BITS, payload=labelled())
    index.add(codes, ids=ids, payload=labelled())
    queries = np.concatenate([made(5, seed=1)[0], codes[:2]])
    for arguments in (
        {"k": 20}, {"k": 60}, {"radius": 0}, {"radius": 9},
        {"k": 50, "where": {"label": "b"}}, {"k": 50, "where": {"label": ["a", "b"], "n": 7}},
        {"radius": 9, "where": {"label": ["a", "c"]}}, {"k": 5, "where": {"label": []}},
    ):  # fmt: skip
        one, other = (i.search(queries, **arguments) for i in (index, exact))
        assert one.ids == other.ids, arguments
        assert [d.tolist() for d in one.distances] == [d.tolist() for d in other.distances]
        assert one.payload == other.payload
    assert len(index) == 60 and ids[0] in index and "x" not in index


def test_items_are_replaced_and_removed(index):
    codes, ids = made()
    index.add(codes, ids=ids)
    with pytest.raises(UserError, match="already in the index; allowed: others, or replace=True"):
        index.add(codes[:1], ids=ids[:1])
    index.add(codes[:1] ^ np.uint8(255), ids=ids[:1], payload=["new"], replace=True)
    found = index.search(codes[:1] ^ np.uint8(255), k=1)
    assert (found.ids, found.payload) == ([[ids[0]]], [["new"]])
    with pytest.raises(UserError, match="`ids`: x not in the index"):
        index.remove([ids[1], "x"])
    index.remove(ids[:20])
    assert len(index) == 40 and ids[1] not in index


def test_it_is_there_again_and_other_codes_are_refused(tmp_path):
    address = str(tmp_path / "m.db")
    codes, ids = made()
    with MilvusIndex(address, code_length=BITS, model="m1") as index:
        index.add(codes, ids=ids)
    with MilvusIndex(address) as index:
        assert (index.code_length, index.model, len(index)) == (BITS, "m1", 60)
        with pytest.raises(UserError, match="`codes`: .* for code_length=24"):
            index.search(codes[:, :2])
    with pytest.raises(UserError, match="`code_length`: 48, but tfhash has 24"):
        MilvusIndex(address, code_length=48)
    with pytest.raises(UserError, match="`model`: m2, but tfhash has codes of m1"):
        MilvusIndex(address, model="m2")
    with pytest.raises(UserError, match="`index`: no collection other in"):
        MilvusIndex(address, name="other")
    with pytest.raises(UserError, match="`name`: 'a b'; allowed: letters, digits and _"):
        MilvusIndex(address, name="a b")


@pytest.mark.parametrize(
    ("use", "line"),
    [
        (lambda i: i.add(made(1)[0], ids=["caf\udce9"]), r"`ids`: caf\\xe9; allowed: text of 1"),
        (lambda i: i.add(made(1)[0], ids=[""]), "`ids`: ; allowed: text of 1 to 1024 bytes"),
        (lambda i: i.add(made(1)[0], ids=["x" * 2000]), "allowed: text of 1 to 1024 bytes"),
        (lambda i: i.add(made(2)[0], ids=["x", "x"]), "`ids`: x twice"),
        (lambda i: i.add(made(2)[0], ids=["x"]), "`ids`: 1, but 2 codes"),
        (lambda i: i.search(made(1)[0], k=0), "`k`: 0; allowed"),
        (lambda i: i.search(made(1)[0], where={"a": None}), "`where`: a=None; allowed"),
    ],
)
def test_mistakes_are_one_line(index, use, line):
    with pytest.raises(UserError, match=line) as caught:
        use(index)
    assert "\n" not in str(caught.value)


def test_nobody_there_is_one_line():
    with pytest.raises(NotNowError, match="`index`: Milvus at http://127.0.0.1:1: ") as caught:
        MilvusIndex("http://127.0.0.1:1", code_length=12)
    assert "\n" not in str(caught.value)
