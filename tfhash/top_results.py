"""Top results of several runs below each other: `python -m tfhash.top_results RUN RUN ...`."""

from __future__ import annotations

import dataclasses
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from tfhash import codes, experiment, figures, finished_run, results  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.mains import print_error  # noqa: E402

NAME = "tfhash.top_results"
TOP = 10


def nearest(query_codes: np.ndarray, database_codes: np.ndarray, count: int = TOP) -> np.ndarray:
    """The positions of the `count` nearest items of the database, nearest first: int64 [q, count].

    query_codes, database_codes: packed uint8 [q, w] and [n, w]. Items at one distance stand in the
    order of the database.
    """
    distance = codes.hamming_distance(query_codes, database_codes)
    return np.argsort(distance, axis=1, kind="stable")[:, :count]


def draw(
    folders: Sequence[Path], output: Path, query_count: int = 5, data_dir: str | None = None
) -> None:
    """Draws the ten nearest images of the same queries in every run, as one PNG.

    folders: finished runs on one split. query_count: queries, evenly spread over those of the
    split. data_dir: where the data set is now. An image is relevant that shares a label with the
    query. Items at one distance stand in the order of the database. Raises UserError where a run
    cannot be read, or runs differ in their split.
    """
    runs = [_read(folder) for folder in folders]
    _check_splits(folders, runs)
    config, *_ = finished_run.read(folders[0])
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    images, parts = experiment.load_data(config)
    if parts.fingerprint != runs[0]["split_fingerprint"]:
        raise UserError(
            f"--data_dir: the split of the data there is {parts.fingerprint}; allowed: the data of "
            f"{folders[0]}, whose split is {runs[0]['split_fingerprint']}"
        )
    last = len(parts.query) - 1
    chosen = np.unique(np.linspace(0, last, min(query_count, last + 1)).astype(int))
    queries = parts.query[chosen]
    rows = {}
    for title, folder in zip(_titles(folders, runs), folders, strict=True):
        query, database = _codes(folder, "query"), _codes(folder, "database")
        top = parts.database[nearest(query[chosen], database)]
        shared = np.einsum("qc,qrc->qr", images.labels[queries], images.labels[top])
        rows[title] = images.images[top], shared > 0
    try:
        figures.top_results_of_methods(images.images[queries], rows, output)
    except OSError as error:
        raise UserError(f"--output={output}: {error}") from None


def _read(folder: Path) -> dict:
    """The metrics.json of a run."""
    if not (folder / "metrics.json").is_file():
        raise UserError(f"{folder}: no metrics.json; give the folders of finished runs")
    run = results.read_run(folder / "metrics.json")
    if run.get("map") is None:
        raise UserError(f"{folder}: judged by triplets alone; allowed: runs on labelled images")
    return run


def _check_splits(folders: Sequence[Path], runs: Sequence[dict]) -> None:
    first, *others = (run.get("split_fingerprint") for run in runs)
    for folder, fingerprint in zip(folders[1:], others, strict=True):
        if fingerprint != first:
            raise UserError(
                f"{folder}: its split is {fingerprint}; allowed: runs on that of {folders[0]}, "
                f"{first}, for the same queries"
            )


def _titles(folders: Sequence[Path], runs: Sequence[dict]) -> list[str]:
    """Method, variant and bits of each run; its folder too where several have the same."""
    titles = [
        f"{' '.join(filter(None, (run['method'], run.get('variant'))))}, {run['code_length']} bits"
        for run in runs
    ]
    count = Counter(titles)
    return [
        title if count[title] == 1 else f"{title} ({folder})"
        for title, folder in zip(titles, folders, strict=True)
    ]


def _codes(folder: Path, part: str) -> np.ndarray:
    path = folder / "codes" / f"{part}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["codes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path} ({error})") from None


def define_flags() -> None:
    flags.DEFINE_string("output", None, "PNG file to write", required=True)
    flags.DEFINE_integer("queries", 5, "how many queries", lower_bound=1)
    flags.DEFINE_string("data_dir", None, "where the data set is now; by default the first run's")


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print_error(NAME, error)
        sys.exit(2)


def main(argv: list[str]) -> int:
    given = flags.FLAGS
    try:
        if not argv[1:]:
            raise UserError(f"no run given; usage: python -m {NAME} RUN [RUN ...] --output=FILE")
        draw([Path(run) for run in argv[1:]], Path(given.output), given.queries, given.data_dir)
    except UserError as error:
        print_error(NAME, error)
        return 2
    print(f"wrote {given.output}")
    return 0


def entry_point() -> None:
    define_flags()
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    entry_point()
