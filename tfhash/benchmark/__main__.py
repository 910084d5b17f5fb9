"""Trains and judges a matrix of methods, code lengths and seeds: `python -m tfhash.benchmark`.

python -m tfhash.benchmark --methods=lsh,itq,configs/ssgah.flags --code_lengths=12,24,32,48 \\
    --seeds=0,1,2 --vary=labelled_per_class=5,10,20 --out=runs/matrix

Each cell is one command of tfhash.train with a run folder of its own. Run the same command again
after an interruption: what is done is skipped, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tfhash.cli import quiet

quiet.start()

from absl import flags  # noqa: E402

from tfhash import train  # noqa: E402
from tfhash.benchmark import matrix, workers  # noqa: E402
from tfhash.benchmark.matrix import Cell  # noqa: E402
from tfhash.cli import flags as config_flags  # noqa: E402
from tfhash.cli import mains  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.training.callbacks import duration  # noqa: E402

NAME = "tfhash.benchmark"

_INTERRUPTED_STATUS = 130  # 128 + SIGINT, as shells have it

# What the matrix gives to each cell, and by which flag it is told.
_OF_A_CELL = {
    "method": "methods",
    "code_length": "code_lengths",
    "seed": "seeds",
    "model_dir": "out",
}


def define_flags() -> None:
    """The flags of the matrix, and those of tfhash.train, which are for all cells."""
    flags.DEFINE_list("methods", None, "names of methods, paths of flagfiles", required=True)
    flags.DEFINE_list("code_lengths", ["12", "24", "32", "48"], "bits of a code")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds; each is --seed of its cells")
    flags.DEFINE_multi_string(
        "vary", [], "FLAG=VALUE,VALUE,...: one more axis, for the methods that know the flag"
    )
    config_flags.define_path("out", None, "folder of the run folders", required=True)
    flags.DEFINE_integer("workers", 1, "cells that are trained at a time", 1)
    flags.DEFINE_bool("dry_run", False, "only print the commands, and which of them are done")
    train.define_flags()


def main(argv: list[str]) -> int:
    cells = _cells()
    done = {cell.name: metrics["map"] for cell in cells if (metrics := cell.finished())}
    if flags.FLAGS.dry_run:
        for cell in cells:
            print(f"{cell.command}  # {'done' if cell.name in done else 'to do'}")
        return 0
    try:
        Path(flags.FLAGS.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot write to {flags.FLAGS.out} ({error})") from None
    try:
        with _terminated_as_interrupted():
            failed = _train(cells, done)
    except KeyboardInterrupt:
        mains.print_error(
            NAME,
            f"interrupted; {len(done)} of {len(cells)} cells are done, the same command goes on",
        )
        return _INTERRUPTED_STATUS
    print(_table(cells, done))
    print(f"more of it: python -m tfhash.report {flags.FLAGS.out}")
    if failed:
        print(f"{len(failed)} of {len(cells)} cells failed:", file=sys.stderr)
        print(*(f"  {n}: {reason}" for n, reason in failed.items()), sep="\n", file=sys.stderr)
    return 1 if failed else 0


def _cells() -> list[Cell]:
    """The cells that the flags ask for."""
    given = flags.FLAGS
    of_train = flags.FlagValues()
    train.define_flags(of_train)
    common = {name: given[name].serialize() for name in of_train if given[name].present}
    axes: dict[str, list[str]] = {}
    for text in given.vary:
        flag, _, values = text.partition("=")
        if not flag or not values:
            raise UserError(f"--vary: {text!r}; allowed: FLAG=VALUE,VALUE,...")
        if flag in axes:
            raise UserError(f"--vary: {flag} twice; allowed: one list of values a flag")
        axes[flag] = _different(f"vary={flag}", values.split(","))
    for flag in (*common, *axes):
        if flag in _OF_A_CELL:
            raise UserError(f"--{flag}: a cell's own; allowed: --{_OF_A_CELL[flag]}")
    return matrix.cells(
        _different("methods", list(map(os.path.expanduser, given.methods))),
        _different("code_lengths", config_flags.items("code_lengths", given.code_lengths, int)),
        _different("seeds", config_flags.items("seeds", given.seeds, int)),
        axes,
        common,
        Path(given.out),
    )


def _different(flag: str, values: Sequence) -> list:
    if not values:
        raise UserError(f"--{flag}: an empty list; at least one value is needed")
    for value in values:
        if list(values).count(value) > 1:
            raise UserError(f"--{flag}: {value} twice; allowed: each value once")
    return list(values)


def _train(cells: Sequence[Cell], done: dict[str, float | None]) -> dict[str, str]:
    """Trains what is not done, adds its mAP to done, and answers why cells failed, by name."""
    rest = [cell for cell in cells if cell.name not in done]
    if done:
        print(f"{len(done)} of {len(cells)} cells are done already")
    failed: dict[str, str] = {}
    start = time.monotonic()
    with contextlib.closing(workers.run(rest, flags.FLAGS.workers)) as ended:
        for count, (cell, outcome, seconds) in enumerate(ended, start=1):
            if outcome.reason:
                failed[cell.name] = outcome.reason
                result = f"failed: {outcome.reason}"
            else:
                done[cell.name] = outcome.map
                result = f"mAP {'-' if outcome.map is None else format(outcome.map, '.4f')}"
            left = (time.monotonic() - start) / count * (len(rest) - count)
            number = f"{len(cells) - len(rest) + count}/{len(cells)}"
            times = f"{duration(seconds)}, about {duration(left)} left"
            print(f"{number} {cell.name}: {result} ({times})", flush=True)
    return failed


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: no worker outlives it."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _table(cells: Sequence[Cell], done: Mapping[str, float | None]) -> str:
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
    lines = [["mAP", *(f"{bits} bits" for bits in columns)]]
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


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
