"""What embeddings of the queries gain."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tfhash import npz
from tfhash.search.index import Index


def run(run: str, **own: str) -> None:
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
