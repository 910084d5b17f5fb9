"""What lists of codes find in PostgreSQL: the same as comparing every code."""

from __future__ import annotations

import numpy as np
import pytest

from tests.search.postgres_server import alike, made
from tfhash.errors import UserError
from tfhash.search import postgres_lists
from tfhash.search.index import Index
from tfhash.search.postgres import PostgresIndex


@pytest.fixture(autouse=True)
def _lists_of_few(monkeypatch):
    monkeypatch.setattr(postgres_lists, "FEWEST", 100)
    monkeypatch.setattr(postgres_lists, "PER_LIST", 50)


def opened(server, bits, name):
    return PostgresIndex(server.address, code_length=bits, name=f"{name}{bits}")


@pytest.mark.parametrize("bits", [20, 48, 130])
def test_answers_order_and_ties_are_those_of_exact(server, bits):
    """Near the data and far from it, for few and for most items, with one list looked through."""
    codes, ids = made(4_000, bits)
    payload = [{"n": n % 100} for n in range(len(ids))]
    exact = Index(codes, ids=ids, code_length=bits, payload=payload)
    rng = np.random.default_rng(1)
    near = codes[:20] ^ np.packbits(rng.random((20, bits)) < 0.05, axis=1)
    far = np.packbits(rng.integers(0, 2, (10, bits), np.uint8), axis=1)
    queries = np.concatenate([near, far])
    with opened(server, bits, "answers") as index:
        index.add(codes, ids=ids, payload=payload)
        index.optimise(probes=1)
        assert index.facts()["backend"].endswith("lists looked through")
        for k in (1, 10, 100):
            alike(index, exact, queries, k=k)
        for k in (1_500, 3_999, 5_000):
            alike(index, exact, queries[18:22], k=k)
        for radius in (0, 3, bits // 3):
            alike(index, exact, queries[18:22], radius=radius)
        for arguments in ({"k": 10}, {"k": 100}, {"radius": 5}):
            alike(index, exact, queries, where={"n": [7]}, **arguments)
        gone = [name for name in ids if name > "000300"]
        for one in (index, exact):
            one.remove(gone)
        for k in (1, 10, 500):
            alike(index, exact, queries, k=k)


def test_few_rows_are_read_of_many_ties(server):
    """Two codes of 500 items each: their ties are counted where they are."""
    codes = np.repeat(np.array([[0, 0, 0], [255, 0, 0]], np.uint8), 500, axis=0)
    ids = [f"{n:04d}" for n in range(1_000)]
    with opened(server, 24, "ties") as index:
        index.add(codes, ids=ids, payload=["x" * 1_000] * 1_000)
        rows = []
        plain = index._database.all

        def counted(*arguments, **parts):
            found = plain(*arguments, **parts)
            rows.append(len(found))
            return found

        index._database.all = counted
        found = index.search(codes[:1], k=3)
        assert found.ids == [["0000", "0001", "0002"]] and found.ties_cut.tolist() == [497]
        assert sum(rows) < 10


def test_lists_are_made_once_and_again_when_there_are_many_more(server):
    codes, ids = made(3_000, 48)
    with opened(server, 48, "again") as index:
        assert index.optimise() == "0 distinct codes: all are compared"
        index.add(codes[:1_000], ids=ids[:1_000])
        made_of = index.optimise()
        count = len(np.unique(codes[:1_000], axis=0))
        assert made_of == f"{count:,} distinct codes in {count // 50} lists, 1 looked through"

        def number():  # another one is another index
            return index._database.one("SELECT to_regclass('again48_ivf')::oid")

        first = number()
        index.add(codes[1_000:1_100], ids=ids[1_000:1_100])
        assert f"in {count // 50} lists, 1 " in index.optimise() and number() == first
        assert ", 7 looked through" in index.optimise(probes=7) and number() == first
        assert ", 7 looked through" in index.optimise()
        index.add(codes[1_100:], ids=ids[1_100:])
        count = len(np.unique(codes, axis=0))
        assert f"in {count // 50} lists, 1 " in index.optimise() and number() != first
        with PostgresIndex(server.address, name=index.name) as other:
            assert other._lists.known == index._lists.known
            alike(other, index, codes[:5], k=10)
        index.remove(ids[60:])
        assert "all are compared" in index.optimise() and number() is None
        alike(index, Index(codes[:60], ids=ids[:60], code_length=48), codes[:5], k=10)


@pytest.mark.parametrize("probes", [0, -1, 10**9, 10**30, 1.5, True, 21])
def test_probes_have_bounds(server, probes):
    codes, ids = made(1_000, 48, flipped=0.5)
    with opened(server, 48, "probes") as index:
        index.add(codes, ids=ids, replace=True)
        assert "in 20 lists" in index.optimise()
        with pytest.raises(UserError, match="`probes`: .*; allowed: 1 to .*number of lists"):
            index.optimise(probes=probes)
        assert len(index.search(codes[:1], k=5).ids[0]) == 5


def test_parts_of_a_code_that_differ_little():
    """Of 4 digits with up to one changed: itself and four others."""
    assert postgres_lists._flipped("0110", 1) == ["0110", "1110", "0010", "0100", "0111"]
    assert len(set(postgres_lists._flipped("0110", 4))) == 16
