"""An index in a real PostgreSQL, which the tests start from a pip package; nothing is installed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.search.postgres_server import alike
from tfhash.errors import UserError
from tfhash.search import build, databases
from tfhash.search.index import Index
from tfhash.search.postgres import PostgresIndex

BITS = 20


@pytest.fixture
def index(server, request):
    name = "t" + str(abs(hash(request.node.name)) % 10**8)
    with PostgresIndex(server.address, code_length=BITS, name=name, model="m1") as index:
        yield index


def made(count=60, seed=0, kinds=9):
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2, (kinds, BITS), np.uint8)
    codes = np.packbits(few[rng.integers(0, kinds, count)], axis=1)
    return codes, [f"{n * 37 % 101:03d}é{seed}" for n in range(count)]


def labelled(count=60):
    """Of each a label and a list of none to two; of every fifth nothing."""
    each = ({"label": "abc"[n % 3], "n": n, "labels": [*"abc"[: n % 3]]} for n in range(count))
    return [None if own["n"] % 5 == 4 else own for own in each]


def test_it_answers_as_the_exact_index(index):
    codes, ids = made()
    exact = Index(codes, ids=ids, code_length=BITS, payload=labelled())
    index.add(codes, ids=ids, payload=labelled())
    queries = np.concatenate([made(5, seed=1)[0], codes[:2]])
    for arguments in (
        {"k": 1}, {"k": 7}, {}, {"k": 99}, {"radius": 0}, {"radius": 9},
        {"k": 5, "where": {"label": "b"}}, {"k": 50, "where": {"label": ["a", "b"], "n": 7}},
        {"radius": 8, "where": {"label": ["a", "c"]}}, {"k": 5, "where": {"label": []}},
        {"k": 50, "where": {"labels": "b"}}, {"k": 50, "where": {"labels": ["b", "a"], "n": 7}},
        {"k": 5, "where": {"nothing": 1}}, {"k": 5, "where": {"n": [1, 2, 3.0]}},
    ):  # fmt: skip
        alike(index, exact, queries, **arguments)
    assert len(index) == 60 and index.ids() == exact.ids() and ids[0] in index


def test_changes_are_all_or_nothing(index):
    codes, ids = made()
    exact = Index(codes, ids=ids, code_length=BITS)
    index.add(codes, ids=ids)
    more, names = made(30, seed=2)
    for one in (index, exact):
        one.add(more, ids=names, payload=names)
        one.remove(ids[5:25])
        one.add(more[:2], ids=[ids[0], ids[40]], payload=["new", 1.5], replace=True)
        with pytest.raises(UserError, match="already in the index; allowed: others, or replace=T"):
            one.add(more[:2], ids=["brand new", ids[0]])
        with pytest.raises(UserError, match="`ids`: x not in the index"):
            one.remove([ids[1], "x"])
        with pytest.raises(UserError, match="`ids`: y twice; allowed: each once"):
            one.add(more[:2], ids=["y", "y"])
        assert len(one) == 70 and ids[1] in one and "brand new" not in one
    alike(index, exact, made(4, seed=3)[0], k=80)
    codes_left = index._database.one("SELECT count(*) FROM {codes}")
    assert codes_left == len(np.unique(exact.codes(exact.ids()), axis=0))


def test_ids_are_text_or_numbers_but_not_one_text(index):
    codes, _ = made(12)
    index.add(codes, ids=range(12), payload=[*"abcdefghijkl"])
    assert 3 in index and (index.codes([3]) == codes[3]).all() and index.payload([3]) == ["d"]
    for use in (index.codes, index.payload, index.remove):
        with pytest.raises(UserError, match="`ids`: '23' is one text; allowed: a list of ids"):
            use("23")
    index.remove([2, 3])
    assert len(index) == 10


def test_names_payload_and_codes_that_it_cannot_hold(index):
    codes, _ = made(1)
    index.add(codes, ids=["there"])
    for name in ("caf\udce9", "a\0b"):
        assert name not in index
        for use in (index.codes, index.payload, index.remove):
            with pytest.raises(UserError, match="`ids`: .* not in the index"):
                use(["there", name])
    assert "there" in index
    index.remove(["there"])
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for payload, line in (
        ({1}, "is no JSON"), (float("nan"), "is no JSON"), (deep, "is no JSON"),
        ({"l": "caf\udce9"}, "text that a database cannot hold"), ("\0", "cannot hold"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"`payload`: .*{line}"):
            index.add(codes, ids=["x"], payload=[payload])
    for where in (
        {"n": float("nan")}, {"n": [1, float("inf")]}, {"l": "caf\udce9"}, {"l\udce9": 1},
        {"l": "\0"}, {"n": 10**30}, {"a": {}}, {"a": None},
    ):  # fmt: skip
        with pytest.raises(UserError, match="`where`: .*; allowed") as caught:
            index.search(codes, where=where)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"`index`: folder .*\\xe9 is no text"):
        index.remember(folder="caf\udce9")
    for name, line in (("caf\udce9", r"`ids`: caf\\xe9 is no text"), ("a\0b", "`ids`: a.x00b is")):
        with pytest.raises(UserError, match=line):
            index.add(codes, ids=[name])
    with pytest.raises(UserError, match="`payload`: .* is no JSON"):
        index.add(codes, ids=["x"], payload=[{1}])
    with pytest.raises(UserError, match="`codes`: .* for code_length=20"):
        index.add(codes[:, :2], ids=["x"])
    with pytest.raises(UserError, match="`ids`: 2, but 1 codes"):
        index.add(codes, ids=["x", "y"])
    with pytest.raises(UserError, match="`where`: a=None; allowed"):
        index.search(codes, where={"a": None})
    with pytest.raises(UserError, match="`k`: 0; allowed"):
        index.search(codes, k=0)
    index.add(codes, ids=["y"], payload=[r"\u0000 as six characters, \\u0000"])
    index.remove(["y"])
    odd = '\'; DROP TABLE x; --\t\\N\n"{q}" %s'
    index.add(codes, ids=[odd], payload=[{odd: odd}])
    assert index.search(codes, where={odd: odd}).ids == [[odd]]


def test_more_than_there_are(index):
    codes, ids = made()
    index.add(codes, ids=ids)
    for arguments in ({"k": 10**30}, {"radius": 10**30}):
        assert sorted(index.search(codes[:1], **arguments).ids[0]) == sorted(ids)


def test_tables_of_another_kind_are_refused(server, index):
    for options, line in (
        ({"code_length": 24}, "`code_length`: 24, but t[0-9]+ in .* has 20"),
        ({"model": "m2"}, "`model`: m2, but t[0-9]+ in .* has codes of m1"),
    ):
        with pytest.raises(UserError, match=line):
            PostgresIndex(server.address, name=index.name, **options)
    with pytest.raises(UserError, match="`index`: no tables nothing_"):
        PostgresIndex(server.address, name="nothing")
    with pytest.raises(UserError, match="`name`: 'x; drop'; allowed: small letters"):
        PostgresIndex(server.address, name="x; drop", code_length=12)
    assert "secret" not in index.place and "127.0.0.1" in index.place


def test_it_is_found_by_its_address(server):
    assert databases.is_address(server.address) and not databases.is_address("runs/x.index")
    assert databases.is_address("milvus://host")
    address = server.address.replace("/postgres", "/template1")
    assert not databases.is_there(address)
    with databases.opened(address, code_length=BITS, model="m1") as made_now:
        assert len(made_now) == 0
    with databases.opened(address) as index:
        assert (index.code_length, index.model) == (BITS, "m1")
    assert databases.is_there(address)


def test_a_name_that_it_cannot_hold_costs_itself(server, photos, draw, fake_encoder):
    """One that is no UTF-8 among seventy others."""
    draw(photos / "a" / "caf\udce9.png", 99)
    encoder = fake_encoder()
    with PostgresIndex(server.address, code_length=12, name="names") as index:
        for encoded in (70, 0):
            changes = build.update(index, encoder, "photos/**", drop=True, text_only=True)
            assert changes.unreadable == {
                "photos/a/caf\udce9.png": "its name is no UTF-8, and the index cannot hold it"
            }
            assert (changes.encoded, len(index)) == (encoded, 70)


def test_the_commands_take_its_address(server, photos, command, monkeypatch, fake_encoder):
    from tfhash.search import __main__ as module

    monkeypatch.setattr(module, "Encoder", lambda folder: fake_encoder())
    index = f"--index={server.address}"

    def said(*arguments, status=0):
        ended = command(module, *arguments, index)
        assert ended.status == status, ended
        assert "secret" not in ended.output + ended.errors
        return ended.output if status == 0 else ended.line("tfhash.search")

    assert "no tables tfhash_* in postgresql://127.0.0.1" in said("info", status=2)
    built = said("build", "--images=photos/**", "--model=export")
    assert "70 encoded, 0 as they were" in built and "70 codes of 12 bits" in built
    assert "distinct codes: all are compared" in built
    (photos / "a/0.png").unlink()
    assert "0 encoded, 69 as they were, 1 removed" in said("build", "--images=photos/**")
    found = said("query", "--images=photos/b/1.png", "--k=1")
    assert "photos/b/1.png: 1 found" in found and "     0  photos/" in found
    assert "radius:     0 bits" in said("duplicates")
    info = said("info")
    assert "all codes" in info and "export/1" in info
    said("remove", "--ids=photos/b/1.png")
    assert "photos/b/1.png not in the index" in said("query", "--ids=photos/b/1.png", status=2)
    assert "page needs an index in a folder" in said("page", status=2)
