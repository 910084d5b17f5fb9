"""What a matrix came to: a table of its mAP, and which trials are the best."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfhash.benchmark import tuning
from tfhash.benchmark.matrix import Cell, Entry
from tfhash.benchmark.tuning import Trial
from tfhash.evaluation.validation import AMONG_LABELLED, HELD_OUT

# By the keys of metrics.json.
TITLES = {
    "map": "mAP",
    AMONG_LABELLED: "validation mAP",
    HELD_OUT: "validation mAP, held out",
}


def table(cells: Sequence[Cell], done: Mapping[str, float | None], measure: str = "map") -> str:
    """Mean mAP ± standard deviation (n - 1) over the seeds: a row a method, a column a length.

    `-` where there is none: the cell failed, or triplets alone judge.
    """
    found: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    seeds: defaultdict[tuple[str, int], int] = defaultdict(int)
    for cell in cells:
        place = cell.row, cell.given.experiment.code_length
        seeds[place] += 1
        value = done.get(cell.name)
        found[place] += [] if value is None else [value]
    rows, columns = (list(dict.fromkeys(part)) for part in zip(*seeds, strict=True))
    lines = [[TITLES[measure], *(f"{bits} bits" for bits in columns)]]
    for row in rows:
        lines.append([row, *(_mean(found[row, b], seeds[row, b]) for b in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _mean(values: Sequence[float], seeds: int) -> str:
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    missing = f" ({len(values)} of {seeds} seeds)" if len(values) < seeds else ""
    return f"{statistics.fmean(values):.3f}{deviation}{missing}"


def choose(
    cells: Sequence[Cell],
    attempts: Mapping[Entry, Sequence[Trial]],
    done: Mapping[str, float | None],
    directory: Path,
    command: str,
) -> str:
    """Which trial of each entry is best, a line each; writes a flagfile of it in the directory."""
    found: defaultdict[str, list[float | None]] = defaultdict(list)
    for cell in cells:
        found[cell.row].append(done.get(cell.name))
    lines = []
    for entry, of_entry in attempts.items():
        chosen = tuning.best(of_entry, found)
        if chosen is None:
            lines.append(f"{entry.label}: no trial has all of its cells; nothing is chosen")
            continue
        trial, mean = chosen
        path = directory / f"{entry.label}.flags"
        tuning.write_flagfile(path, entry.argument, trial, mean, command)
        drawn = " ".join(f"--{flag}={value}" for flag, value in trial.flags.items())
        lines.append(f"{entry.label}: trial {trial.number}, {drawn or 'as given'}; wrote {path}")
    return "\n".join(lines)
