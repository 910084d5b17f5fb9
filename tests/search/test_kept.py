"""What faiss built is kept beside the codes, and made again where it is not of them."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tfhash import npz
from tfhash.search import approximate, backends, kept
from tfhash.search.index import Index

BITS = 48
each_backend = pytest.mark.parametrize("name", approximate.BACKENDS)


@pytest.fixture(scope="module", autouse=True)
def _faiss():
    pytest.importorskip("faiss", reason="needs the extra faiss")


def made(count=3_000, seed=0):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (10, BITS), np.uint8)[rng.integers(0, 10, count)]
    bits ^= (rng.random(bits.shape) < 0.05).astype(np.uint8)
    return np.packbits(bits, axis=1), [f"{n:05d}" for n in range(count)]


@pytest.fixture
def never(monkeypatch):
    """never(name): from now on that backend may not build."""

    def forbid(name):
        def build(self, codes):
            raise AssertionError("built again")

        monkeypatch.setattr(approximate.BACKENDS[name], "build", build)

    return forbid


def index_in(folder, name, **options):
    codes, ids = made()
    with Index(codes, ids=ids, code_length=BITS, path=folder, backend=name, **options) as index:
        assert index.optimise().startswith(name) and index.notes == [index.optimise()]


def answers(index, k=10):
    found = index.search(made(40, seed=1)[0], k=k)
    return found.ids, [d.tolist() for d in found.distances], found.ties_cut.tolist()


@each_backend
def test_another_process_need_not_build_it(name, tmp_path, never):
    index_in(tmp_path, name)
    with Index.load(tmp_path, backend="exact") as exact:
        expected = answers(exact)
    never(name)
    with Index.load(tmp_path) as index:
        assert answers(index) == expected
        assert index.notes[0].startswith(name) and "made again" not in index.notes[0]
        index.add(made(5, seed=2)[0], ids=list("abcde"))
        index.remove(["00007"])
        changed = answers(index)
    with Index.load(tmp_path) as index, Index.load(tmp_path, backend="exact") as exact:
        assert answers(index) == answers(exact) == changed


@each_backend
def test_it_is_made_again_when_the_rows_have_other_numbers(name, tmp_path):
    index_in(tmp_path, name)
    with Index.load(tmp_path) as index:
        index.remove(made()[1][:1_500])
        assert index.compact() == 1_500
        before = (tmp_path / f"faiss-{name}.npz").read_bytes()
        with Index.load(tmp_path, backend="exact") as exact:
            assert answers(index) == answers(exact)
        assert (tmp_path / f"faiss-{name}.npz").read_bytes() != before


def test_one_of_other_codes_is_not_taken(tmp_path):
    """The same number of the file and of rows, as of a folder that was made anew."""
    index_in(tmp_path / "one", "ivf")
    codes, ids = made(seed=3)
    options = {"code_length": BITS, "path": tmp_path / "two", "backend": "ivf"}
    with Index(codes, ids=ids, **options) as index:
        other = (tmp_path / "one" / "faiss-ivf.npz").read_bytes()
        (tmp_path / "two" / "faiss-ivf.npz").write_bytes(other)
        with Index(codes, ids=ids, code_length=BITS) as exact:
            assert answers(index) == answers(exact)
        assert (tmp_path / "two" / "faiss-ivf.npz").read_bytes() != other


def test_many_that_came_since_are_built_in(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "_PATIENCE", 10)
    index_in(tmp_path, "ivf")
    with Index.load(tmp_path) as index:
        index.add(*made(400, seed=2)[:1], ids=[f"new{n}" for n in range(400)])
        index.optimise()
        assert index._backend._built.count == 3_400
    with Index.load(tmp_path) as index:
        index.optimise()
        assert index._backend._built.count == 3_400


@each_backend
def test_a_damaged_file_costs_time_alone(name, tmp_path):
    index_in(tmp_path, name)
    path = tmp_path / f"faiss-{name}.npz"
    whole = path.read_bytes()
    with Index.load(tmp_path, backend="exact") as exact:
        expected = answers(exact)
    torn = [whole[: len(whole) // 2], b"", whole[:-30]]
    for place in np.linspace(200, len(whole) - 2_000, 9).astype(int):
        torn.append(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    for content in torn:
        path.write_bytes(content)
        with Index.load(tmp_path) as index:
            assert answers(index) == expected
            assert f"faiss-{name}.npz: " in index.notes[0] and "made again" in index.notes[0]
        assert len(path.read_bytes()) == len(whole)


def test_arrays_that_lead_out_of_each_other_are_refused(tmp_path):
    """With the right checksums, as a file from elsewhere may have."""
    index_in(tmp_path, "ivf")
    path = tmp_path / "faiss-ivf.npz"
    arrays = npz.read(path)
    wrong = {
        "rows": arrays["rows"] + 1,
        "starts": arrays["starts"][::-1].copy(),
        "rings": arrays["rings"] * 2,
        "codes": arrays["codes"][:-1],
        "centres": arrays["centres"].astype(np.int64),
        "faiss": arrays["faiss"][:100],
        "facts": np.array('{"format": 1}'),
    }
    for facts in ("[1]", "[1, 2, 3]", "1", "[1, [1, 2, {}, 4, 5], null]", "null", "x"):
        npz.write(path, arrays | {"facts": np.array(facts)}, np.savez)
        with Index.load(tmp_path) as index:
            assert "made again" in index.optimise(), facts
    known, of, chosen = json.loads(str(arrays["facts"]))
    for changed in ([known, of, [0.99, 10**9, ""]], [known, of, [0.99]], [known, of[:4], chosen]):
        npz.write(path, arrays | {"facts": np.array(json.dumps(changed))}, np.savez)
        with Index.load(tmp_path) as index:
            assert "made again" in index.optimise(), changed
    for name, value in wrong.items():
        npz.write(path, arrays | {name: value}, np.savez)
        with Index.load(tmp_path) as index:
            assert "made again" in index.optimise(), name
    np.savez(path, facts=np.array({"a": 1}, dtype=object))
    with Index.load(tmp_path) as index:
        assert "Python objects in it, which are not loaded" in index.optimise()


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    codes, ids = made()
    with Index(codes, ids=ids, code_length=BITS, path=tmp_path, backend="ivf") as index:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(kept.npz, "write", full)
        assert index.optimise().endswith("(not kept: No space left on device)")
        assert len(answers(index)[0]) == 40 and len(index.notes) == 1


@each_backend
def test_what_was_chosen_is_not_measured_again(name, tmp_path, monkeypatch):
    index_in(tmp_path, name)
    measured = []
    plain = approximate.Approximate.choose_effort

    def choose(self, *arguments):
        measured.append(arguments)
        plain(self, *arguments)

    monkeypatch.setattr(approximate.Approximate, "choose_effort", choose)
    with Index.load(tmp_path) as index:
        before = index.optimise()
        assert len(answers(index)[0]) == 40 and measured == []
        assert index.notes == [before] and "recall@10 " in before
        answers(index, k=100)
        assert measured == [(0.99, 100)] and "; " in index.notes[0].split("recall@10")[1]
    with Index.load(tmp_path, backend=name, recall=0.5) as index:
        index.optimise()
        assert measured[1:] == [(0.5,)] and index.notes[0].count("recall@") == 1


@each_backend
def test_other_settings_need_no_other_index(name, tmp_path, never):
    index_in(tmp_path, name)
    never(name)
    with Index.load(tmp_path, backend=name, recall=0.5) as index:
        assert float(index.optimise().split("recall@10 ")[1].split(",")[0]) >= 0.5
    if name == "multihash":
        with Index.load(tmp_path, backend=name, sure_radius=4) as index:
            assert "all within" in index.optimise()


def test_what_a_killed_process_left_goes(tmp_path):
    index_in(tmp_path, "ivf")
    old, new = (tmp_path / f".faiss-ivf.npz.tmp-{pid}" for pid in (1, 2))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    (tmp_path / "faiss-ivf.npz").unlink()
    with Index.load(tmp_path) as index:
        index.optimise()
    assert new.exists() and not old.exists()


def test_exact_needs_nothing(tmp_path):
    codes, ids = made(20)
    with Index(codes, ids=ids, code_length=BITS, path=tmp_path) as index:
        assert index.optimise() == "" and index.notes == []
    assert not list(tmp_path.glob("faiss*"))
