"""Top results of several runs below each other: `python -m tfhash.top_results RUN RUN ...`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfhash.cli import quiet

quiet.start()

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

from tfhash import codes, figures  # noqa: E402
from tfhash.cli import flags as config_flags  # noqa: E402
from tfhash.cli import mains  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.names import shown  # noqa: E402
from tfhash.report.rows import read_run  # noqa: E402
from tfhash.runs import experiment, folder  # noqa: E402
from tfhash.runs.experiment_settings import Experiment  # noqa: E402

NAME = "tfhash.top_results"
TOP = 10
# Which results are framed as hits: those that share a label with the query, or have all of its.
RELEVANT = {"any": "relevant", "all": "excellent"}
OF_DATA = ("data_dir", "labels_csv", "triplets_csv")


def draw(
    folders: Sequence[Path],
    output: Path,
    query_count: int = 5,
    own: Mapping[str, Any] | None = None,
    relevant: str = "any",
) -> None:
    """Draws the ten nearest images of the same queries in every run, as one PNG.

    folders: finished runs on one split. query_count: queries, evenly spread over those of the
    split. own: where the data set of the first run is now, by the names of flags. relevant: "any",
    an image is that shares a label with the query; "all", one is that has all labels of the query,
    "excellent" in Fig. 5 of DSH-GANs. Items at one distance stand in the order of the database.
    Raises UserError where a run cannot be read, or runs differ in their split.
    """
    runs = [_read(one) for one in folders]
    _check_splits(folders, runs)
    given = folder.read(folders[0], own)[0]
    images, parts = experiment.load_data(given.experiment, given.settings.storage)
    if parts.fingerprint != runs[0]["split_fingerprint"]:
        raise UserError(
            f"--data_dir: the split of the data there is {parts.fingerprint}; allowed: the data of "
            f"{folders[0]}, whose split is {runs[0]['split_fingerprint']}"
        )
    if not images.images.size:
        raise UserError(f"{folders[0]}: its data are descriptors without images; nothing to draw")
    last = len(parts.query) - 1
    chosen = np.unique(np.linspace(0, last, min(query_count, last + 1)).astype(int))
    queries = parts.query[chosen]
    rows = {}
    for title, run_folder in zip(_titles(folders, runs), folders, strict=True):
        query, database = (
            folder.read_codes(run_folder, part, ("codes",))["codes"]
            for part in ("query", "database")
        )
        top = parts.database[codes.nearest(query[chosen], database, TOP)]
        hits = are_hits(images.labels[queries], images.labels[top], relevant)
        rows[title] = images.images[top], hits
    try:
        figures.top_results_of_methods(images.images[queries], rows, output, hit=RELEVANT[relevant])
    except OSError as error:
        raise UserError(f"--output={output}: {error}") from None


def are_hits(of_queries: np.ndarray, of_results: np.ndarray, relevant: str) -> np.ndarray:
    """Which results share any label with their query, or have all of its.

    Multi-hot [q, C] and [q, r, C]; relevant: of RELEVANT. Returns bool [q, r]; a query without a
    label has no hit.
    """
    shared = np.einsum("qc,qrc->qr", of_queries.astype(np.int64), of_results)
    needed = 1 if relevant == "any" else of_queries.sum(axis=1, keepdims=True)
    return (shared > 0) & (shared >= needed)


def _read(directory: Path) -> dict:
    """The metrics.json of a run."""
    if not (directory / folder.METRICS).is_file():
        raise UserError(f"{directory}: no metrics.json; give the folders of finished runs")
    run = read_run(directory / folder.METRICS)
    if run.get("map") is None:
        raise UserError(f"{directory}: judged by triplets alone; allowed: runs on labelled images")
    return run


def _check_splits(folders: Sequence[Path], runs: Sequence[dict]) -> None:
    first, *others = (run.get("split_fingerprint") for run in runs)
    for directory, fingerprint in zip(folders[1:], others, strict=True):
        if fingerprint != first:
            raise UserError(
                f"{directory}: its split is {fingerprint}; allowed: runs on that of {folders[0]}, "
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
        title if count[title] == 1 else f"{title} ({directory})"
        for title, directory in zip(titles, folders, strict=True)
    ]


def define_flags() -> None:
    config_flags.define_path("output", None, "PNG file to write", required=True)
    flags.DEFINE_integer("queries", 5, "how many queries", lower_bound=1)
    flags.DEFINE_enum(
        "relevant",
        "any",
        list(RELEVANT),
        "hits have any label of the query; or all: excellent ones",
    )
    config_flags.define_of_run(Experiment, OF_DATA)


def main(argv: list[str]) -> int:
    given = flags.FLAGS
    if not argv[1:]:
        raise UserError(f"no run given; usage: python -m {NAME} RUN [RUN ...] --output=FILE")
    own = config_flags.of_run(OF_DATA)
    runs = [Path(run) for run in argv[1:]]
    draw(runs, Path(given.output), given.queries, own, given.relevant)
    print(f"wrote {shown(given.output)}")
    return 0


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main, positional=True)


if __name__ == "__main__":
    entry_point()
