"""A connection to PostgreSQL: transactions, one line for each error, and connecting again."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfhash.errors import NotNowError, UserError
from tfhash.names import shown

# What two writers who meet get, and what is gone at another try: a serialization failure, a
# deadlock, a code that went while an image of it came, an id that came twice at once.
_CLASHES = {"40001", "40P01", "23503", "23505"}
_PATIENT = {  # for a host that is gone without a word; what the address says goes before
    "connect_timeout": "10",
    "tcp_user_timeout": "60000",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
}
_UNREADABLE = (
    "`index`: the address cannot be read; allowed: postgresql://user:password@host:port/database, "
    "where a user's name or a password has %2F for /, %3F for ?, %23 for #, %3A for :, %40 for @ "
    "and %25 for %"
)


class Clash(NotNowError):
    """Another writer was there at the same time; another try ends well."""


class Connection:
    """One to a database, made again at the next call after it broke.

    address: as libpq has it; place: the same for people, host, port and database alone. Queries
    are templates of psycopg.sql: {table} stands for the identifier of that name in `names`.
    """

    def __init__(self, address: str, names: Mapping[str, str]):
        try:
            import psycopg
            from psycopg import sql
        except ImportError:
            raise UserError(
                "`index`: a database needs psycopg: pip install 'tfhash[postgres]'"
            ) from None
        self._psycopg, self.sql = psycopg, sql.SQL
        self._names = {part: sql.Identifier(name) for part, name in names.items()}
        self._address = self._read(address)
        self._info = psycopg.conninfo.make_conninfo(**self._address)
        self.place = _place(self._address)
        self._lock = threading.RLock()
        self._link: Any = None
        self._inside = self._closed = False

    def _read(self, address: str) -> dict[str, str]:
        """The parts of an address. UserError, which shows nothing of it, for what is none."""
        try:
            found = self._psycopg.conninfo.conninfo_to_dict(address)
        except self._psycopg.Error:
            raise UserError(_UNREADABLE) from None
        parts = {name: str(value) for name, value in found.items()}
        # A / or @ in a password ends it early, and the rest of it stands in one of these.
        rest = parts.get("host", "") + parts.get("dbname", "")
        if "@" in rest or not re.fullmatch(r"[0-9,]*", parts.get("port", "")):
            raise UserError(_UNREADABLE)
        return _PATIENT | parts

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._drop()

    # -- queries ----------------------------------------------------------------------------------

    def run(self, text: str, values: Sequence[Any] | None = None, **parts: Any) -> None:
        with self.transaction():
            self._link.execute(self._query(text, parts), values)

    def all(self, text: str, values: Sequence[Any] | None = None, **parts: Any) -> list[tuple]:
        with self.transaction():
            return self._link.execute(self._query(text, parts), values).fetchall()

    def one(self, text: str, values: Sequence[Any] | None = None, **parts: Any) -> Any:
        """The first value of the first row; None where there is none."""
        rows = self.all(text, values, **parts)
        return rows[0][0] if rows else None

    def copy(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        with self.transaction(), self._link.cursor() as cursor, cursor.copy(text) as copy:
            for row in rows:
                copy.write_row(row)

    def _query(self, text: str, parts: Mapping[str, Any]) -> Any:
        return self.sql(text).format(**self._names, **parts)

    # -- transactions -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, *, snapshot: bool = False) -> Iterator[None]:
        """All within is written together at the end, or nothing; one within another is part of it.

        snapshot: nothing is written, and all queries see the same. NotNowError where the database
        does not answer, Clash where another writer was in the way, UserError for other errors.
        """
        with self._lock:
            if self._inside:
                yield
                return
            self._begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if snapshot else "BEGIN")
            self._inside = True
            try:
                with self._errors():
                    yield
                with self._errors("" if snapshot else "it is not known whether this call was kept"):
                    self._link.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._inside = False

    def _begin(self, words: str) -> None:
        """Begins a transaction, on a new connection where the one that there was broke since."""
        if self._link is not None:
            with contextlib.suppress(self._psycopg.Error):
                self._link.execute(words)
                return
            self._drop()
        with self._errors():
            if self._closed:
                raise UserError("`index`: it was closed")
            self._link = self._psycopg.connect(self._info, autocommit=True)
            self._link.execute(words)

    def _roll_back(self) -> None:
        try:
            self._link.execute("ROLLBACK")
        except self._psycopg.Error:
            self._drop()

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(self._psycopg.Error):
                link.close()

    @contextlib.contextmanager
    def _errors(self, kept: str = "nothing of this call was kept") -> Iterator[None]:
        """What the database says, as one line."""
        try:
            yield
        except self._psycopg.Error as error:
            words = self._words(error)
            after = f"; {kept}" if kept else ""
            if error.sqlstate in _CLASHES:
                raise Clash(f"`index`: {self.place}: another writer was there{after}") from None
            if isinstance(error, self._psycopg.OperationalError):
                gone = self._link is None or self._link.broken or self._link.closed
                says = f"does not answer ({words})" if gone else f"says: {words}"
                raise NotNowError(f"`index`: {self.place} {says}{after}") from None
            raise UserError(f"`index`: {self.place}: {words}") from None

    def _words(self, error: Exception) -> str:
        words = " ".join(shown(error).split())
        for name in ("password", "sslpassword"):
            if secret := self._address.get(name):
                words = words.replace(secret, "***")
        return words[:200]


def _place(parts: Mapping[str, str]) -> str:
    port = f":{parts['port']}" if parts.get("port") else ""
    return shown(f"postgresql://{parts.get('host', '')}{port}/{parts.get('dbname', '')}")
