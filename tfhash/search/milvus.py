"""An index in Milvus, for 10^9 codes on a cluster of its own: BINARY_VECTOR and Hamming distance.

Needs the extra `milvus`. It was tried on milvus-lite (a file), which compares all codes; on a
cluster the collection has BIN_IVF_FLAT, which was not tried here.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfhash.errors import NotNowError, UserError
from tfhash.names import is_text, shown
from tfhash.search.index import (
    Found,
    check_codes,
    check_search,
    no_twice,
    one_of_each,
    some_of,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
MOST = 16_384  # answers of one search, Milvus' limit
_PART = 10_000  # items of one request
_ID_BYTES = 1_024


class MilvusIndex:
    """Codes with ids in a collection; `add`, `remove` and `search` as of `tfhash.Index`.

    A collection has no transactions: what a call that fails had written stays, and the same call
    again ends it. Of more than 16,384 answers the first are given.

    Args:
        address: of a server (http://host:19530), or a path that ends in .db for milvus-lite.
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
        try:
            import pymilvus
        except ImportError:
            raise UserError(
                "`index`: Milvus needs pymilvus: pip install 'tfhash[milvus]'"
            ) from None
        if not _NAME.fullmatch(name):
            raise UserError(f"`name`: {name!r}; allowed: letters, digits and _")
        self._pymilvus = pymilvus
        self.name, self.place, self._probes = name, shown(address), probes
        with self._errors():
            self._client = pymilvus.MilvusClient(address, token=token)
            there = self._client.has_collection(name)
        if not there and code_length is None:
            raise UserError(f"`index`: no collection {name} in {self.place}")
        if not there:
            assert code_length is not None
            check_codes(np.zeros((0, -(-code_length // 8)), np.uint8), code_length)
            self._make(code_length, model, lists)
        with self._errors():
            described = json.loads(self._client.describe_collection(name)["description"])
            self._client.load_collection(name)
        self.code_length: int = described["code_length"]
        self.model: str = described["model"]
        if code_length not in (None, self.code_length):
            raise UserError(f"`code_length`: {code_length}, but {name} has {self.code_length}")
        if model and self.model and model != self.model:
            raise UserError(f"`model`: {model}, but {name} has codes of {self.model}")

    def _make(self, code_length: int, model: str, lists: int | None) -> None:
        kinds = self._pymilvus.DataType
        description = json.dumps({"code_length": code_length, "model": model})
        schema = self._client.create_schema(enable_dynamic_field=False, description=description)
        schema.add_field("id", kinds.VARCHAR, max_length=_ID_BYTES, is_primary=True)
        schema.add_field("code", kinds.BINARY_VECTOR, dim=-(-code_length // 8) * 8)
        schema.add_field("payload", kinds.JSON)
        index = self._client.prepare_index_params()
        kind = {"index_type": "BIN_IVF_FLAT", "params": {"nlist": lists}} if lists else {}
        index.add_index("code", metric_type="HAMMING", **({"index_type": "BIN_FLAT"} | kind))
        with self._errors():
            self._client.create_collection(self.name, schema=schema, index_params=index)

    def __len__(self) -> int:
        with self._errors():
            found = self._client.query(self.name, filter="", output_fields=["count(*)"])
        return found[0]["count(*)"]

    def __contains__(self, name: str) -> bool:
        return bool(self._there([name]))

    def __enter__(self) -> MilvusIndex:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def add(
        self,
        codes: ArrayLike,
        *,
        ids: Sequence[str],
        payload: Sequence[Any] | None = None,
        replace: bool = False,
    ) -> None:
        """Adds items, in parts of 10,000; see `tfhash.Index.add`."""
        checked = check_codes(codes, self.code_length)
        ids = [*map(str, ids)]
        one_of_each(checked, ids=ids, payload=payload)
        no_twice(ids)
        for one in ids:
            if not is_text(one) or not 0 < len(one.encode()) <= _ID_BYTES:
                raise UserError(f"`ids`: {shown(one):.80}; allowed: text of 1 to {_ID_BYTES} bytes")
        there = self._there(ids)
        if there and not replace:
            raise UserError(
                f"`ids`: {some_of(there)} already in the index; allowed: others, or replace=True"
            )
        values = [None] * len(ids) if payload is None else payload
        rows = [
            {"id": one, "code": code.tobytes(), "payload": {"value": value}}
            for one, code, value in zip(ids, checked, values, strict=True)
        ]
        with self._errors():
            for start in range(0, len(rows), _PART):
                self._client.upsert(self.name, rows[start : start + _PART])

    def remove(self, ids: Sequence[str]) -> None:
        """Removes items. UserError for an id that is not there; then none is removed."""
        ids = [*map(str, ids)]
        if lacking := sorted(set(ids) - set(self._there(ids))):
            raise UserError(f"`ids`: {some_of(lacking)} not in the index")
        with self._errors():
            for start in range(0, len(ids), _PART):
                self._client.delete(self.name, ids=ids[start : start + _PART])

    def search(
        self,
        codes: ArrayLike,
        *,
        k: int | None = None,
        radius: int | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Found:
        """The k nearest items of each query, or all within a radius; see `tfhash.Index.search`.

        ties_cut counts those among the next answers that were asked for, four times k.
        """
        queries = check_codes(codes, self.code_length)
        name, value = check_search(k, radius)
        limit = min(MOST, 4 * value if name == "k" else MOST)
        params: dict[str, Any] = {"metric_type": "HAMMING", "params": {"nprobe": self._probes}}
        with self._errors():
            answers = self._client.search(
                self.name,
                data=[query.tobytes() for query in queries],
                anns_field="code",
                limit=limit,
                filter=_filter(where),
                output_fields=["payload"],
                search_params=params,
            )
        rows = [self._sorted(hits, name, value) for hits in answers]
        return Found(
            [[one for _, one, _ in of_query] for of_query, _ in rows],
            [np.array([far for far, _, _ in of_query], np.int64) for of_query, _ in rows],
            [[payload for _, _, payload in of_query] for of_query, _ in rows],
            np.array([cut for _, cut in rows], np.int64),
        )

    @staticmethod
    def _sorted(hits: Sequence[Any], name: str, value: int) -> tuple[list[tuple], int]:
        """Distances, ids and payload in their order, and how many more are as far as the last."""
        found = sorted(
            (round(hit["distance"]), hit["id"], hit["entity"]["payload"]["value"]) for hit in hits
        )
        if name == "radius":
            return [row for row in found if row[0] <= value], 0
        kept = found[:value]
        cut = sum(row[0] == kept[-1][0] for row in found[value:]) if kept else 0
        return kept, cut

    def _there(self, ids: Sequence[str]) -> list[str]:
        found: list[str] = []
        with self._errors():
            for start in range(0, len(ids), _PART):
                part = list(ids[start : start + _PART])
                rows = self._client.get(self.name, ids=part, output_fields=["id"]) if part else []
                found += [row["id"] for row in rows]
        return sorted(found)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What Milvus says, as one line."""
        try:
            yield
        except self._pymilvus.exceptions.MilvusException as error:
            words = " ".join(str(error).split())[:200]
            raise NotNowError(f"`index`: Milvus at {self.place}: {words}") from None


def _filter(where: Mapping[str, Any] | None) -> str:
    """An expression of Milvus on the payload: of each name one of its values."""
    parts = []
    for name, wanted in (where or {}).items():
        wanted = list(wanted) if isinstance(wanted, (list, tuple, set)) else [wanted]
        for value in wanted:
            if not isinstance(value, (str, int, float, bool)):
                raise UserError(
                    f"`where`: {name}={value!r}; allowed: text, numbers, True and False, and lists "
                    "of these"
                )
        field = f'payload["value"][{json.dumps(str(name))}]'
        parts.append("(" + " or ".join(f"{field} == {json.dumps(v)}" for v in wanted) + ")")
    return " and ".join(part if part != "()" else 'id == ""' for part in parts)
