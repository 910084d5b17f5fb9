"""The connection to PostgreSQL: addresses, what is told of errors, and connecting again."""

from __future__ import annotations

import os
import signal

import pytest

from tests.search.postgres_server import Server, made, psycopg
from tfhash.errors import NotNowError, UserError
from tfhash.search import postgres
from tfhash.search.postgres import PostgresIndex
from tfhash.search.postgres_connection import Connection

BITS = 20


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("postgresql://u:hunter2@h:54/db", "postgresql://h:54/db"),
        ("postgresql://h/db?user=u&password=hunter2", "postgresql://h/db"),
        ("postgresql://h/db?user=u&password=hunter2&sslpassword=hunter2", "postgresql://h/db"),
        ("postgresql://u:hunter2%40x%2Fy@h/db", "postgresql://h/db"),
        ("postgresql:///db?host=/tmp&password=hunter2", "postgresql:///tmp/db"),
        ("postgresql://u:hunter2@a:1,b:2/db", "postgresql://a,b:1,2/db"),
        ("postgresql://", "postgresql:///"),
    ],
)
def test_a_place_has_no_password(address, place):
    assert Connection(address, {}).place == place


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:hun/ter2@h/db",
        "postgresql://u:12/hunter2@h/db",
        "postgresql://u:hun@ter2@h/db",
        "postgresql://u:hunter2%zz@h/db",
        "postgresql://h/db?pasword=hunter2",
        "postgresql://h:hunter2/db",
    ],
)
def test_an_address_that_cannot_be_read_is_not_shown(address):
    with pytest.raises(UserError, match="`index`: the address cannot be read; allowed") as caught:
        PostgresIndex(address)
    told = str(caught.value)
    assert "hun" not in told and "ter2" not in told and "\n" not in told


def test_a_password_that_the_server_repeats_is_not_shown(server):
    address = server.address.replace("/postgres", "/hunter2").replace("secret", "hunter2")
    with pytest.raises(NotNowError) as caught:
        PostgresIndex(address)
    assert 'database "***" does not exist' in str(caught.value)


def test_nobody_there_is_one_line(server):
    address = server.address.replace(str(server.port), "1")
    with pytest.raises(NotNowError, match="`index`: postgresql://127.0.0.1:1/postgres does not an"):
        PostgresIndex(address, code_length=12)


def test_a_database_that_goes_away_loses_nothing_that_was_answered():
    """kill -9 of all its processes; the index that was there goes on when it is back."""
    server = Server()
    codes, ids = made(60, BITS)
    more, names = made(30, BITS, seed=2)
    names = [f"new{name}" for name in names]
    index = PostgresIndex(server.address, code_length=BITS)
    index.add(codes, ids=ids)
    server.kill()
    for use in (lambda: index.add(more, ids=names), lambda: index.search(more[:1]), index.ids):
        with pytest.raises(NotNowError, match="does not answer .*; nothing of this") as caught:
            use()
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    server.start()
    assert index.ids() == sorted(ids)
    server.kill()  # and with nothing asked while it was away
    server.start()
    index.add(more, ids=names)
    assert len(index) == 90 and len(index.search(codes, k=3)) == 60
    index.close()
    with pytest.raises(UserError, match="`index`: it was closed"):
        index.ids()
    server.stop()


def test_a_connection_that_ends_in_the_middle(server):
    """All of a change is lost, and told; the next call has a new connection."""
    codes, ids = made(60, BITS)
    with PostgresIndex(server.address, code_length=BITS, name="middle") as index:
        index.add(codes, ids=ids)
        with pytest.raises(NotNowError, match="nothing of this call was kept"):
            with index._database.transaction():
                index._database.run("DELETE FROM {images}")
                os.kill(index._database.one("SELECT pg_backend_pid()"), signal.SIGTERM)
                while True:
                    index._database.run("SELECT pg_sleep(0.1)")
        assert len(index) == 60
        pid = index._database.one("SELECT pg_backend_pid()")
        with psycopg.connect(server.address, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        index.remove(ids[:1])
        assert len(index) == 59


def test_an_answer_that_is_lost_is_told_as_unknown(server):
    """Whether it was kept cannot be known, where the connection ends at the last word."""
    codes, ids = made(5, BITS)
    with PostgresIndex(server.address, code_length=BITS, name="last_word") as index:
        execute = type(index._database._link).execute

        class Breaking:
            def __init__(self, link):
                self._link = link

            def __getattr__(self, name):
                return getattr(self._link, name)

            def execute(self, query, *arguments):
                answer = execute(self._link, query, *arguments)
                if query == "COMMIT":
                    self._link.close()
                    raise psycopg.OperationalError("server closed the connection unexpectedly")
                return answer

        index._database._link = Breaking(index._database._link)
        with pytest.raises(NotNowError, match="; it is not known whether this call was kept"):
            index.add(codes, ids=ids)
        assert index.ids() == sorted(ids)


@pytest.mark.parametrize(
    ("version", "line"),
    [("0.6.2", "pgvector 0.6.2 in postgresql:.*; allowed: 0.7 or newer"), ("0.10.0", None)],
)
def test_an_old_pgvector_is_one_line(server, version, line):
    PostgresIndex(server.address, code_length=BITS, name="old").close()
    with psycopg.connect(server.address, autocommit=True) as link:
        (before,) = link.execute(
            "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        ).fetchone()
        change = "UPDATE pg_extension SET extversion = %s WHERE extname = 'vector'"
        link.execute(change, (version,))
        try:
            if line is None:
                PostgresIndex(server.address, name="old").close()
            else:
                for arguments in ({"name": "old"}, {"name": "older", "code_length": BITS}):
                    with pytest.raises(UserError, match=line):
                        PostgresIndex(server.address, **arguments)
                assert not postgres.is_there(server.address, "older")
        finally:
            link.execute(change, (before,))


def test_a_server_without_pgvector_is_one_line(server, monkeypatch):
    plain = Connection.one

    def without(self, text, *arguments, **parts):
        return None if "pg_available" in text else plain(self, text, *arguments, **parts)

    monkeypatch.setattr(Connection, "one", without)
    with pytest.raises(UserError, match="`index`: no pgvector in postgresql://127.*; allowed: 0.7"):
        PostgresIndex(server.address, code_length=BITS, name="without")
