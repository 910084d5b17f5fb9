"""An index in PostgreSQL with pgvector: what `tfhash.Index` does, in a database that runs already.

Two tables: codes, each distinct one once with an index over them, and images with their code and
payload. A learned hash gives many images one code, so that an index over images would be full of
copies.
Needs the extra `postgres`, and pgvector 0.7 or newer in the database.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfhash import codes as code_arrays
from tfhash.errors import NotNowError, UserError
from tfhash.names import is_text, shown
from tfhash.search.index import Found, check_codes, check_search, no_twice, one_of_each, some_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

PREFIXES = ("postgresql://", "postgres://")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_PER_LIST = 1_000  # codes in a list of ivfflat, as pgvector advises below a million
_DISTANCE = "SELECT code, (code <~> {q})::int AS far FROM {codes}"
_FEWEST = 10_000  # codes from which on a list pays


class PostgresIndex:
    """Codes with ids in a database; `add`, `remove` and `search` as of `tfhash.Index`.

        index = tfhash.search.postgres.PostgresIndex("postgresql://…/db", code_length=48)
        index.add(codes, ids=paths, payload=[{"label": "cat"}, …])
        index.optimise()  # once many are there: ivfflat over the distinct codes

    Each call is a transaction. Without `optimise` and with `radius` or `where` every code is
    compared, so nothing is missed and no filter answers short.

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
        try:
            import psycopg
            from psycopg import sql
        except ImportError:
            raise UserError(
                "`index`: a database needs psycopg: pip install 'tfhash[postgres]'"
            ) from None
        if not _NAME.fullmatch(name):
            raise UserError(f"`name`: {name!r}; allowed: small letters, digits and _")
        self._psycopg = psycopg
        self.name = name
        self.place = _without_password(address)
        self._names = {
            part: sql.Identifier(f"{name}_{part}") for part in ("codes", "images", "facts", "ivf")
        }
        self._sql = sql.SQL
        self._probes = 1
        with self._errors():
            self._connection = psycopg.connect(address, autocommit=True, connect_timeout=10)
        with self._transaction():
            self._make(code_length, model)
        self.code_length = int(self._fact("code_length") or 0)
        self.model = self._fact("model") or ""
        self._probes = int(self._fact("probes") or 1)
        if code_length not in (None, self.code_length):
            raise UserError(
                f"`code_length`: {code_length}, but {name} in {self.place} has {self.code_length}"
            )
        if model and self.model and model != self.model:
            raise UserError(
                f"`model`: {model}, but {name} in {self.place} has codes of {self.model}"
            )

    def _make(self, code_length: int | None, model: str) -> None:
        found = self._one("SELECT to_regclass(%s)::text", (f"{self.name}_facts",))
        if found is not None:
            return
        if code_length is None:
            raise UserError(f"`index`: no tables {self.name}_* in {self.place}")
        width = np.zeros((0, -(-code_length // 8)), np.uint8)
        check_codes(width, code_length)
        self._run("CREATE EXTENSION IF NOT EXISTS vector")
        bits = self._sql(str(int(code_length)))
        self._run("CREATE TABLE {facts} (name text PRIMARY KEY, value text NOT NULL)")
        self._run("CREATE TABLE {codes} (code bit({bits}) PRIMARY KEY)", bits=bits)
        self._run(
            'CREATE TABLE {images} (id text COLLATE "C" PRIMARY KEY, code bit({bits}) NOT NULL '
            "REFERENCES {codes}, payload jsonb, model text NOT NULL, content text)",
            bits=bits,
        )
        self._run("CREATE INDEX ON {images} (code)")
        self._run("CREATE INDEX ON {images} USING gin (payload jsonb_path_ops)")
        for fact, value in (("code_length", str(code_length)), ("model", model), ("probes", "1")):
            self._run("INSERT INTO {facts} VALUES (%s, %s)", (fact, value))

    # -- the contract of an index -----------------------------------------------------------------

    def __len__(self) -> int:
        return self._one("SELECT count(*) FROM {images}")

    def __contains__(self, name: str) -> bool:
        return bool(self._one("SELECT count(*) FROM {images} WHERE id = %s", (name,)))

    def __enter__(self) -> PostgresIndex:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def ids(self) -> list[str]:
        """All ids, in their order."""
        return [row[0] for row in self._all("SELECT id FROM {images} ORDER BY id")]

    def codes(self, ids: Sequence[str]) -> np.ndarray:
        """The codes of items, packed uint8 [n, w]. UserError for an id that is not there."""
        found = self._of(ids, "code::text")
        bits = np.array([[*map(int, found[name])] for name in ids], np.uint8)
        return code_arrays.pack(bits.reshape(len(ids), self.code_length))

    def payload(self, ids: Sequence[str]) -> list[Any]:
        """What was stored with items. UserError for an id that is not there."""
        found = self._of(ids, "payload")
        return [found[name] for name in ids]

    def content(self) -> dict[str, str | None]:
        """Of each id what its content was when it was added."""
        return dict(self._all("SELECT id, content FROM {images}"))

    def _of(self, ids: Sequence[str], column: str) -> dict[str, Any]:
        query = f"SELECT id, {column} FROM {{images}} WHERE id = ANY(%s)"
        found = dict(self._all(query, (list(ids),)))
        if lacking := [name for name in ids if name not in found]:
            raise UserError(f"`ids`: {some_of(lacking)} not in the index")
        return found

    def add(
        self,
        codes: ArrayLike,
        *,
        ids: Sequence[str],
        payload: Sequence[Any] | None = None,
        replace: bool = False,
    ) -> None:
        """Adds items, all or none of them; see `tfhash.Index.add`."""
        self.change(codes, ids=ids, payload=payload, replace=replace)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes items, all or none of them. UserError for an id that is not there."""
        nothing = np.zeros((0, -(-self.code_length // 8)), np.uint8)
        self.change(nothing, ids=(), remove=ids)

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
        ids, remove = [*map(str, ids)], [*map(str, remove)]
        one_of_each(checked, ids=ids, payload=payload, content=content)
        no_twice(ids)
        for one in ids:
            if not is_text(one) or "\0" in one:
                raise UserError(f"`ids`: {shown(one)} is no text that a database can hold")
        texts = [None] * len(ids) if payload is None else [_as_json(value) for value in payload]
        contents = [None] * len(ids) if content is None else content
        rows = zip(ids, self._bits(checked), texts, contents, strict=True)
        with self._transaction():
            if remove:
                self._remove(remove)
            there = self._insert(rows, replace) if ids else []
            if remove or there:
                self._run(
                    "DELETE FROM {codes} AS c WHERE NOT EXISTS "
                    "(SELECT FROM {images} AS i WHERE i.code = c.code)"
                )

    def _remove(self, ids: Sequence[str]) -> None:
        gone = self._all("DELETE FROM {images} WHERE id = ANY(%s) RETURNING id", (list(ids),))
        if lacking := set(ids) - {row[0] for row in gone}:
            raise UserError(f"`ids`: {some_of(sorted(lacking))} not in the index")

    def _insert(self, rows: Iterable[tuple], replace: bool) -> list[str]:
        """Inserts rows of id, bits, payload and content; the ids of those that were replaced."""
        self._run(
            "CREATE TEMPORARY TABLE added (id text, code bit({bits}), payload jsonb, content text) "
            "ON COMMIT DROP",
            bits=self._sql(str(self.code_length)),
        )
        with self._errors(), self._connection.cursor() as cursor:
            with cursor.copy("COPY added FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        found = self._all("SELECT id FROM {images} JOIN added USING (id) ORDER BY id")
        there = [row[0] for row in found]
        if there and not replace:
            raise UserError(
                f"`ids`: {some_of(there)} already in the index; allowed: others, or replace=True"
            )
        self._run("INSERT INTO {codes} SELECT DISTINCT code FROM added ON CONFLICT DO NOTHING")
        self._run(
            "INSERT INTO {images} SELECT id, code, payload, %s, content FROM added "
            "ON CONFLICT (id) DO UPDATE SET code = excluded.code, payload = excluded.payload, "
            "model = excluded.model, content = excluded.content",
            (self.model,),
        )
        return there

    def search(
        self,
        codes: ArrayLike,
        *,
        k: int | None = None,
        radius: int | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Found:
        """The k nearest items of each query, or all within a radius; see `tfhash.Index.search`.

        After `optimise`, `k` without `where` may miss some of the nearest.
        """
        queries = check_codes(codes, self.code_length)
        name, value = check_search(k, radius)
        answers = []
        with self._transaction():
            self._run(f"SET LOCAL ivfflat.probes = {self._probes:d}")
            for bits in self._bits(queries):
                answers.append(self._search(bits, name, value, where))
        return Found(
            [[row[0] for row in rows] for rows, _ in answers],
            [np.array([row[1] for row in rows], np.int64) for rows, _ in answers],
            [[row[2] for row in rows] for rows, _ in answers],
            np.array([cut for _, cut in answers], np.int64),
        )

    def _search(
        self, bits: str, name: str, value: int, where: Mapping[str, Any] | None
    ) -> tuple[list[tuple], int]:
        """The rows of one query, and how many more are as far as the last one."""
        if name == "k" and where is None and self._has_lists():
            # As many distinct codes as items are wanted have at least as many items.
            near = _DISTANCE + " ORDER BY code <~> {q} LIMIT %s"
            values: list[Any] = [value]
        else:
            near = _DISTANCE  # without an order by it, no list is asked: all are compared
            values = []
        condition, more = _condition(where)
        last = "WHERE far <= %s" if name == "radius" else "ORDER BY far LIMIT %s"
        if name == "radius":
            query = (
                f"SELECT id, far, payload FROM ({near}) AS c JOIN {{images}} USING (code) {last}"
            )
            rows = self._all(
                f"{query} AND {condition} ORDER BY far, id", [*values, value, *more], q=bits
            )
            return rows, 0
        ranked = (
            f"SELECT id, far, payload, rank() OVER (ORDER BY far) AS place FROM ({near}) AS c "
            f"JOIN {{images}} USING (code) WHERE {condition}"
        )
        # All ties of the last place come too, to be told.
        rows = self._all(
            f"SELECT id, far, payload FROM ({ranked}) AS r WHERE place <= %s ORDER BY far, id",
            [*values, *more, value],
            q=bits,
        )
        return rows[:value], len(rows) - len(rows[:value])

    # -- of a database alone ----------------------------------------------------------------------

    def optimise(self, probes: int | None = None) -> str:
        """Makes lists of the distinct codes (ivfflat), of which a search looks through `probes`.

        By default a tenth of the lists, at least 1. Answers in words what was made; with few codes
        nothing, for all of them are compared in milliseconds. Made again when many were added.
        """
        with self._transaction():
            count = self._one("SELECT count(*) FROM {codes}")
            self._run("DROP INDEX IF EXISTS {ivf}")
            if count < _FEWEST:
                return f"{count:,} distinct codes: all are compared"
            lists = max(count // _PER_LIST, 1)
            self._probes = probes or max(lists // 10, 1)
            self._run(
                "CREATE INDEX {ivf} ON {codes} USING ivfflat (code bit_hamming_ops) WITH (lists = "
                "{lists})",
                lists=self._sql(str(lists)),
            )
            self._run("UPDATE {facts} SET value = %s WHERE name = 'probes'", (str(self._probes),))
        return f"{count:,} distinct codes in {lists:,} lists, {self._probes:,} looked through"

    def _has_lists(self) -> bool:
        return self._one("SELECT to_regclass(%s)::text", (f"{self.name}_ivf",)) is not None

    def remember(self, **facts: str) -> None:
        """Keeps words about the index by their names, for `facts`."""
        with self._transaction():
            for name, words in facts.items():
                self._run(
                    "INSERT INTO {facts} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = "
                    "excluded.value",
                    (f"fact.{name}", words),
                )

    def facts(self) -> dict[str, str]:
        """What was remembered, the model, and how many codes are distinct."""
        found = self._all("SELECT substr(name, 6), value FROM {facts} WHERE name LIKE 'fact.%%'")
        lists = f"{self._probes} lists" if self._has_lists() else "all codes"
        return {
            "model": self.model or "unknown",
            "backend": f"PostgreSQL, of which a search looks through {lists}",
            "distinct": f"{self._one('SELECT count(*) FROM {codes}'):,} codes",
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

    def _bits(self, codes: np.ndarray) -> Iterator[str]:
        for row in code_arrays.unpack(codes, self.code_length):
            yield "".join(map(str, row.tolist()))

    def _fact(self, name: str) -> str | None:
        return self._one("SELECT value FROM {facts} WHERE name = %s", (name,))

    # -- PostgreSQL -------------------------------------------------------------------------------

    def _query(self, text: str, q: str | None = None, **parts: Any) -> Any:
        if q is not None:  # digits 0 and 1 alone, made above
            parts["q"] = self._sql(f"B'{q}'")
        return self._sql(text).format(**self._names, **parts)

    def _run(self, text: str, values: Sequence[Any] | None = None, **parts: Any) -> None:
        with self._errors(), self._connection.cursor() as cursor:
            cursor.execute(self._query(text, **parts), values)

    def _all(self, text: str, values: Sequence[Any] | None = None, **parts: Any) -> list[tuple]:
        with self._errors(), self._connection.cursor() as cursor:
            return cursor.execute(self._query(text, **parts), values).fetchall()

    def _one(self, text: str, values: Sequence[Any] | None = None) -> Any:
        rows = self._all(text, values)
        return rows[0][0] if rows else None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors(), self._connection.transaction():
            yield

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What the database says, as one line."""
        try:
            yield
        except self._psycopg.OperationalError as error:
            words = " ".join(str(error).split())[:200]
            raise NotNowError(
                f"`index`: {self.place} does not answer ({words}); nothing of this call was kept"
            ) from None
        except self._psycopg.Error as error:
            words = " ".join(str(error).split())[:200]
            raise UserError(f"`index`: {self.place}: {words}") from None


def is_there(address: str, name: str = "tfhash") -> bool:
    """Whether a database has the tables of an index. UserError where it does not answer."""
    try:
        PostgresIndex(address, name=name).close()
    except UserError as error:
        if "no tables" in str(error):
            return False
        raise
    return True


def _condition(where: Mapping[str, Any] | None) -> tuple[str, list[Any]]:
    """A condition on the payload, and its values: of each name one of its values."""
    parts, values = [], []
    for name, wanted in (where or {}).items():
        wanted = list(wanted) if isinstance(wanted, (list, tuple, set)) else [wanted]
        for value in wanted:
            if not isinstance(value, (str, int, float, bool)):
                raise UserError(
                    f"`where`: {name}={value!r}; allowed: text, numbers, True and False, and lists "
                    "of these"
                )
        parts.append("(" + (" OR ".join(["payload @> %s::jsonb"] * len(wanted)) or "false") + ")")
        values += [json.dumps({str(name): value}) for value in wanted]
    return " AND ".join(parts) or "true", values


def _as_json(value: Any) -> str | None:
    try:
        return None if value is None else json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"`payload`: {value!r:.100} is no JSON ({error})") from None


def _without_password(address: str) -> str:
    """The address for people, without what is before its @."""
    return shown(re.sub(r"//[^@/]*@", "//", address))
