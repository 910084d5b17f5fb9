"""An index in PostgreSQL with pgvector: what `tfhash.Index` does, in a database that runs already.

Two tables: codes, each distinct one once with indexes over them, and images with their code and
payload. A learned hash gives many images one code, so that an index over images would be full of
copies. Needs the extra `postgres`, and pgvector 0.7 or newer in the database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfhash import codes as code_arrays
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.search import storable
from tfhash.search.changing import Changing
from tfhash.search.found import (
    Found,
    as_ids,
    check_codes,
    check_search,
    no_twice,
    one_of_each,
    some_of,
)
from tfhash.search.postgres_changes import Changes
from tfhash.search.postgres_connection import Connection
from tfhash.search.postgres_lists import Lists

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

PREFIXES = ("postgresql://", "postgres://")
OLDEST = (0, 7)  # of pgvector: the first with Hamming distance
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_TABLES = ("codes", "images", "facts", "ivf", "new_ivf", "part0", "part1", "part2", "part3")
_MOST = 1 << 40  # items, for what is above the numbers of PostgreSQL


class PostgresIndex(Changing):
    """Codes with ids in a database; `add`, `remove` and `search` as of `tfhash.Index`.

        index = tfhash.search.postgres.PostgresIndex("postgresql://…/db", code_length=48)
        index.add(codes, ids=paths, payload=[{"label": "cat"}, …])
        index.optimise()  # once many are there: ivfflat over the distinct codes

    Each call is a transaction, and one that finds the connection broken makes a new one. Answers,
    their order and the ties that were cut are those of comparing every code, with `optimise` and
    without.

    Args:
        address: of the database, as libpq has it; a password in it is never printed.
        code_length: k; None for tables that are there already.
        name: what the names of the tables begin with.
        model: the fingerprint of the export that made the codes; codes of another are refused.
    """

    def __init__(
        self,
        address: str,
        *,
        code_length: int | None = None,
        name: str = "tfhash",
        model: str = "",
    ):
        if not _NAME.fullmatch(name):
            raise UserError(f"`name`: {name!r}; allowed: small letters, digits and _")
        self.name = name
        self._database = Connection(address, {part: f"{name}_{part}" for part in _TABLES})
        self.place = self._database.place
        try:
            with self._database.transaction():
                self._make(code_length, model)
            self._check(code_length, model)
        except BaseException:
            self.close()
            raise
        self._lists = Lists(self._database, self.code_length)
        self._changes = Changes(self._database, self.code_length, self.model)

    def _check(self, code_length: int | None, model: str) -> None:
        self.code_length = int(self._fact("code_length") or 0)
        self.model = self._fact("model") or ""
        if code_length not in (None, self.code_length):
            raise UserError(
                f"`code_length`: {code_length}, but {self.name} in {self.place} has "
                f"{self.code_length}"
            )
        if model and self.model and model != self.model:
            raise UserError(
                f"`model`: {model}, but {self.name} in {self.place} has codes of {self.model}"
            )

    def _make(self, code_length: int | None, model: str) -> None:
        database = self._database
        # Who else makes them now comes before or after.
        if code_length is not None:
            database.run("SELECT pg_advisory_xact_lock(hashtext(%s))", (self.name,))
        if database.one("SELECT to_regclass(%s)::text", (f"{self.name}_facts",)) is not None:
            return self._check_pgvector()
        if code_length is None:
            raise UserError(f"`index`: no tables {self.name}_* in {self.place}")
        check_codes(np.zeros((0, -(-code_length // 8)), np.uint8), code_length)
        if not database.one("SELECT true FROM pg_available_extensions WHERE name = 'vector'"):
            raise UserError(f"`index`: no pgvector in {self.place}; allowed: 0.7 or newer")
        database.run("CREATE EXTENSION IF NOT EXISTS vector")
        self._check_pgvector()
        bits = database.sql(str(int(code_length)))
        database.run("CREATE TABLE {facts} (name text PRIMARY KEY, value text NOT NULL)")
        database.run("CREATE TABLE {codes} (code bit({bits}) PRIMARY KEY)", bits=bits)
        database.run(
            'CREATE TABLE {images} (id text COLLATE "C" PRIMARY KEY, code bit({bits}) NOT NULL '
            "REFERENCES {codes}, payload jsonb, model text NOT NULL, content text)",
            bits=bits,
        )
        database.run("CREATE INDEX ON {images} (code)")
        database.run("CREATE INDEX ON {images} USING gin (payload jsonb_path_ops)")
        for fact, value in (("code_length", str(code_length)), ("model", model)):
            database.run("INSERT INTO {facts} VALUES (%s, %s)", (fact, value))
        return None

    def _check_pgvector(self) -> None:
        version = self._database.one("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        numbers = tuple(map(int, re.findall(r"\d+", version or "")[:2]))
        if numbers < OLDEST:
            raise UserError(
                f"`index`: pgvector {version or 'is not'} in {self.place}; allowed: 0.7 or newer; "
                "where the server has it, ALTER EXTENSION vector UPDATE"
            )

    # -- the contract of an index -----------------------------------------------------------------

    def __len__(self) -> int:
        return self._database.one("SELECT count(*) FROM {images}")

    def __contains__(self, name: str) -> bool:
        return bool(self._of([str(name)], "true"))

    def __enter__(self) -> PostgresIndex:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the index cannot be used any more."""
        self._database.close()

    def ids(self) -> list[str]:
        """All ids, in their order."""
        return [row[0] for row in self._database.all("SELECT id FROM {images} ORDER BY id")]

    def codes(self, ids: Sequence[str]) -> np.ndarray:
        """The codes of items, packed uint8 [n, w]. UserError for an id that is not there."""
        ids = as_ids(ids)
        found = self._all_of(ids, "code::text")
        bits = np.array([[*map(int, text)] for text in found], np.uint8)
        return code_arrays.pack(bits.reshape(len(ids), self.code_length))

    def payload(self, ids: Sequence[str]) -> list[Any]:
        """What was stored with items. UserError for an id that is not there."""
        return self._all_of(as_ids(ids), "payload")

    def content(self) -> dict[str, str | None]:
        """Of each id what its content was when it was added."""
        return dict(self._database.all("SELECT id, content FROM {images}"))

    def _of(self, ids: Sequence[str], column: str) -> dict[str, Any]:
        held = [name for name in ids if storable.is_storable(name)]
        query = f"SELECT id, {column} FROM {{images}} WHERE id = ANY(%s)"
        return dict(self._database.all(query, (held,)))

    def _all_of(self, ids: Sequence[str], column: str) -> list[Any]:
        found = self._of(ids, column)
        if lacking := [name for name in ids if name not in found]:
            raise UserError(f"`ids`: {some_of(lacking)} not in the index")
        return [found[name] for name in ids]

    def change(
        self,
        codes: ArrayLike,
        *,
        ids: Sequence[str],
        payload: Sequence[Any] | None = None,
        content: Sequence[str] | None = None,
        remove: Sequence[str] = (),
        replace: bool = False,
    ) -> None:
        """Removes items, then adds others, all in one step; see `tfhash.Index.change`."""
        checked = check_codes(codes, self.code_length)
        ids, remove = as_ids(ids), as_ids(remove)
        one_of_each(checked, ids=ids, payload=payload, content=content)
        no_twice(ids)
        storable.check_ids(ids)
        texts = [None] * len(ids) if payload is None else [*map(storable.as_json, payload)]
        contents = [None] * len(ids) if content is None else content
        rows = [*zip(ids, self._bits(checked), texts, contents, strict=True)]
        self._changes.make(remove, rows, replace)

    def search(
        self,
        codes: ArrayLike,
        *,
        k: int | None = None,
        radius: int | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Found:
        """The k nearest items of each query, or all within a radius; see `tfhash.Index.search`."""
        queries = check_codes(codes, self.code_length)
        name, value = check_search(k, radius)
        with self._database.transaction(snapshot=True):
            most = _MOST if name == "k" else self.code_length
            answers = self._lists.search(self._bits(queries), name, min(value, most), where)
        return Found(
            [[row[0] for row in rows] for rows, _ in answers],
            [np.array([row[1] for row in rows], np.int64) for rows, _ in answers],
            [[row[2] for row in rows] for rows, _ in answers],
            np.array([cut for _, cut in answers], np.int64),
        )

    # -- of a database alone ----------------------------------------------------------------------

    def optimise(self, probes: int | None = None) -> str:
        """Makes searches quick: ivfflat over the distinct codes, and indexes over parts of them.

        probes: lists of ivfflat that a search looks through, 1 to their number; by default a
        hundredth of them. Answers in words what there is then; with few codes nothing, for all of
        them are compared in milliseconds. Called again it does nothing until there are half as many
        codes more or a third fewer. Writers wait meanwhile, readers do not. UserError for other
        probes.
        """
        return self._changes.until_done(lambda: self._optimise(probes))

    def _optimise(self, probes: int | None) -> str:
        self._changes.sweep(None)
        return self._lists.make(probes)

    def remember(self, **facts: str) -> None:
        """Keeps words about the index by their names, for `facts`. UserError for no text."""
        for name, words in facts.items():
            if not storable.is_storable(words):
                raise UserError(
                    f"`index`: {name} {shown(words):.200} is no text that a database can hold"
                )
        with self._database.transaction():
            for name, words in facts.items():
                self._lists.remember(f"fact.{name}", words)

    def facts(self) -> dict[str, str]:
        """What was remembered, the model, and how many codes are distinct."""
        found = self._database.all(
            "SELECT substr(name, 6), value FROM {facts} WHERE name LIKE 'fact.%%'", ()
        )
        known = self._lists.known
        looked = f"{known['probes']:,} of {known['lists']:,} lists"
        return {
            "model": self.model or "unknown",
            "backend": f"PostgreSQL, {looked if known['lists'] else 'all codes'} looked through",
            "distinct": f"{self._database.one('SELECT count(*) FROM {codes}'):,} codes",
            **dict(found),
        }

    @property
    def folder(self) -> Path:
        """What ids that are relative paths are relative to: where the index was last built."""
        return Path(self.facts().get("folder", "."))

    @property
    def notes(self) -> list[str]:
        return []

    def compact(self) -> int:
        """Nothing: PostgreSQL sees to it by itself."""
        return 0

    def _bits(self, codes: np.ndarray) -> list[str]:
        unpacked = code_arrays.unpack(codes, self.code_length) + ord("0")
        return [row.tobytes().decode("ascii") for row in unpacked]

    def _fact(self, name: str) -> str | None:
        return self._database.one("SELECT value FROM {facts} WHERE name = %s", (name,))


def is_there(address: str, name: str = "tfhash") -> bool:
    """Whether a database has the tables of an index. UserError where it does not answer."""
    try:
        PostgresIndex(address, name=name).close()
    except UserError as error:
        if "no tables" in str(error):
            return False
        raise
    return True
