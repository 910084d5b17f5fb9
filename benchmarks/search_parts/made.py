"""Codes that are made, and the time of searches among them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfhash.search import scan

QUERIES, K, REPEATS = 100, 10, 3


def made(count: int, bits: int, centres: int, flipped: float, seed: int = 0) -> np.ndarray:
    """Codes uint64 [n, words] around random centres, made in parts."""
    rng = np.random.default_rng(seed)
    of_centres = rng.integers(0, 2, (centres, bits), np.uint8)
    parts = []
    for start in range(0, count, 10**6):
        some = min(10**6, count - start)
        of_part = of_centres[rng.integers(0, centres, some)]
        of_part ^= (rng.random((some, bits), np.float32) < flipped).astype(np.uint8)
        parts.append(scan.to_rows(np.packbits(of_part, axis=1)))
    return np.concatenate(parts)


def asked(rows: np.ndarray, bits: int) -> np.ndarray:
    """Codes of the rows with 5 % of the bits changed."""
    rng = np.random.default_rng(1)
    chosen = rows[rng.integers(0, len(rows), QUERIES)]
    flips = scan.to_rows(np.packbits(rng.random((QUERIES, bits)) < 0.05, axis=1))
    return chosen ^ flips


def as_bytes(rows: np.ndarray, width: int) -> np.ndarray:
    return np.ascontiguousarray(rows.view(np.uint8).reshape(len(rows), -1)[:, :width])


def seconds(searches: dict[str, Callable[[np.ndarray], Any]], queries: np.ndarray) -> dict:
    """Of each search by its name CPU seconds for all queries, and the wall times of single ones."""
    best = dict.fromkeys(searches, np.inf)
    singles: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(REPEATS):
        for name, search in searches.items():
            before = time.process_time()
            search(queries)
            best[name] = min(best[name], time.process_time() - before)
    for name, search in searches.items():
        for query in queries:
            before = time.perf_counter()
            search(query[None])
            singles[name].append(time.perf_counter() - before)
    return {name: (best[name], np.percentile(singles[name], [50, 99])) for name in searches}
