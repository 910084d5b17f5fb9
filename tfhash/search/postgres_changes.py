"""Changes of an index in PostgreSQL, and what of them meets other writers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from tfhash.errors import UserError
from tfhash.search import storable
from tfhash.search.found import some_of
from tfhash.search.postgres_connection import Clash, Connection

_TRIES = 20
Answer = TypeVar("Answer")


class Changes:
    """Those of the tables of one connection; model: what is written beside each image."""

    def __init__(self, connection: Connection, code_length: int, model: str):
        self._database, self._model = connection, model
        self._length = connection.sql(str(code_length))

    def make(self, remove: Sequence[str], rows: Sequence[tuple], replace: bool) -> None:
        """Removes images, then adds rows of id, bits, payload and content: all or nothing.

        UserError for an id to remove that is not there, and for one to add that is there, unless
        replace.
        """
        self.until_done(lambda: self._make(remove, rows, replace))

    def until_done(self, change: Callable[[], Answer]) -> Answer:
        """What a change in a transaction answers, made again where another writer was in the way.

        Clash where one always was.
        """
        for _ in range(_TRIES - 1):
            try:
                with self._database.transaction():
                    return change()
            except Clash:
                time.sleep(random.uniform(0, 0.05))
        with self._database.transaction():
            return change()

    def _make(self, remove: Sequence[str], rows: Sequence[tuple], replace: bool) -> None:
        before = self._remove(remove) if remove else set()
        if rows:
            before |= self._insert(rows, replace)
        self.sweep(before)

    def _remove(self, ids: Sequence[str]) -> set[str]:
        """Removes images; the codes that they had."""
        held = [name for name in ids if storable.is_storable(name)]
        gone = dict(
            self._database.all(
                "DELETE FROM {images} WHERE id = ANY(%s) RETURNING id, code::text", (held,)
            )
        )
        if lacking := set(ids) - set(gone):
            raise UserError(f"`ids`: {some_of(sorted(lacking))} not in the index")
        return set(gone.values())

    def _insert(self, rows: Sequence[tuple], replace: bool) -> set[str]:
        """Inserts rows of id, bits, payload and content; the codes of those that were replaced."""
        database = self._database
        database.run(
            "CREATE TEMPORARY TABLE added (id text, code bit({bits}), payload jsonb, content text) "
            "ON COMMIT DROP",
            bits=self._length,
        )
        database.copy("COPY added FROM STDIN", rows)
        there = database.all(
            "SELECT id, i.code::text FROM {images} AS i JOIN added USING (id) ORDER BY id"
        )
        if there and not replace:
            raise UserError(
                f"`ids`: {some_of([name for name, _ in there])} already in the index; allowed: "
                "others, or replace=True"
            )
        # In one order, so that two writers do not wait for each other.
        database.run(
            "INSERT INTO {codes} SELECT DISTINCT code FROM added ORDER BY code "
            "ON CONFLICT DO NOTHING"
        )
        clash = (
            "ON CONFLICT (id) DO UPDATE SET code = excluded.code, payload = excluded.payload, "
            "model = excluded.model, content = excluded.content"
        )
        database.run(
            "INSERT INTO {images} SELECT id, code, payload, %s, content FROM added ORDER BY id "
            + (clash if replace else ""),
            (self._model,),
        )
        return {code for _, code in there}

    def sweep(self, codes: set[str] | None) -> None:
        """Deletes those of the codes that no image has any more; None: of all.

        One that another writer holds at the moment may stay: it answers nothing, and `optimise`
        takes it.
        """
        if codes is not None and not codes:
            return
        some = "" if codes is None else " AND c.code = ANY(%s::bit({bits})[])"
        wanted = None if codes is None else (sorted(codes),)
        alone = "NOT EXISTS (SELECT FROM {images} AS i WHERE i.code = c.code)"
        free = self._database.all(
            f"SELECT c.code::text FROM {{codes}} AS c WHERE {alone}{some} FOR UPDATE SKIP LOCKED",
            wanted,
            bits=self._length,
        )
        if free:  # looked at again, now that nobody can add to them
            self._database.run(
                f"DELETE FROM {{codes}} AS c WHERE c.code = ANY(%s::bit({{bits}})[]) AND {alone}",
                ([code for (code,) in free],),
                bits=self._length,
            )
