"""Recall and speed of the backends of faiss, on spread, sharp and learned codes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from search_parts.made import K, asked, made, seconds
from tfhash import npz
from tfhash.search import approximate, scan


def recall(found: list[scan.Rows], best: list[scan.Rows]) -> float:
    return scan.recall([rows.distances for rows in found], [rows.distances for rows in best])


def run(run: str | None) -> None:
    sets = {
        "spread, 10^6": (made(10**6, 48, 1_000, 0.08), 48),
        "sharp, 10^6": (made(10**6, 48, 10, 0.05), 48),
    }
    if run:
        codes = npz.read(Path(run, "codes", "database.npz"), ["codes"])["codes"]
        sets[f"{len(codes):,} of {Path(run).name}"] = (scan.to_rows(codes), codes.shape[1] * 8)
    print("| codes | distinct | search | build s | queries / CPU s | recall@10 | set up |")
    print("| --- | --: | --- | --: | --: | --: | --- |")
    for name, (rows, bits) in sets.items():
        rank, kept = np.arange(len(rows)), np.ones(len(rows), bool)
        queries = asked(rows, bits)
        best = scan.k_nearest(queries, rows, K, rank)
        searches = {"exact": lambda q: scan.k_nearest(q, rows, K, rank)}  # noqa: B023
        told = {"exact": ("0", "")}
        distinct = ""
        for backend, cls in approximate.BACKENDS.items():
            before = time.process_time()
            built = cls.of(rows, kept, bits)
            spent = time.process_time() - before
            built.choose_effort(approximate.RECALL)
            distinct = f"{len(built.distinct.codes):,}"
            told[backend] = (f"{spent:.1f}", built.told.split(":")[0])
            searches[backend] = lambda q, built=built: built.k_nearest(q, K, rank)  # noqa: B023
        for search, (of_all, _) in seconds(searches, queries).items():
            spent_s, words = told[search]
            share = recall(searches[search](queries), best)
            rate = len(queries) / of_all
            print(
                f"| {name} | {distinct} | {search} | {spent_s} | {rate:,.0f} | {share:.3f} | "
                f"{words} |",
                flush=True,
            )
