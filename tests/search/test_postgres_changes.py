"""Writers of an index in PostgreSQL who meet at one code."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.search.postgres_server import made
from tfhash.errors import UserError
from tfhash.search.postgres import PostgresIndex

BITS = 24


@pytest.fixture
def index(server, request):
    name = "t" + str(abs(hash(request.node.name)) % 10**8)
    with PostgresIndex(server.address, code_length=BITS, name=name) as index:
        yield index


def together(*parts):
    """Runs functions at once; what they raised."""
    errors = []

    def run(part):
        try:
            part()
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def codes_of(index):
    return index._database.one("SELECT count(*) FROM {codes}")


def test_writers_share_a_code_without_errors(server, index):
    """One adds it while the other removes what was its last image."""
    codes, _ = made(3, BITS)
    others = [PostgresIndex(server.address, name=index.name) for _ in range(3)]

    def turns(other, tag):
        for _ in range(60):
            other.add(codes, ids=[f"{tag}{n}" for n in range(3)])
            other.remove([f"{tag}{n}" for n in range(3)])

    assert (
        together(*(lambda o=o, t=t: turns(o, t) for t, o in zip("abc", others, strict=True))) == []
    )
    assert len(index) == 0
    index.optimise()  # takes what two left to each other
    assert codes_of(index) == 0
    for other in others:
        other.close()


def test_one_id_that_comes_twice_at_once_comes_once(server, index):
    codes, ids = made(200, BITS)
    other = PostgresIndex(server.address, name=index.name)
    order = np.arange(200)[::-1]

    def one():
        index.add(codes, ids=ids)

    def two():
        other.add(codes[order], ids=[ids[n] for n in order])

    (error,) = together(one, two)
    assert error.startswith("UserError: `ids`: 000000, ") and "already in the index" in error
    assert index.ids() == sorted(ids)
    assert together(
        lambda: index.add(codes, ids=ids, replace=True),
        lambda: other.add(codes[order], ids=[ids[n] for n in order], replace=True),
    ) == []  # fmt: skip
    other.close()


def test_only_codes_just_removed_are_swept(index):
    """A code without an image, such as two writers may leave, costs a removal nothing."""
    index.add(np.array([[1, 0, 0], [2, 0, 0], [2, 0, 0]], np.uint8), ids=list("abc"))
    index._database.run("INSERT INTO {codes} VALUES (B'111111110000000000000000')")
    index.remove(["a"])
    assert codes_of(index) == 2
    index.remove(["b"])
    assert codes_of(index) == 2
    index.add(np.array([[4, 0, 0]], np.uint8), ids=["c"], replace=True)
    assert codes_of(index) == 2
    assert index.search(np.array([[255, 0, 0]], np.uint8), k=2).ids == [["c"]]
    index.optimise()
    assert codes_of(index) == 1


def test_two_make_the_tables_at_once(server):
    errors = together(*(
        lambda: PostgresIndex(server.address, code_length=BITS, name="at_once").close()
        for _ in range(4)
    ))  # fmt: skip
    assert errors == []


def test_a_mistake_among_writers_is_told_at_once(index):
    codes, _ = made(1, BITS)
    index.add(codes, ids=["a"])
    with pytest.raises(UserError, match="`ids`: a already in the index"):
        index.add(codes, ids=["a"])
    with pytest.raises(UserError, match="`ids`: b not in the index"):
        index.remove(["b"])
