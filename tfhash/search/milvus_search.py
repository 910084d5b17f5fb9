"""The nearest in a collection of Milvus, in the order of ids, all ties counted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from tfhash.errors import UserError
from tfhash.names import ENCODING, ERRORS, shown
from tfhash.search import values
from tfhash.search.milvus_connection import Client

MOST = 16_384  # answers of one search, Milvus' limit
_CONTROL = re.compile("[\x00-\x1f\x7f]")
Pairs = list[tuple[int, str]]  # distances and keys


class Nearest:
    """What searches a collection; lists: 0 where all codes are compared; probes: looked through."""

    def __init__(self, client: Client, lists: int, probes: int):
        self._client, self._lists, self._probes = client, lists, probes

    def search(
        self, queries: np.ndarray, name: str, value: int, where: Mapping[str, Any] | None
    ) -> list[tuple[Pairs, int]]:
        """Of each query, packed uint8, the distances and keys in their order, and the ties cut.

        name: whether value is k, at most MOST, or a radius.
        """
        condition = _filter(where)
        limit = min(MOST, 2 * value + 50) if name == "k" else MOST
        answers = []
        for query, near in zip(queries, self._ask(queries, limit, condition), strict=True):
            if name == "radius":
                answers.append((self._within(query, value, condition, near), 0))
            else:
                answers.append(self._first(query, value, condition, near, limit))
        return answers

    def _ask(
        self, queries: np.ndarray, limit: int, condition: str, probes: int | None = None
    ) -> list[Pairs]:
        """The nearest of each query, nearest first."""
        if not len(queries):
            return []
        found = self._client.call(
            "search",
            data=[query.tobytes() for query in queries],
            anns_field="code",
            limit=limit,
            filter=condition,
            search_params={"metric_type": "HAMMING", "params": {"nprobe": probes or self._probes}},
        )
        return [[(round(hit["distance"]), hit["id"]) for hit in hits] for hits in found]

    def _first(
        self, query: np.ndarray, k: int, condition: str, near: Pairs, limit: int
    ) -> tuple[Pairs, int]:
        if len(near) < k and self._lists > self._probes:  # too few in the lists looked through
            (near,) = self._ask(query[None], limit, condition, self._lists)
        if len(near) == limit and near[k - 1][0] == near[-1][0]:  # perhaps not all of the ties
            near = self._within(query, near[-1][0], condition)
        near = _sorted(near)
        kept = near[:k]
        return kept, sum(far == kept[-1][0] for far, _ in near[k:]) if kept else 0

    def _within(
        self, query: np.ndarray, radius: int, condition: str, near: Pairs | None = None
    ) -> Pairs:
        """All within a radius in their order; near: the first MOST, where they are known."""
        if near is None:
            (near,) = self._ask(query[None], MOST, condition)
        if len(near) < MOST or near[-1][0] > radius:
            return _sorted(pair for pair in near if pair[0] <= radius)
        # Milvus answers no more: those up to an id in their middle, and those above it.
        middle = sorted(key for _, key in near)[len(near) // 2 - 1]
        before = f"({condition}) and " if condition else ""
        parts = (f'{before}id {sign} "{middle}"' for sign in ("<=", ">"))
        return _sorted(pair for part in parts for pair in self._within(query, radius, part))


def key_of(name: str) -> str:
    """An id as its key: ASCII without quotes, for milvus-lite reads these as SQL.

    UnicodeEncodeError for surrogates that stand for no byte, which no file name has.
    """
    return quote(name, safe="/ ,:@=+~()[]", encoding=ENCODING, errors=ERRORS)


def name_of(key: str) -> str:
    """Undoes `key_of`."""
    return unquote(key, encoding=ENCODING, errors=ERRORS)


def _sorted(pairs: Iterable[tuple[int, str]]) -> Pairs:
    """By distance, and at one distance by id, whose order is not that of keys."""
    return sorted(pairs, key=lambda pair: (pair[0], name_of(pair[1])))


def _filter(where: Mapping[str, Any] | None) -> str:
    """An expression of Milvus on the payload: of each name one of its values.

    Of a list in a payload one element has to be one of them.
    """
    parts = []
    for name, wanted in values.check_where(where).items():
        _check_text((name, *wanted))
        field = f'payload["value"][{_literal(name)}]'
        ways = [f"{field} == {v} or json_contains({field}, {v})" for v in map(_literal, wanted)]
        parts.append("(" + " or ".join(ways) + ")")
    return " and ".join(part if part != "()" else 'id == ""' for part in parts)


def _check_text(found: Sequence[Any]) -> None:
    for text in found:
        if isinstance(text, str) and _CONTROL.search(text):
            raise UserError(
                f"`where`: {shown(text):.100}; allowed in Milvus: text without line breaks, tabs "
                "and other control characters"
            )


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # Milvus does not read escapes such as \u00e9
