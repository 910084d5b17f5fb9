"""How the nearest codes of a table are found: lists of ivfflat, and parts of codes.

The lists say how far the k-th item is at most. All codes up to there are then looked up by their
parts: where two codes differ in at most d bits, one of their m parts differs in at most d / m. So
nothing is missed; where both are of no use, all codes are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tfhash.codes import is_whole
from tfhash.errors import UserError
from tfhash.search import values
from tfhash.search.postgres_connection import Connection

MOST_LISTS = 1_000  # their making takes memory with the square of it, then 200 MB
FEWEST = 10_000  # codes from which on a list pays
PER_LIST = 1_000  # codes, as pgvector advises below a million
_GROWN = 1.5  # times as many codes: the lists are made again
_PARTS, _PART_BITS = 4, 16  # at most, of a code
_PATTERNS = 600  # of a part that are looked up, at most


class Lists:
    """Of the tables of one connection; all within a transaction of the caller."""

    def __init__(self, connection: Connection, code_length: int):
        self._database = connection
        self.code_length = code_length
        count = min(_PARTS, math.ceil(code_length / _PART_BITS))
        edges = [code_length * n // count for n in range(count + 1)]
        self.parts = list(zip(edges, edges[1:], strict=False))

    # -- making them ------------------------------------------------------------------------------

    @property
    def known(self) -> dict[str, int]:
        """The numbers of lists and probes, and of the codes that there were then; 0 of none."""
        found = self._database.all(
            "SELECT name, value FROM {facts} WHERE name IN ('lists', 'probes', 'listed')"
        )
        return {"lists": 0, "probes": 0, "listed": 0} | {name: int(n) for name, n in found}

    def make(self, probes: int | None) -> str:
        """Makes them, or again where there are many more codes; in words what there is now.

        probes: lists that are looked through, by default a hundredth. UserError for others than 1
        to the number of lists.
        """
        if probes is not None and not (is_whole(probes) and 1 <= probes <= MOST_LISTS):
            raise UserError(f"`probes`: {probes!r:.40}; allowed: 1 to the number of lists")
        # One at a time, and writers go on until the making itself.
        self._database.run("LOCK TABLE {codes} IN SHARE UPDATE EXCLUSIVE MODE")
        count = self._database.one("SELECT count(*) FROM {codes}")
        if count < FEWEST:
            self._database.run("DROP INDEX IF EXISTS {ivf}")
            self._remember({"lists": 0, "probes": 0, "listed": 0})
            return f"{count:,} distinct codes: all are compared"
        known = self.known
        lists = known["lists"]
        if not lists or not 1 / _GROWN < count / known["listed"] < _GROWN:
            lists = min(max(count // PER_LIST, 1), MOST_LISTS)
            self._make(lists)
            known = {"lists": lists, "probes": max(lists // 100, 1), "listed": count}
        if probes is not None and probes > lists:
            raise UserError(f"`probes`: {probes}; allowed: 1 to {lists}, the number of lists")
        known["probes"] = probes or known["probes"]
        self._remember(known)
        return f"{count:,} distinct codes in {lists:,} lists, {known['probes']:,} looked through"

    def _make(self, lists: int) -> None:
        # k-means compares 50 samples of each list with each centre, and keeps the distances.
        megabytes = 64 + lists * lists * 50 * 4 * 5 // (4 << 20)
        self._database.run(f"SET LOCAL maintenance_work_mem = '{megabytes}MB'")
        self._database.run("SET LOCAL max_parallel_maintenance_workers = 0")  # cores are shared
        number = self._database.sql(str(lists))
        self._database.run("DROP INDEX IF EXISTS {new_ivf}")
        self._database.run(
            "CREATE INDEX {new_ivf} ON {codes} USING ivfflat (code bit_hamming_ops) WITH (lists = "
            "{number})",
            number=number,
        )
        for place, (start, end) in enumerate(self.parts):
            self._database.run(
                f"CREATE INDEX IF NOT EXISTS {{part{place}}} ON {{codes}} "
                f"(substring(code from {start + 1} for {end - start}))"
            )
        # Readers wait from here on, for a moment.
        self._database.run("DROP INDEX IF EXISTS {ivf}")
        self._database.run("ALTER INDEX {new_ivf} RENAME TO {ivf}")
        self._database.run("ANALYZE {codes}")
        self._database.run("ANALYZE {images}")

    def remember(self, name: str, value: str) -> None:
        """Keeps a fact of the index by its name."""
        self._database.run(
            "INSERT INTO {facts} VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = "
            "excluded.value",
            (name, value),
        )

    def _remember(self, numbers: Mapping[str, int]) -> None:
        for name, number in numbers.items():
            self.remember(name, str(number))

    # -- searching --------------------------------------------------------------------------------

    def search(
        self, queries: Sequence[str], name: str, value: int, where: Mapping[str, Any] | None
    ) -> list[tuple[list[tuple], int]]:
        """Of each query, digits 0 and 1: rows of id, distance and payload, and the ties cut.

        name: whether value is k or a radius.
        """
        known = self.known
        listed = known["lists"] > 0
        if name == "radius":
            return [(self._within(bits, value, where, None, listed), 0) for bits in queries]
        if listed:
            # Enough lists for k codes, were they all as full as on average; twice that, for luck.
            least = math.ceil(2 * value * known["lists"] / known["listed"])
            probes = min(max(known["probes"], least), known["lists"])
            self._database.run(f"SET LOCAL ivfflat.probes = {probes:d}")
        return [self._nearest(bits, value, where, listed) for bits in queries]

    def _nearest(
        self, bits: str, k: int, where: Mapping[str, Any] | None, listed: bool
    ) -> tuple[list[tuple], int]:
        far = None
        if listed and where is None:
            far = self._farthest(bits, k, None, "code <~> {q}")
        if far is None:
            far = self._farthest(bits, k, where, "far")
        if far is None:
            far = self.code_length
        rows = self._within(bits, far, where, k, listed)
        if not rows:
            return rows, 0
        *_, last = rows
        return rows, last[3] - sum(row[1] == last[1] for row in rows)

    def _farthest(
        self, bits: str, k: int, where: Mapping[str, Any] | None, order: str
    ) -> int | None:
        """The distance of the k-th item, or of one that is farther; None where fewer are found.

        order: where it is by the operator alone, the lists are asked.
        """
        condition, more = _condition(where)
        if where is None:
            # As many distinct codes as items are wanted have at least as many items.
            query = (
                "SELECT far FROM (SELECT code, (code <~> {q})::int AS far FROM {codes} "
                f"ORDER BY {order} LIMIT %s) AS c CROSS JOIN LATERAL "
                "(SELECT FROM {images} AS i WHERE i.code = c.code LIMIT %s) AS there "
                "ORDER BY far OFFSET %s LIMIT 1"
            )
            return self._database.one(query, (k, k, k - 1), q=self._literal(bits))
        query = (
            f"SELECT (code <~> {{q}})::int AS far FROM {{images}} WHERE {condition} "
            "ORDER BY far OFFSET %s LIMIT 1"
        )
        return self._database.one(query, (*more, k - 1), q=self._literal(bits))

    def _within(
        self,
        bits: str,
        radius: int,
        where: Mapping[str, Any] | None,
        most: int | None,
        listed: bool,
    ) -> list[tuple]:
        """At most so many rows of id, distance, payload, and how many items are as far."""
        condition, more = _condition(where)
        if where is None:
            alike = self._alike(bits, radius) if listed else "true"
            table = f"(SELECT code FROM {{codes}} WHERE {alike}) AS c JOIN {{images}} USING (code)"
        else:
            table = "{images}"
        # The payload of the ties that are cut is not read.
        query = (
            "SELECT near.id, near.far, i.payload, near.same FROM ("
            "SELECT id, far, count(*) OVER (PARTITION BY far) AS same FROM ("
            f"SELECT id, (code <~> {{q}})::int AS far FROM {table} WHERE {condition}) AS a "
            "WHERE far <= %s ORDER BY far, id LIMIT %s) AS near JOIN {images} AS i USING (id) "
            "ORDER BY near.far, near.id"
        )
        return self._database.all(query, (*more, radius, most), q=self._literal(bits))

    def _alike(self, bits: str, radius: int) -> str:
        """A condition that all codes within a radius meet, and that an index helps with."""
        flips = radius // len(self.parts)
        ways = sum(math.comb(self.parts[-1][1] - self.parts[-1][0], n) for n in range(flips + 1))
        if ways > _PATTERNS:
            return "true"
        conditions = []
        for start, end in self.parts:
            patterns = ",".join(_flipped(bits[start:end], flips))
            conditions.append(
                f"substring(code from {start + 1} for {end - start}) = "
                f"ANY('{{{{{patterns}}}}}'::bit({end - start})[])"
            )
        return "(" + " OR ".join(conditions) + ")"

    def _literal(self, bits: str) -> Any:
        return self._database.sql(f"B'{bits}'")  # digits 0 and 1 alone


def _flipped(part: str, most: int) -> list[str]:
    """A part with up to so many of its bits changed."""
    found = []
    for count in range(most + 1):
        for places in combinations(range(len(part)), count):
            changed = ["10"[int(b)] if n in places else b for n, b in enumerate(part)]
            found.append("".join(changed))
    return found


def _condition(where: Mapping[str, Any] | None) -> tuple[str, list[Any]]:
    """A condition on the payload, and its values: of each name one of its values.

    Of a list in a payload one element has to be one of them.
    """
    parts, found = [], []
    for name, wanted in values.check_where(where).items():
        ways = [{name: way} for value in wanted for way in (value, [value])]
        parts.append("(" + (" OR ".join(["payload @> %s::jsonb"] * len(ways)) or "false") + ")")
        found += [values.as_json(way) for way in ways]
    return " AND ".join(parts) or "true", found
