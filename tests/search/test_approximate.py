"""Approximate backends: what they find of the nearest, and that what is told of it is true."""

from __future__ import annotations

import builtins
import subprocess
import sys

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.search import approximate, backends, scan
from tfhash.search.index import Index

BITS = 48
each_backend = pytest.mark.parametrize("name", approximate.BACKENDS)


def made(count, centres=10, flipped=0.05, bits=BITS, seed=0):
    """What a trained hash gives: a centre a class, and few bits beside it."""
    rng = np.random.default_rng(seed)
    bits_of = rng.integers(0, 2, (centres, bits), np.uint8)[rng.integers(0, centres, count)]
    bits_of ^= (rng.random((count, bits)) < flipped).astype(np.uint8)
    return np.packbits(bits_of, axis=1), [f"{n:06d}" for n in range(count)]


def recall(found, exact):
    """The share of what was asked for that was found and is not farther than the true last one."""
    return np.mean(
        [
            (distances <= best[-1]).sum() / len(best)
            for distances, best in zip(found.distances, exact.distances, strict=True)
        ]
    )


@pytest.fixture(scope="module", autouse=True)
def _faiss():
    pytest.importorskip("faiss", reason="needs the extra faiss")


@each_backend
@pytest.mark.parametrize("flipped", [0.01, 0.05])
def test_codes_of_a_trained_hash_are_found(name, flipped):
    """With one place a image, HNSW finds .4 to .7 of them, whatever its parameters."""
    codes, ids = made(20_000, flipped=flipped)
    index = Index(codes, ids=ids, code_length=BITS, backend=name)
    exact = Index(codes, ids=ids, code_length=BITS)
    flips = np.random.default_rng(1).random((100, BITS)) < flipped
    queries = codes[:100] ^ np.packbits(flips, axis=1)
    found, expected = (i.search(queries, k=10) for i in (index, exact))
    assert recall(found, expected) > 0.98
    assert all(len(ids) == 10 for ids in found.ids)
    (note,) = index.notes
    assert note.startswith(name) and "recall@10 " in note
    assert float(note.split("recall@10 ")[1].split(",")[0]) >= 0.99


def test_over_images_hnsw_misses_the_nearest_of_many_queries():
    """The trap that distinct codes are for: the same graph of faiss over one code an image."""
    faiss = approximate.faiss_module()
    codes, ids = made(20_000, flipped=0.01)
    rows = scan.to_rows(codes)
    graph = faiss.IndexBinaryHNSW(64, 16)
    graph.add(rows.view(np.uint8).reshape(len(rows), -1))
    graph.hnsw.efSearch = 256
    queries = rows[:100] ^ np.uint64(1)
    distances, _ = graph.search(queries.view(np.uint8).reshape(100, -1), 10)
    exact = scan.k_nearest(queries, rows, 10, np.arange(len(rows)))
    worst = [distances[:, -1][n] <= e.distances[-1] for n, e in enumerate(exact)]
    assert np.mean(worst) < 0.9


def alike(found, exact):
    assert found.ids == exact.ids
    assert [d.tolist() for d in found.distances] == [d.tolist() for d in exact.distances]
    assert found.payload == exact.payload
    assert found.ties_cut.tolist() == exact.ties_cut.tolist()


@each_backend
@pytest.mark.parametrize("bits", [16, 48, 100])
@pytest.mark.parametrize("flipped", [0.01, 0.05])
def test_answers_order_and_ties_are_those_of_exact(name, bits, flipped):
    """Near the data and far from it, for few and for most items, ids in no order of codes."""
    codes, ids = made(2_000, flipped=flipped, bits=bits)
    ids = [ids[n * 7 % 2_000] for n in range(2_000)]
    index, exact = (
        Index(codes, ids=ids, code_length=bits, payload=ids, backend=kind)
        for kind in (name, "exact")
    )
    rng = np.random.default_rng(1)
    near = codes[:16] ^ np.packbits(rng.random((16, bits)) < 0.05, axis=1)
    far = np.packbits(rng.integers(0, 2, (9, bits), np.uint8), axis=1)
    queries = np.concatenate([near, far])
    for k in (1, 10, 70):
        alike(index.search(queries, k=k), exact.search(queries, k=k))
    for k in (400, 1_999, 3_000):
        some = queries[10:20]
        alike(index.search(some, k=k), exact.search(some, k=k))
    gone = [name for name in ids if name > "000200"]
    for one in (index, exact):
        one.remove(gone)
    for k in (1, 10, 150, 500):
        alike(index.search(queries, k=k), exact.search(queries, k=k))
    for arguments in ({"radius": 3}, {"k": 5, "where": {}}):
        alike(index.search(queries, **arguments), exact.search(queries, **arguments))


