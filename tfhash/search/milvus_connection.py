"""A connection to Milvus: its address, its errors as one line each, and requests in parts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from tfhash.errors import NotNowError, UserError
from tfhash.names import shown

PREFIXES = ("milvus://",)
PART = 10_000  # items of one request
_SECONDS = 60.0  # for one request; pymilvus goes on for minutes by itself
_UNREADABLE = (
    "`index`: the address cannot be read; allowed: milvus://token@host:port, http://host:port, or "
    "a file of milvus-lite that ends in .db; where a token has %2F for /, %3F for ?, %23 for #, "
    "%40 for @ and %25 for %"
)


class Address(NamedTuple):
    """uri: as pymilvus has it; token: empty for none; place: for people, without the token."""

    uri: str
    token: str
    place: str


def read_address(address: str) -> Address:
    """Reads milvus://token@host:port, also with http:// or https://, or a path that ends in .db.

    milvus:///path/of.db is such a path too. UserError, which shows nothing of it, for others.
    """
    scheme, sign, rest = address.partition("://")
    if not sign or (scheme == "milvus" and rest.startswith("/")):
        path = rest or address
        if not path.endswith(".db"):
            raise UserError(_UNREADABLE)
        return Address(path, "", shown(path))
    try:
        parts = urlsplit(address)
        port = parts.port or 19530
    except ValueError:
        raise UserError(_UNREADABLE) from None
    # A / in a token ends it early, and the rest of it stands in the path.
    beyond = parts.path + parts.query + parts.fragment
    if scheme not in ("milvus", "http", "https") or not parts.hostname or "@" in beyond:
        raise UserError(_UNREADABLE)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    uri = f"{'http' if scheme == 'milvus' else scheme}://{host}:{port}{parts.path}"
    token = unquote(parts.netloc.rpartition("@")[0])
    return Address(uri, token, shown(uri))


class Client:
    """What of pymilvus an index needs, of one collection."""

    def __init__(self, address: str, collection: str, token: str = ""):
        try:
            import grpc
            import pymilvus
        except ImportError:
            raise UserError(
                "`index`: Milvus needs pymilvus: pip install 'tfhash[milvus]'"
            ) from None
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # each error with a traceback
        self.kinds = pymilvus.DataType
        self._known_errors = (pymilvus.exceptions.MilvusException, grpc.RpcError, OSError)
        self.name = collection
        uri, of_address, self.place = read_address(address)
        self._token = token or of_address
        with self.errors():
            self.milvus = pymilvus.MilvusClient(uri, token=self._token)

    def call(self, method: str, collection: str | None = None, **arguments: Any) -> Any:
        """What a method of pymilvus.MilvusClient answers for the collection, or for another one."""
        with self.errors():
            return getattr(self.milvus, method)(
                self.name if collection is None else collection, timeout=_SECONDS, **arguments
            )

    def get(self, keys: Sequence[str], field: str) -> dict[str, Any]:
        """A field of the items that are there, by their keys."""
        found: dict[str, Any] = {}
        for start in range(0, len(keys), PART):
            some = list(keys[start : start + PART])
            for row in self.call("get", ids=some, output_fields=["id", field]):
                found[row["id"]] = row[field]
        return found

    def each(self, field: str) -> Iterator[tuple[str, Any]]:
        """The key and a field of every item."""
        with self.errors():
            rows = self.milvus.query_iterator(
                self.name, batch_size=PART, output_fields=["id", field]
            )
            while batch := rows.next():
                yield from ((row["id"], row[field]) for row in batch)
            rows.close()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """What Milvus says, as one line."""
        try:
            yield
        except self._known_errors as error:
            words = " ".join(shown(error).split())
            for secret in filter(None, (self._token, *self._token.split(":"))):
                words = words.replace(secret, "***")
            raise NotNowError(f"`index`: Milvus at {self.place}: {words[:200]}") from None
