"""Exact search beside faiss, and beside the memory that both read."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from search_parts.made import K, as_bytes, asked, made, seconds
from tfhash.search import approximate, scan
from tfhash.search.index import Index

PART = 10**6  # items that are added at a time


def bandwidth() -> float:
    """GB a second that a sum over memory beyond the caches reads, on one thread."""
    values = np.ones(1 << 27, np.uint64)
    best = np.inf
    for _ in range(3):
        before = time.process_time()
        values.sum()
        best = min(best, time.process_time() - before)
    return values.nbytes / best / 1e9


def run(sizes: list[int], of_bits: tuple[int, ...] = (48, 64)) -> None:
    """Prints a table; an index is built in a folder, loaded, and asked as a user asks it."""
    print(f"a sum reads {bandwidth():.0f} GB/s on one thread\n")
    print(
        "| codes | bits | search | build CPU s | bytes a code | queries / CPU s | p50 ms | p99 ms "
        "| GB/s |"
    )
    print("| --: | --: | --- | --: | --: | --: | --: | --: | --: |")
    for count in sizes:
        for bits in of_bits:
            with tempfile.TemporaryDirectory() as where:
                _compare(made(count, bits, 1_000, 0.08), bits, Path(where, "index"))


def _compare(rows: np.ndarray, bits: int, path: Path) -> None:
    count, faiss = len(rows), approximate.faiss_module()
    queries = asked(rows, bits)[: 100 if count <= 10**7 else 20]
    before = time.process_time()
    index = Index(code_length=bits, path=path)
    for start in range(0, count, PART):
        some = rows[start : start + PART]
        index.add(scan.to_codes(some, bits), ids=[f"{start + n:09d}" for n in range(len(some))])
    index.close()
    built = {"tfhash.Index": (time.process_time() - before, 8.0)}
    index = Index.load(path)
    searches = {
        "tfhash.Index": lambda q: index.search(as_bytes(q, bits // 8), k=K),
    }
    for width in sorted({bits // 8, 8}):
        before = time.process_time()
        flat = faiss.IndexBinaryFlat(width * 8)
        flat.add(as_bytes(rows, width))
        name = f"faiss flat, {width} bytes"
        built[name] = (time.process_time() - before, width)
        searches[name] = lambda q, flat=flat, width=width: flat.search(as_bytes(q, width), K)
    for name, (of_all, (p50, p99)) in seconds(searches, queries).items():
        cpu, size = built[name]
        rate = len(queries) / of_all
        print(
            f"| {count:,} | {bits} | {name} | {cpu:.2f} | {size:.0f} | {rate:,.0f} | "
            f"{p50 * 1e3:.2f} | {p99 * 1e3:.2f} | {rate * count * size / 1e9:.1f} |",
            flush=True,
        )
    index.close()
