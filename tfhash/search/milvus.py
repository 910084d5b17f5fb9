"""An index in Milvus, for 10^9 codes on a cluster of its own: BINARY_VECTOR and Hamming distance.

Needs the extra `milvus`. It was tried on milvus-lite (a file), which compares all codes; on a
cluster the collection has BIN_IVF_FLAT, which was not tried here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
from tfhash.search.milvus_connection import PART, Client
from tfhash.search.milvus_search import MOST, Nearest, key_of, name_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
_KEY_BYTES = 3_072


class MilvusIndex(Changing):
    """Codes with ids in a collection; `add`, `remove` and `search` as of `tfhash.Index`.

    A collection has no transactions: what a call that fails had written stays, and the same call
    again ends it. Without `lists` answers are those of `tfhash.Index`. With them a search finds
    what they give; its order and the ties that were cut are among these, and where they give too
    few, all codes are compared.

    Args:
        address: milvus://host:port of a server, perhaps with token@ before the host; http:// and
            https:// too; or a path that ends in .db for milvus-lite.
        code_length: k; None for a collection that is there already.
        name: of the collection.
        model: the fingerprint of the export that made the codes; codes of another are refused.
        lists: of BIN_IVF_FLAT; None: all codes are compared (BIN_FLAT).
        probes: lists that a search looks through.
        token: what the server asks for; never printed.
    """

    def __init__(
        self,
        address: str,
        *,
        code_length: int | None = None,
        name: str = "tfhash",
        model: str = "",
        lists: int | None = None,
        probes: int = 16,
        token: str = "",
    ):
        if not _NAME.fullmatch(name):
            raise UserError(f"`name`: {name!r}; allowed: letters, digits and _")
        self._client = Client(address, name, token)
        self.name, self.place, self._probes = name, self._client.place, probes
        there = self._client.call("has_collection")
        if not there and code_length is None:
            raise UserError(f"`index`: no collection {name} in {self.place}")
        if not there:
            assert code_length is not None
            check_codes(np.zeros((0, -(-code_length // 8)), np.uint8), code_length)
            self._make(code_length, model, lists)
        described = json.loads(self._client.call("describe_collection")["description"])
        self._client.call("load_collection")
        self.code_length: int = described["code_length"]
        self.model: str = described["model"]
        self._lists: int = described.get("lists") or 0
        self._nearest = Nearest(self._client, self._lists, probes)
        if code_length not in (None, self.code_length):
            raise UserError(f"`code_length`: {code_length}, but {name} has {self.code_length}")
        if model and self.model and model != self.model:
            raise UserError(f"`model`: {model}, but {name} has codes of {self.model}")

    def _make(self, code_length: int, model: str, lists: int | None) -> None:
        about = {"code_length": code_length, "model": model, "lists": lists}
        kind = {"index_type": "BIN_IVF_FLAT", "params": {"nlist": lists}} if lists else {}
        kinds = self._client.kinds
        self._create(
            self.name,
            json.dumps(about),
            ("code", kinds.BINARY_VECTOR, {"dim": -(-code_length // 8) * 8}),
            ("payload", kinds.JSON, {}),
            kind={"index_type": "BIN_FLAT"} | kind,
        )

    def _create(self, name: str, about: str, *fields: tuple, kind: dict[str, Any]) -> None:
        milvus = self._client.milvus
        schema = milvus.create_schema(enable_dynamic_field=False, description=about)
        text = self._client.kinds.VARCHAR
        schema.add_field("id", text, max_length=_KEY_BYTES, is_primary=True)
        for field, of_kind, options in fields:
            schema.add_field(field, of_kind, **options)
        index = milvus.prepare_index_params()
        index.add_index("code", metric_type="HAMMING", **kind)
        # Strong: a search finds what was added before it.
        self._client.call(
            "create_collection",
            name,
            schema=schema,
            index_params=index,
            consistency_level="Strong",
        )

    # -- the contract of an index -----------------------------------------------------------------

    def __len__(self) -> int:
        return self._client.call("query", filter="", output_fields=["count(*)"])[0]["count(*)"]

    def __contains__(self, name: str) -> bool:
        return bool(self._there([str(name)]))

    def __enter__(self) -> MilvusIndex:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the index cannot be used any more."""
        self._client.milvus.close()

    def ids(self) -> list[str]:
        """All ids, in their order."""
        return sorted(name_of(key) for key, _ in self._client.each("id"))

    def codes(self, ids: Sequence[str]) -> np.ndarray:
        """The codes of items, packed uint8 [n, w]. UserError for an id that is not there."""
        ids = as_ids(ids)
        found = self._all_of(ids, "code")
        # A vector comes as one element of a list, or by itself.
        as_bytes = [code[0] if isinstance(code, list) else code for code in found]
        packed = np.frombuffer(b"".join(as_bytes), np.uint8)
        return packed.reshape(len(ids), -(-self.code_length // 8)).copy()

    def payload(self, ids: Sequence[str]) -> list[Any]:
        """What was stored with items. UserError for an id that is not there."""
        return [kept["value"] for kept in self._all_of(as_ids(ids), "payload")]

    def content(self) -> dict[str, str | None]:
        """Of each id what its content was when it was added."""
        return {name_of(key): kept.get("content") for key, kept in self._client.each("payload")}

    def _refuses(self, name: str) -> str:
        """Why an item of this id cannot be held, in words that follow it; empty where it can."""
        try:
            size = len(key_of(name))
        except UnicodeEncodeError:
            return "no text"
        return "" if 0 < size <= _KEY_BYTES else f"empty, or more than {_KEY_BYTES} bytes as a URL"

    def _all_of(self, ids: Sequence[str], field: str) -> list[Any]:
        held = [key_of(name) for name in ids if not self._refuses(name)]
        found = {name_of(key): value for key, value in self._client.get(held, field).items()}
        if lacking := [name for name in ids if name not in found]:
            raise UserError(f"`ids`: {some_of(lacking)} not in the index")
        return [found[name] for name in ids]

    def _there(self, ids: Iterable[str]) -> list[str]:
        held = [key_of(name) for name in ids if not self._refuses(name)]
        return sorted(map(name_of, self._client.get(held, "id")))

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
        """Adds items and removes others, in parts of 10,000; see `tfhash.Index.change`."""
        checked = check_codes(codes, self.code_length)
        ids, remove = as_ids(ids), as_ids(remove)
        one_of_each(checked, ids=ids, payload=payload, content=content)
        no_twice(ids)
        payload = [None] * len(ids) if payload is None else payload
        self._check_change(ids, payload, remove, replace)
        contents = [None] * len(ids) if content is None else content
        rows = [
            {"id": key_of(one), "code": code.tobytes(), "payload": {"value": value, "content": of}}
            for one, code, value, of in zip(ids, checked, payload, contents, strict=True)
        ]
        # First what comes: a call that ends in the middle loses nothing.
        for start in range(0, len(rows), PART):
            self._client.call("upsert", data=rows[start : start + PART])
        gone = [key_of(name) for name in sorted(set(remove) - set(ids))]
        for start in range(0, len(gone), PART):
            self._client.call("delete", ids=gone[start : start + PART])

    def _check_change(
        self, ids: Sequence[str], payload: Sequence[Any], remove: Sequence[str], replace: bool
    ) -> None:
        """UserError for what cannot be added or removed, before anything is."""
        for name in ids:
            if why := self._refuses(name):
                raise UserError(f"`ids`: {shown(name):.80} is {why}")
        for value in payload:
            storable.as_json(value)
        if lacking := sorted(set(remove) - set(self._there(remove))):
            raise UserError(f"`ids`: {some_of(lacking)} not in the index")
        there = [] if replace else sorted(set(self._there(ids)) - set(remove))
        if there:
            raise UserError(
                f"`ids`: {some_of(there)} already in the index; allowed: others, or replace=True"
            )

    def search(
        self,
        codes: ArrayLike,
        *,
        k: int | None = None,
        radius: int | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Found:
        """The k nearest items of each query, or all within a radius; see `tfhash.Index.search`.

        k: at most 16,384.
        """
        queries = check_codes(codes, self.code_length)
        name, value = check_search(k, radius)
        if name == "k" and value > MOST:
            raise UserError(f"`k`: {value}; allowed in Milvus: at most {MOST:,}")
        answers = self._nearest.search(queries, name, value, where)
        kept = self._client.get(sorted({key for rows, _ in answers for _, key in rows}), "payload")
        return Found(
            [[name_of(key) for _, key in rows] for rows, _ in answers],
            [np.array([far for far, _ in rows], np.int64) for rows, _ in answers],
            [[kept[key]["value"] for _, key in rows] for rows, _ in answers],
            np.array([cut for _, cut in answers], np.int64),
        )

    # -- what the commands ask --------------------------------------------------------------------

    def optimise(self) -> str:
        """Nothing, Milvus makes its lists by itself; in words how it searches."""
        if not self._lists:
            return "all codes are compared"
        return f"{self._lists:,} lists, {self._probes:,} looked through"

    def remember(self, **facts: str) -> None:
        """Keeps words about the index by their names, for `facts`."""
        kinds, collection = self._client.kinds, f"{self.name}_facts"
        if not self._client.call("has_collection", collection):
            # Milvus wants a vector in every collection.
            vector = ("code", kinds.BINARY_VECTOR, {"dim": 8})
            text: tuple = ("words", kinds.JSON, {})
            self._create(collection, "", vector, text, kind={"index_type": "BIN_FLAT"})
        rows = [
            {"id": key_of(name), "code": b"\0", "words": {"is": key_of(words)}}
            for name, words in facts.items()
        ]
        self._client.call("upsert", collection, data=rows)

    def facts(self) -> dict[str, str]:
        """What was remembered, the model, and how it is searched."""
        name = f"{self.name}_facts"
        found: list[dict[str, Any]] = []
        if self._client.call("has_collection", name):
            self._client.call("load_collection", name)
            found = self._client.call(
                "query", name, filter='id != ""', output_fields=["id", "words"], limit=1_000
            )
        return {
            "model": self.model or "unknown",
            "backend": f"Milvus, {self.optimise()}",
            **{name_of(row["id"]): name_of(row["words"]["is"]) for row in found},
        }

    @property
    def folder(self) -> Path:
        """What ids that are relative paths are relative to: where the index was last built."""
        return Path(self.facts().get("folder", "."))

    @property
    def notes(self) -> list[str]:
        return []

    def compact(self) -> int:
        """Nothing: Milvus sees to it by itself."""
        return 0


def is_there(address: str, name: str = "tfhash") -> bool:
    """Whether there is a collection of this name. UserError where Milvus does not answer."""
    client = Client(address, name)
    try:
        return bool(client.call("has_collection"))
    finally:
        client.milvus.close()
