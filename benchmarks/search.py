"""Times the search of an index beside faiss, and beside the memory that it reads.

    python benchmarks/search.py                       # exact, 48 and 64 bits, to 10 million codes
    python benchmarks/search.py --codes=100000000     # one size; 10^8 codes take 800 MB, ids 5 GB
    python benchmarks/search.py --approximate [--run=runs/cifar10]    # recall and speed at 10^6
    python benchmarks/search.py --postgres[=ADDRESS]  # pgvector at 10^6: inserts, speed, a filter
    python benchmarks/search.py --folder --model=EXPORT      # a folder of 5,000 photos, twice
    python benchmarks/search.py --page --model=EXPORT        # uploads to the page over 10^6 codes
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

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SIZES = (59_000, 10**6, 10**7)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--codes", type=int)
    parser.add_argument("--bits", type=int, choices=(48, 64))
    parser.add_argument("--approximate", action="store_true")
    parser.add_argument("--run")
    parser.add_argument(
        "--postgres", nargs="?", const="", help="without an address one of its own, killed once"
    )
    parser.add_argument("--folder", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--rerank", help="a run folder")
    parser.add_argument("--data_dir")
    parser.add_argument("--weights")
    given = parser.parse_args()
    if given.approximate:
        from search_parts import approximates

        approximates.run(given.run)
    elif given.rerank:
        from search_parts import reranking

        own = {"data_dir": given.data_dir, "weights": given.weights}
        reranking.run(given.rerank, **{name: value for name, value in own.items() if value})
    elif given.postgres is not None:
        from search_parts import databases

        databases.run(given.postgres)
    elif given.folder:
        from search_parts import folders

        folders.run(given.model)
    elif given.page:
        from search_parts import pages

        pages.run(given.model)
    else:
        from search_parts import exact

        sizes = [given.codes] if given.codes else list(SIZES)
        exact.run(sizes, (given.bits,) if given.bits else (48, 64))


if __name__ == "__main__":
    main()
