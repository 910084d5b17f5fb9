"""Times the search of an index beside faiss, and beside the memory that it reads.

    python benchmarks/search.py                       # exact, 48 and 64 bits, to 10 million codes
    python benchmarks/search.py --codes=100000000     # one size; 10^8 codes take 800 MB
    python benchmarks/search.py --approximate [--run=runs/cifar10]    # recall and speed at 10^6
    python benchmarks/search.py --postgres=ADDRESS    # pgvector at 10^6: inserts, speed, a filter
    python benchmarks/search.py --folder --model=EXPORT      # a folder of 5,000 photos, twice
    python benchmarks/search.py --rerank=RUN [--data_dir=] [--weights=]   # order by embeddings

Spread codes: 1,000 random centres, bits flipped with p = .08. Sharp codes: 10 centres, p = .05, as
a trained hash gives them. Queries are codes of the index with 5 % of the bits changed. Speeds are
queries a second of CPU time on one thread, the best of the repeats, which take turns; p50 and p99
are wall time. Recall is tie-aware: the share of what was found that is not farther than the true
last one of the ten.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

from tfhash import npz
from tfhash.search import approximate, scan
from tfhash.search.index import Index

QUERIES, K, REPEATS = 100, 10, 3
SIZES = (59_000, 10**6, 10**7)


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


def bandwidth() -> float:
    """GB a second that a sum over memory beyond the caches reads, on one thread."""
    values = np.ones(1 << 27, np.uint64)
    best = np.inf
    for _ in range(3):
        before = time.process_time()
        values.sum()
        best = min(best, time.process_time() - before)
    return values.nbytes / best / 1e9


def exact(sizes: list[int]) -> None:
    faiss = approximate.faiss_module()
    print(f"a sum reads {bandwidth():.0f} GB/s on one thread\n")
    print(
        "| codes | bits | search | build s | bytes a code | queries / CPU s | p50 ms | p99 ms | "
        "GB/s |"
    )
    print("| --: | --: | --- | --: | --: | --: | --: | --: | --: |")
    for count in sizes:
        for bits in (48, 64):
            rows = made(count, bits, 1_000, 0.08)
            rank = np.random.default_rng(2).permutation(count)
            queries = asked(rows, bits)
            if count > 10**7:
                queries = queries[:20]
            searches = {"tfhash exact": lambda q: scan.k_nearest(q, rows, K, rank)}  # noqa: B023
            built = {"tfhash exact": (0.0, rows.nbytes / count)}
            for width in sorted({bits // 8, 8}):
                before = time.process_time()
                flat = faiss.IndexBinaryFlat(width * 8)
                flat.add(as_bytes(rows, width))
                name = f"faiss flat, {width} bytes"
                built[name] = (time.process_time() - before, width)
                searches[name] = lambda q, flat=flat, width=width: flat.search(
                    as_bytes(q, width), K
                )
            for name, (of_all, (p50, p99)) in seconds(searches, queries).items():
                build, size = built[name]
                rate = len(queries) / of_all
                print(
                    f"| {count:,} | {bits} | {name} | {build:.2f} | {size:.0f} | {rate:,.0f} | "
                    f"{p50 * 1e3:.2f} | {p99 * 1e3:.2f} | {rate * count * size / 1e9:.1f} |",
                    flush=True,
                )


def recall(found: list[scan.Rows], best: list[scan.Rows]) -> float:
    return scan.recall([rows.distances for rows in found], [rows.distances for rows in best])


def approximates(run: str | None) -> None:
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


def database(address: str) -> None:
    """A million spread codes in PostgreSQL, and the same in an exact index."""
    from tfhash.search.postgres import PostgresIndex

    count, part = 10**6, 50_000
    codes = scan.to_codes(made(count, 48, 1_000, 0.08), 48)
    ids = [f"{n:07d}" for n in range(count)]
    payload = [{"label": int(n)} for n in np.random.default_rng(3).integers(0, 100, count)]
    queries = scan.to_codes(asked(scan.to_rows(codes), 48), 48)
    index = PostgresIndex(address, code_length=48, name="benchmark")
    before = time.perf_counter()
    for start in range(len(index), count, part):
        some = slice(start, start + part)
        index.add(codes[some], ids=ids[some], payload=payload[some])
        rate = (start + part) / (time.perf_counter() - before)
        print(f"\r{start + part:,} inserted, {rate:,.0f} a second", end="", flush=True)
    print()
    memory = Index(codes, ids=ids, code_length=48, payload=payload)
    print("| search | wall ms a query | recall@10 | answers |")
    print("| --- | --: | --: | --: |")

    def row(name: str, where: dict | None, some: np.ndarray) -> None:
        best = memory.search(some, k=K, where=where)
        before = time.perf_counter()
        found = index.search(some, k=K, where=where)
        spent = (time.perf_counter() - before) / len(some)
        share = scan.recall(found.distances, best.distances)
        answers = min(map(len, found.ids))
        print(f"| {name} | {spent * 1e3:.1f} | {share:.3f} | {answers} |", flush=True)

    row("all codes compared", None, queries[:10])
    row("the same, a filter of 1 %", {"label": 7}, queries[:10])
    print(index.optimise())
    row("ivfflat", None, queries)
    row("a filter of 1 %", {"label": 7}, queries[:10])


def folder(model: str) -> None:
    """5,000 photos of noise; then 50 changed, 50 new and 50 gone."""
    from PIL import Image

    from tfhash.search import build
    from tfhash.search.encoder import Encoder

    rng = np.random.default_rng(0)

    def draw(path: Path) -> None:
        small = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(small).resize((640, 480)).save(path, quality=85)

    encoder = Encoder(model)
    with tempfile.TemporaryDirectory() as where:
        photos = Path(where, "photos")
        photos.mkdir()
        for number in range(5_000):
            draw(photos / f"{number:04d}.jpg")

        def built(name: str) -> tuple[Index, float]:
            path = Path(where, name)
            index = (
                Index.load(path)
                if path.exists()
                else Index(code_length=encoder.code_length, path=path, model=encoder.fingerprint)
            )
            before = time.perf_counter()
            changes = build.update(index, encoder, f"{photos}/**", drop=True)
            spent = time.perf_counter() - before
            print(f"{name}: {changes} in {spent:.1f} s", flush=True)
            return index, spent

        built("first")[0].close()
        for number in range(50):
            draw(photos / f"{number:04d}.jpg")
            draw(photos / f"new{number:04d}.jpg")
            (photos / f"{4_900 + number:04d}.jpg").unlink()
        second, _ = built("first")
        fresh, _ = built("fresh")
        ids = fresh.ids()
        same = second.ids() == ids and (second.codes(ids) == fresh.codes(ids)).all()
        print(f"the second build is {'the same as' if same else 'OTHER than'} a fresh one")
        shutil.rmtree(photos)


def reranking(run: str, **own: str) -> None:
    """What embeddings of the queries gain on a run: mAP@100 and precision@10, and time."""
    from tfhash.evaluation import retrieval
    from tfhash.runs import experiment, finished
    from tfhash.runs import folder as run_folder

    of_data = {name: own[name] for name in own if name == "data_dir"}
    given, _ = run_folder.read(Path(run), of_data)
    images, parts = experiment.load_data(given.experiment)
    hasher = finished.load(run, **{name: own[name] for name in own if name == "weights"})
    query, database = (
        npz.read(Path(run, "codes", f"{part}.npz"), ["codes", "labels", "ids"])
        for part in ("query", "database")
    )
    embeddings = hasher.embed(images.images[parts.query])
    relevant = query["labels"].astype(int) @ database["labels"].T.astype(int) > 0
    place = {name: number for number, name in enumerate(database["ids"])}
    index = Index(database["codes"], ids=list(database["ids"]), code_length=hasher.code_length)
    plain = retrieval.evaluate(
        query["codes"],
        database["codes"],
        query["labels"],
        database["labels"],
        code_length=hasher.code_length,
        map_at=(100,),
        precision_at=(10,),
    )
    print("| order | candidates | mAP@100 | precision@10 | ms a query |")
    print("| --- | --: | --: | --: | --: |")
    before = time.perf_counter()
    index.search(query["codes"], k=100)
    spent = (time.perf_counter() - before) / len(query["codes"]) * 1e3
    values = f"{plain.map[100]:.4f} | {plain.precision_at[10]:.4f}"
    print(f"| Hamming, ties expected | - | {values} | {spent:.2f} |", flush=True)
    for candidates in (100, 200, 1_000, 5_000, len(database["codes"])):
        before = time.perf_counter()
        found = index.search(query["codes"], k=100, embeddings=embeddings, candidates=candidates)
        spent = (time.perf_counter() - before) / len(query["codes"]) * 1e3
        precisions, tops = [], []
        for number, ids in enumerate(found.ids):
            hits = relevant[number, [place[name] for name in ids]]
            at = hits.cumsum() / np.arange(1, len(hits) + 1)
            precisions.append(at[hits].mean() if hits.any() else 0.0)
            tops.append(hits[:10].mean())
        print(
            f"| by embeddings | {candidates:,} | {np.mean(precisions):.4f} | {np.mean(tops):.4f} | "
            f"{spent:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--codes", type=int)
    parser.add_argument("--approximate", action="store_true")
    parser.add_argument("--run")
    parser.add_argument("--postgres")
    parser.add_argument("--folder", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--rerank", help="a run folder")
    parser.add_argument("--data_dir")
    parser.add_argument("--weights")
    given = parser.parse_args()
    if given.approximate:
        approximates(given.run)
    elif given.rerank:
        own = {"data_dir": given.data_dir, "weights": given.weights}
        reranking(given.rerank, **{name: value for name, value in own.items() if value})
    elif given.postgres:
        database(given.postgres)
    elif given.folder:
        folder(given.model)
    else:
        exact([given.codes] if given.codes else list(SIZES))


if __name__ == "__main__":
    main()
