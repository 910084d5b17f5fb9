"""One codes file judged in every tie mode and by every convention of mAP: the tables of docs.

    python benchmarks/conventions.py RUN [--map_at=1000] [--code_length=12] [--shuffles=3]

RUN is the folder of a finished run. With --code_length only the first bits of its codes are judged.
What depends on the order of the database is also judged in that many random orders of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from tfhash import codes
from tfhash.evaluation import retrieval


def read(run: Path, part: str, code_length: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `bits` bits of the packed codes of a part of the run, and its labels."""
    with np.load(run / "codes" / f"{part}.npz", allow_pickle=False) as file:
        return codes.pack(codes.unpack(file["codes"], code_length)[:, :bits]), file["labels"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--map_at", type=int, default=1000, help="R of mAP@R")
    parser.add_argument("--code_length", type=int, help="first bits of the codes; by default all")
    parser.add_argument("--shuffles", type=int, default=3, help="random orders of the database")
    options = parser.parse_args()
    metrics = json.loads((options.run / "metrics.json").read_text(encoding="utf-8"))
    bits = options.code_length or metrics["code_length"]
    query, query_labels = read(options.run, "query", metrics["code_length"], bits)
    database, labels = read(options.run, "database", metrics["code_length"], bits)
    rng = np.random.default_rng(0)
    orders = [np.arange(len(database))]
    orders += [rng.permutation(len(database)) for _ in range(options.shuffles)]
    depths = (None, options.map_at)

    print(f"{len(query):,} queries x {len(database):,} items, {bits} bits; "
          f"range over {options.shuffles} random orders of the database")  # fmt: skip
    print()
    print(f"| convention | ties | mAP | range | mAP@{options.map_at} | range |")
    print("| :-- | :-- | --: | :-- | --: | :-- |")
    judgings = [("tfhash", ties) for ties in retrieval.TIES]
    judgings += [(convention, None) for convention in retrieval.CONVENTIONS[1:]]
    for convention, ties in judgings:
        repeats = orders if ties in ("stable", None) else orders[:1]
        maps = [
            retrieval.evaluate(
                query, database[order], query_labels, labels[order],
                code_length=bits, map_at=depths, ties=ties or "expected", convention=convention,
            ).map
            for order in repeats
        ]  # fmt: skip
        cells = [convention, ties or "its sort's"]
        for depth in depths:
            shuffled = [one[depth] for one in maps[1:]]
            cells.append(f"{maps[0][depth]:.4f}")
            cells.append(f"{min(shuffled):.4f} to {max(shuffled):.4f}" if shuffled else "-")
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
