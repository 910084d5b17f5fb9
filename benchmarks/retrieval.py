"""Times `retrieval.evaluate` beside ranking by argsort, and beside XOR and popcount alone.

    python benchmarks/retrieval.py [--queries=1000] [--database=59000] [--bits=48]
    python benchmarks/retrieval.py --nus_wide      # 2,100 x 193,734 items, 21 labels, mAP@5000
    python benchmarks/retrieval.py --nus_wide --labels=DIR   # labels of DIR/test.txt and train.txt,
                                                             # `path l1 ... l21` a line, repeated

The codes are noisy copies of one random code a class, so that distances are spread, and tied, as
those of learned codes are. Times are wall-clock on one thread, the best of the repeats, which take
turns; the peak memory is that of a further run, above what the inputs hold.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from tfhash import codes
from tfhash.evaluation import retrieval


class Problem(NamedTuple):
    """Bits uint8 [n, k] and multi-hot labels uint8 [n, C] of queries and database."""

    query_bits: np.ndarray
    database_bits: np.ndarray
    query_labels: np.ndarray
    database_labels: np.ndarray
    depth: int | None


def random_labels(count: int, classes: int, more_labels: float) -> np.ndarray:
    """One class an item, and each other class with probability `more_labels`."""
    rng = np.random.default_rng(0)
    labels = (rng.random((count, classes)) < more_labels).astype(np.uint8)
    labels[np.arange(count), rng.integers(0, classes, count)] = 1
    return labels


def listed_labels(path: Path, count: int) -> np.ndarray:
    """The labels of a list, from its beginning again where it ends: uint8 [count, C]."""
    lines = path.read_text(encoding="utf-8").splitlines()
    labels = np.array([line.split()[1:] for line in lines], np.uint8)
    return labels[np.arange(count) % len(labels)]


def make_problem(
    query_labels: np.ndarray, database_labels: np.ndarray, bits: int, depth: int | None
) -> Problem:
    """Each code is a noisy copy of that of one of the item's labels, any of them as likely."""
    rng = np.random.default_rng(1)
    queries, labels = len(query_labels), np.concatenate([query_labels, database_labels])
    count, classes = labels.shape
    main_label = (rng.random(labels.shape) * labels).argmax(axis=1)
    centres = rng.integers(0, 2, (classes, bits), dtype=np.uint8)
    items = centres[main_label] ^ (rng.random((count, bits)) < 0.25).astype(np.uint8)
    return Problem(items[:queries], items[queries:], labels[:queries], labels[queries:], depth)


def rank_by_argsort(problem: Problem) -> float:
    """mAP query by query: a product of codes in {-1, 1}, argsort, cumulated hits."""
    signs = problem.database_bits.astype(np.float32) * 2 - 1
    labels = problem.database_labels.astype(np.float32)
    ranks = np.arange(1, len(signs) + 1)
    total = 0.0
    for bits, query_labels in zip(problem.query_bits, problem.query_labels, strict=True):
        distance = (len(bits) - signs @ (bits.astype(np.float32) * 2 - 1)) / 2
        relevant = labels @ query_labels.astype(np.float32) > 0
        hits = relevant[np.argsort(distance)][: problem.depth]
        at_hits = np.flatnonzero(hits)
        if len(at_hits):
            total += (np.arange(1, len(at_hits) + 1) / ranks[at_hits]).mean()
    return total / len(problem.query_bits)


def evaluator(problem: Problem, **judging: str) -> Callable[[], float]:
    query_codes, database_codes = codes.pack(problem.query_bits), codes.pack(problem.database_bits)

    def run() -> float:
        metrics = retrieval.evaluate(
            query_codes,
            database_codes,
            problem.query_labels,
            problem.database_labels,
            code_length=problem.query_bits.shape[1],
            map_at=(problem.depth,),
            precision_at=(100,),
            **judging,
        )
        return metrics.map[problem.depth]

    return run


def distance_alone(problem: Problem) -> Callable[[], None]:
    queries = codes.to_words(codes.pack(problem.query_bits))
    database = codes.to_words(codes.pack(problem.database_bits))

    def run() -> None:
        for row in range(queries.shape[1]):
            for word, database_word in zip(queries[:, row], database, strict=True):
                np.bitwise_count(word ^ database_word)

    return run


def seconds(call: Callable[[], float | None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_megabytes(call: Callable[[], float | None]) -> tuple[float, float | None]:
    tracemalloc.start()
    value = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6, value


def _labels(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Labels of queries and database, as the flags ask for them."""
    queries, database = options.queries, options.database
    if options.nus_wide:
        queries, database = 2_100, 193_734
    if options.labels:
        query_labels = listed_labels(options.labels / "test.txt", queries)
        return query_labels, listed_labels(options.labels / "train.txt", database)
    classes, more_labels = (21, 0.05) if options.nus_wide else (10, 0)
    labels = random_labels(queries + database, classes, more_labels)
    return labels[:queries], labels[queries:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--database", type=int, default=59_000)
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--nus_wide", action="store_true", help="2,100 x 193,734 items, 21 labels")
    parser.add_argument("--labels", type=Path, help="with --nus_wide: folder of its label lists")
    options = parser.parse_args()
    if options.labels and not options.nus_wide:
        parser.error("--labels goes with --nus_wide")
    problem = make_problem(*_labels(options), options.bits, 5_000 if options.nus_wide else None)
    calls: dict[str, Callable[[], float | None]] = {
        f"evaluate, ties={ties}": evaluator(problem, ties=ties) for ties in retrieval.TIES
    }
    for convention in retrieval.CONVENTIONS[1:]:
        calls[f"evaluate, {convention}"] = evaluator(problem, convention=convention)
    calls["matmul + argsort"] = lambda: rank_by_argsort(problem)
    calls["XOR + popcount alone"] = distance_alone(problem)

    times = {name: [] for name in calls}
    with threadpool_limits(limits=1):
        for _ in range(options.repeats):
            for name, call in calls.items():
                times[name].append(seconds(call))
    query_count, size = len(problem.query_bits), len(problem.database_bits)
    depth = "" if problem.depth is None else f"@{problem.depth}"
    print(
        f"{query_count:,} queries x {size:,} items, {options.bits} bits, "
        f"{problem.query_labels.shape[1]} labels"
    )
    print(f"{'':26} {'seconds':>8} {'ms a query':>10} {'peak MB':>8} {'mAP' + depth:>9}")
    for name, call in calls.items():
        peak, value = peak_megabytes(call)
        shown = "-" if value is None else f"{value:.4f}"
        best = min(times[name])
        per_query = best / query_count * 1e3
        print(f"{name:26} {best:8.2f} {per_query:10.3f} {peak:8.1f} {shown:>9}")


if __name__ == "__main__":
    main()