@each_backend
def test_how_much_is_looked_through_is_chosen_for_each_k(name):
    codes, ids = made(20_000, centres=50, flipped=0.1)
    index = Index(codes, ids=ids, code_length=BITS, backend=name)
    for k, measured in ((3, [10]), (10, [10]), (40, [10, 100]), (900, [10, 100, 1000])):
        index.search(codes[:1], k=k)
        (note,) = index.notes
        assert [int(part.split()[0]) for part in note.split("recall@")[1:]] == measured


@each_backend
def test_items_that_came_or_went_since_count(name, monkeypatch):
    monkeypatch.setattr(backends, "_PATIENCE", 50)
    codes, ids = made(2_000)
    index = Index(codes, ids=ids, code_length=BITS, backend=name)
    index.search(codes[:1])
    built = index._backend._built
    index.add(codes[:5] ^ np.uint8(255), ids=[f"new{n}" for n in range(5)])
    (found,) = index.search(codes[:1] ^ np.uint8(255), k=1).ids
    assert found == ["new0"] and index._backend._built is built
    nearest = index.search(codes[:1], k=30).ids[0]
    index.remove(nearest)
    (after,) = index.search(codes[:1], k=30).ids
    assert len(after) == 30 and not set(after) & set(nearest)
    assert index._backend._built is built
    index.add(made(300, seed=1)[0], ids=[f"more{n}" for n in range(300)])
    index.search(codes[:1])
    assert index._backend._built is not built and index._backend._built.count == 2_305
    index._store.compact()
    (again,) = index.search(codes[:1], k=30).ids
    assert len(again) == 30 and not set(again) & set(nearest)


@each_backend
def test_an_empty_index_and_one_of_one_code(name):
    index = Index(code_length=BITS, backend=name)
    codes, _ = made(1)
    assert index.search(codes).ids == [[]]
    index.add(np.repeat(codes, 7, axis=0), ids=list("gfedcba"))
    found = index.search(codes, k=3)
    assert found.ids == [["a", "b", "c"]] and found.ties_cut.tolist() == [4]


@pytest.mark.parametrize("radius", [0, 1, 3, 6])
def test_multihash_finds_all_within_the_radius_that_it_promises(radius):
    codes, ids = made(5_000, flipped=0.1)
    index = Index(codes, ids=ids, code_length=BITS, backend="multihash", sure_radius=radius)
    exact = Index(codes, ids=ids, code_length=BITS)
    queries = made(60, flipped=0.1, seed=0)[0]
    found, expected = index.search(queries, k=500), exact.search(queries, radius=radius)
    for got, wanted in zip(found.ids, expected.ids, strict=True):
        assert set(wanted) <= set(got)
    (note,) = index.notes
    promised = int(note.split("all within ")[1].split(" bits")[0])
    assert promised >= radius


def test_faiss_says_nothing_of_how_it_was_loaded():
    """absl and others set the level of the root to INFO."""
    program = "import logging; logging.basicConfig(level=logging.INFO)\n"
    program += "from tfhash.search import approximate; approximate.faiss_module()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_backend_is_kept_with_the_index(tmp_path):
    codes, ids = made(500)
    made_with = {"backend": "multihash", "sure_radius": 2}
    Index(codes, ids=ids, code_length=BITS, path=tmp_path / "i", **made_with).close()
    with Index.load(tmp_path / "i") as index:
        assert index._backend.settings == {
            "backend": "multihash", "recall": "0.99", "sure_radius": "2"
        }  # fmt: skip
        index.save(tmp_path / "copy")
    with Index.load(tmp_path / "copy") as index:
        assert index._backend.name == "multihash"
    with Index.load(tmp_path / "i", backend="exact") as index:
        assert index._backend.name == "exact" and index.notes == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"backend": "annoy"}, "`backend`: 'annoy'; allowed: exact, ivf, hnsw, multihash"),
        ({"recall": 0.0}, "`recall`: 0.0; allowed: above 0 and at most 1"),
        ({"backend": "ivf", "sure_radius": 2}, "`sure_radius`: not with `backend`=ivf"),
        ({"backend": "multihash", "sure_radius": -1}, "`sure_radius`: -1; allowed: whole numbers"),
    ],
)
def test_mistakes_are_one_line(options, line):
    with pytest.raises(UserError, match=line):
        Index(code_length=BITS, **options)


def test_without_faiss_a_line_says_what_to_do(monkeypatch):
    plain = builtins.__import__

    def without(name, *arguments, **options):
        if name == "faiss":
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'tfhash\[faiss\]'; allowed without it: ex"):
        Index(code_length=BITS, backend="hnsw")
    Index(code_length=BITS)
