"""The exact index: what it finds, changes, keeps and refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import tfhash
from tfhash.errors import NotNowError, UserError
from tfhash.search import index as index_module
from tfhash.search import store
from tfhash.search.index import Index

BITS, COUNT = 20, 60


def made(count=COUNT, bits=BITS, seed=0, kinds=9):
    """Codes of which many are the same, and names whose order is not that of the rows."""
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2, (kinds, bits), np.uint8)
    codes = np.packbits(few[rng.integers(0, kinds, count)], axis=1)
    return codes, [f"{n * 37 % 101:03d}é{seed}" for n in range(count)]


def labelled(count=COUNT):
    return [None if n % 5 == 4 else {"label": "abc"[n % 3], "n": n} for n in range(count)]


@pytest.fixture(params=["memory", "folder", "loaded"])
def index(request, tmp_path):
    codes, ids = made()
    path = None if request.param == "memory" else tmp_path / "index"
    found = Index(codes, ids=ids, code_length=BITS, payload=labelled(), path=path, model="m1")
    if request.param == "loaded":
        found.close()
        found = Index.load(path)
    yield found
    found.close()


def brute_force(query, codes, ids, keep=lambda place: True):
    """(distance, id, place) of all items by distance and id: bits counted one by one."""
    distances = np.unpackbits(codes ^ query, axis=1).sum(axis=1)
    return sorted(
        (int(d), i, n) for n, (d, i) in enumerate(zip(distances, ids, strict=True)) if keep(n)
    )


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


def test_what_is_removed_can_be_cut_out(index):
    before = index.search(made(4, seed=1)[0], k=60)
    gone = index.ids()[:20]
    index.remove(gone)
    assert index._store.next_row == COUNT
    assert index._store.compact() == 20
    assert (index._store.next_row, index._store.compact()) == (40, 0)
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
    monkeypatch.setattr(store, "_as_json", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        index.add(made(3, seed=5)[0], ids=["x", "y", "z"], payload=[1, 2, 3])
    assert len(index) == COUNT and "x" not in index
    monkeypatch.undo()
    index.add(made(3, seed=5)[0], ids=["x", "y", "z"], payload=[1, 2, 3])
    assert index.payload(["y"]) == [2]


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


def in_folder(tmp_path) -> Path:
    codes, ids = made()
    Index(codes, ids=ids, code_length=BITS, path=tmp_path / "i").close()
    return tmp_path / "i"


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
        (lambda d: flip(d / "codes-1.bin", 99), "codes-1.bin is damaged in codes 0 to 59; build"),
        (lambda d: (d / "codes-1.bin").unlink(), "codes-1.bin is missing; build it again"),
        (lambda d: (d / "items.sqlite").write_bytes(b"no" * 999), "is damaged .*; build it again"),
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


def test_another_process_that_writes_is_waited_for_and_then_told(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "WAIT_SECONDS", 0.1)
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


def test_what_is_twice_is_named_in_short():
    assert index_module.some_of(["a", "b"]) == "a, b"
    assert index_module.some_of(["a\n", "b", "c"]) == r"a\n, b and 1 more"


@pytest.mark.parametrize(("k", "candidates"), [(5, 60), (5, 12), (60, 1), (3, 3)])
def test_embeddings_order_the_candidates(index, k, candidates):
    """By the sum over bits of |h - b|, one by one; then by distance and id."""
    codes, ids = made()
    relaxed = np.random.default_rng(7).random((4, BITS)).astype(np.float32)
    queries = np.packbits(relaxed > 0.5, axis=1)
    found = index.search(queries, k=k, embeddings=relaxed, candidates=candidates)
    for number, query in enumerate(queries):
        near = brute_force(query, codes, ids)[: max(k, candidates)]
        scored = []
        for distance, name, place in near:
            bits = np.unpackbits(codes[place], count=BITS)
            score = sum(abs(h - b) for h, b in zip(relaxed[number], bits, strict=True))
            scored.append((round(float(score), 4), distance, name))
        expected = sorted(scored)[:k]
        assert found.ids[number] == [name for _, _, name in expected]
        assert found.distances[number].tolist() == [distance for _, distance, _ in expected]
        np.testing.assert_allclose(found.scores[number], [s for s, _, _ in expected], atol=1e-3)
    assert index.search(queries, k=k).scores is None


def test_embeddings_of_bits_are_the_bits(index):
    """Then the score is the Hamming distance, and nothing changes but the ties that are told."""
    codes, _ = made(5, seed=1)
    bits = np.unpackbits(codes, axis=1, count=BITS).astype(np.float32)
    plain = index.search(codes, radius=9)
    found = index.search(codes, radius=9, embeddings=bits)
    assert found.ids == plain.ids
    assert [s.tolist() for s in found.scores] == [d.tolist() for d in plain.distances]


@pytest.mark.parametrize(
    ("embeddings", "line"),
    [
        (np.zeros((2, BITS)), r"`embeddings`: float64 \[2, 20\]; allowed: float \[1, 20\]"),
        (np.zeros((1, BITS), int), r"`embeddings`: int64 \[1, 20\]; allowed: float"),
        (np.full((1, BITS), 1.1), "`embeddings`: below 0 or above 1, or NaN; allowed: 0 to 1"),
        (np.full((1, BITS), np.nan), "`embeddings`: below 0 or above 1, or NaN"),
    ],
)
def test_other_embeddings_are_one_line(index, embeddings, line):
    with pytest.raises(UserError, match=line):
        index.search(made(1)[0], embeddings=embeddings)


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
