"""An index in Milvus, tried on milvus-lite, which is a file; see BUILD.md for its environment."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.errors import NotNowError, UserError
from tfhash.search.index import Index

pytest.importorskip("pymilvus", reason="needs the extra milvus")
pytest.importorskip("milvus_lite", reason="needs milvus-lite, in an environment of its own")

from tfhash.search import databases, milvus_connection, milvus_search  # noqa: E402
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
    """Of each a label and a list of none to two; of every fifth nothing."""
    each = ({"label": "abc"[n % 3], "n": n, "labels": [*"abc"[: n % 3]]} for n in range(count))
    return [None if own["n"] % 5 == 4 else own for own in each]


def alike(index, exact, queries, **arguments):
    one, other = (i.search(queries, **arguments) for i in (index, exact))
    assert one.ids == other.ids, arguments
    assert [d.tolist() for d in one.distances] == [d.tolist() for d in other.distances]
    assert one.payload == other.payload
    assert one.ties_cut.tolist() == other.ties_cut.tolist()


def test_it_answers_as_the_exact_index(index):
    codes, ids = made()
    exact = Index(codes, ids=ids, code_length=BITS, payload=labelled())
    index.add(codes, ids=ids, payload=labelled())
    queries = np.concatenate([made(5, seed=1)[0], codes[:2]])
    for arguments in (
        {"k": 1}, {"k": 7}, {}, {"k": 20}, {"k": 60}, {"k": 99}, {"radius": 0}, {"radius": 9},
        {"k": 5, "where": {"label": "b"}}, {"k": 5, "where": {}},
        {"k": 50, "where": {"label": "b"}}, {"k": 50, "where": {"label": ["a", "b"], "n": 7}},
        {"radius": 9, "where": {"label": ["a", "c"]}}, {"k": 5, "where": {"label": []}},
        {"k": 50, "where": {"labels": "b"}}, {"k": 50, "where": {"labels": ["b", "a"], "n": 7}},
    ):  # fmt: skip
        alike(index, exact, queries, **arguments)
    assert len(index) == 60 and ids[0] in index and "x" not in index


def test_more_ties_than_one_search_answers(index, monkeypatch):
    """Nine codes of 60 to 90 items each, where a search answers forty."""
    monkeypatch.setattr(milvus_search, "MOST", 40)
    codes, _ = made(700)
    ids = [f"{n * 37 % 700:03d}é'" for n in range(700)]
    payload = [{"label": "abc"[n % 3]} for n in range(700)]
    exact = Index(codes, ids=ids, code_length=BITS, payload=payload)
    index.add(codes, ids=ids, payload=payload)
    queries = np.concatenate([made(3, seed=1)[0], codes[:2]])
    for arguments in (
        {"k": 1}, {"k": 30}, {"k": 40}, {"k": 20, "where": {"label": "a"}}, {"radius": 0},
        {"radius": 10}, {"radius": 24}, {"radius": 24, "where": {"label": ["a", "b"]}},
    ):  # fmt: skip
        alike(index, exact, queries, **arguments)


def test_what_the_commands_ask_of_an_index(tmp_path):
    """ids, codes, payload, content, change, facts, folder; and again in another process."""
    codes, ids = made()
    ids[3], ids[4] = "caf\udce9/1.png", 'it\'s "100%" \\ 1\n.png'
    address = f"milvus://{tmp_path}/m.db"
    assert databases.is_address(address) and not databases.is_there(address)
    with databases.opened(address, code_length=BITS, model="m1") as index:
        content = [f"9 9 {n}" for n in range(60)]
        index.change(codes, ids=ids, payload=labelled(), content=content)
        index.change(
            codes[:1], ids=[ids[0]], content=["new"], remove=ids[:3], payload=["p"]
        )  # of what is removed and added, what is added stays
        index.remember(folder="/caf\udce9 it's", export="x")
        index.remember(export="y")
    assert databases.is_there(address)
    with databases.opened(address) as index:
        left = [ids[0], *ids[3:]]
        assert index.ids() == sorted(left) and len(index) == 58
        assert (index.codes(left) == codes[[0, *range(3, 60)]]).all()
        assert index.payload(left[:2]) == ["p", labelled()[3]]
        assert index.content() == {ids[0]: "new"} | dict(zip(ids[3:], content[3:], strict=True))
        assert str(index.folder) == "/caf\udce9 it's" and index.facts()["export"] == "y"
        assert index.optimise() == "all codes are compared" and index.place.endswith("m.db")
        assert index.codes([]).shape == (0, 3) and index.payload([]) == []
        for use in (index.codes, index.payload, index.remove):
            with pytest.raises(UserError, match="`ids`: x' OR '1'='1, .udd00 not in the index"):
                use([ids[3], "x' OR '1'='1", "\udd00"])
        assert "\udd00" not in index and ids[4] in index
        index.remove(ids[3:5])
        assert len(index) == 56


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


def test_ids_are_text_or_numbers_but_not_one_text(index):
    codes, _ = made(12)
    index.add(codes, ids=range(12), payload=[*"abcdefghijkl"])
    assert 3 in index and (index.codes([3]) == codes[3]).all() and index.payload([3]) == ["d"]
    for use in (index.codes, index.payload, index.remove):
        with pytest.raises(UserError, match="`ids`: '23' is one text; allowed: a list of ids"):
            use("23")
    index.remove([2, 3])
    assert len(index) == 10


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
        (lambda i: i.add(made(1)[0], ids=["caf\ud800"]), r"`ids`: caf\\ud800 is no text"),
        (lambda i: i.add(made(1)[0], ids=[""]), "`ids`:  is empty, or more than 3072 bytes"),
        (lambda i: i.add(made(1)[0], ids=["é" * 600]), "is empty, or more than 3072 bytes as a U"),
        (lambda i: i.add(made(1)[0], ids=["x"], payload=[{1}]), "`payload`: .* is no JSON"),
        (lambda i: i.search(made(1)[0], k=20_000), "`k`: 20000; allowed in Milvus: at most 16,384"),
        (lambda i: i.search(made(1)[0], where={"a": "b\n"}), "`where`: b.n; allowed in Milvus: te"),
        (lambda i: i.search(made(1)[0], where={"a": float("nan")}), "`where`: a=nan; allowed"),
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


def test_text_in_a_filter_is_found_whatever_its_characters(index):
    texts = ["é", "日本", 'a"b', "a\\b", "a'b", "{x}", "%s", "100 %"]
    codes = np.zeros((len(texts), 3), np.uint8)
    index.add(codes, ids=list("abcdefgh"), payload=[{"l": text, text: 1} for text in texts])
    for name, text in zip("abcdefgh", texts, strict=True):
        assert index.search(codes[:1], where={"l": text}).ids == [[name]]
        assert index.search(codes[:1], where={text: 1}).ids == [[name]]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("milvus://h", ("http://h:19530", "", "http://h:19530")),
        ("milvus://root:a%2Fb@h:1", ("http://h:1", "root:a/b", "http://h:1")),
        ("https://token@[::1]:1/x", ("https://[::1]:1/x", "token", "https://[::1]:1/x")),
        ("milvus:///a/m.db", ("/a/m.db", "", "/a/m.db")),
        ("m.db", ("m.db", "", "m.db")),
    ],
)
def test_addresses(address, expected):
    assert milvus_connection.read_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "milvus://u:hun/ter2@h",
        "milvus://u:12/hunter2@h",
        "milvus://",
        "milvus:///hunter2",
        "hunter2",
        "ftp://u:hunter2@h",
    ],
)
def test_an_address_that_cannot_be_read_is_not_shown(address):
    with pytest.raises(UserError, match="`index`: the address cannot be read; allowed") as caught:
        MilvusIndex(address)
    assert "hun" not in str(caught.value) and "ter2" not in str(caught.value)


def test_nobody_there_is_one_line():
    with pytest.raises(NotNowError, match="`index`: Milvus at http://127.0.0.1:1: ") as caught:
        MilvusIndex("http://127.0.0.1:1", code_length=12)
    assert "\n" not in str(caught.value)
