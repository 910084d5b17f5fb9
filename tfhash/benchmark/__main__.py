"""Trains and judges a matrix of methods, code lengths and seeds: `python -m tfhash.benchmark`.

python -m tfhash.benchmark --methods=lsh,itq,configs/ssgah.flags --code_lengths=12,24,32,48 \\
    --seeds=0,1,2 --vary=labelled_per_class=5,10,20 --out=runs/matrix

Each cell is one command of tfhash.train with a run folder of its own. Run the same command again
after an interruption: what is done is skipped, and the rest goes on. In the value of a flag that is
for all cells, {seed} stands for the seed of each.

python -m tfhash.benchmark --tune=6 --methods=configs/dpsh.flags,configs/ssdh.flags \\
    --code_lengths=24 --seeds=100,101,102 --validation_fraction=0.3 --out=runs/tune

tries six settings of each method, chooses by the mAP of validation images, and writes a flagfile of
each choice.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfhash.cli import quiet

quiet.start()

from absl import flags  # noqa: E402

from tfhash import train  # noqa: E402
from tfhash.benchmark import matrix, summary, tuning, workers  # noqa: E402
from tfhash.benchmark.matrix import Cell, Entry  # noqa: E402
from tfhash.benchmark.tuning import Trial  # noqa: E402
from tfhash.cli import flags as config_flags  # noqa: E402
from tfhash.cli import mains  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.evaluation.validation import AMONG_LABELLED, HELD_OUT  # noqa: E402
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

_JUDGES = {"labelled": AMONG_LABELLED, "held_out": HELD_OUT}


def define_flags() -> None:
    """The flags of the matrix, and those of tfhash.train, which are for all cells."""
    flags.DEFINE_list("methods", None, "names of methods, paths of flagfiles", required=True)
    flags.DEFINE_list("code_lengths", ["12", "24", "32", "48"], "bits of a code")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds; each is --seed of its cells")
    flags.DEFINE_multi_string(
        "vary", [], "FLAG=VALUE,VALUE,...: one more axis, for the methods that know the flag"
    )
    config_flags.define_path("out", None, "folder of the run folders", required=True)
    flags.DEFINE_integer(
        "tune",
        0,
        "settings tried for each of --methods, the given ones among them; chosen by the mAP of "
        "validation images, seeds 100 and up",
        0,
    )
    flags.DEFINE_enum(
        "tune_by",
        "labelled",
        list(_JUDGES),
        "what --tune ranks for a validation image: the labelled images, or other validation images",
    )
    flags.DEFINE_multi_string(
        "search", [], "FLAG=VALUE|VALUE|...: what --tune draws from, for methods that know the flag"
    )
    flags.DEFINE_integer("workers", 1, "cells that are trained at a time", 1)
    flags.DEFINE_bool("dry_run", False, "only print the commands, and which of them are done")
    train.define_flags()


def main(argv: list[str]) -> int:
    cells, attempts = _cells()
    measure = _JUDGES[flags.FLAGS.tune_by] if attempts else "map"
    done = {cell.name: metrics.get(measure) for cell in cells if (metrics := cell.finished())}
    if flags.FLAGS.dry_run:
        for cell in cells:
            print(f"{cell.command}  # {'done' if cell.name in done else 'to do'}")
        return 0
    for name, value in done.items():
        _check_judged(name, measure, value)
    try:
        Path(flags.FLAGS.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot write to {flags.FLAGS.out} ({error})") from None
    try:
        with _terminated_as_interrupted():
            failed = _train(cells, done, measure)
    except KeyboardInterrupt:
        mains.print_error(
            NAME,
            f"interrupted; {len(done)} of {len(cells)} cells are done, the same command goes on",
        )
        return _INTERRUPTED_STATUS
    print(summary.table(cells, done, measure))
    if attempts:
        command = shlex.join(["python", "-m", NAME, *sys.argv[1:]])
        print(summary.choose(cells, attempts, done, Path(flags.FLAGS.out) / "chosen", command))
    else:
        print(f"more of it: python -m tfhash.report {flags.FLAGS.out}")
    if failed:
        print(f"{len(failed)} of {len(cells)} cells failed:", file=sys.stderr)
        print(*(f"  {n}: {reason}" for n, reason in failed.items()), sep="\n", file=sys.stderr)
    return 1 if failed else 0


def _cells() -> tuple[list[Cell], dict[Entry, list[Trial]]]:
    """The cells that the flags ask for, and with --tune the trials that they are of."""
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
    entries = _different("methods", list(map(os.path.expanduser, given.methods)))
    lengths, seeds = (
        _different(name, config_flags.items(name, getattr(given, name), int))
        for name in ("code_lengths", "seeds")
    )
    if not given.tune:
        if given.search:
            raise UserError("--search: what --tune=N draws from, and --tune is not given")
        return matrix.cells(entries, lengths, seeds, axes, common, Path(given.out)), {}
    if axes:
        raise UserError("--vary: not with --tune, which tries settings of its own")
    tuning.check_seeds(seeds)
    space = tuning.read_space(given.search)
    cells, attempts = matrix.tried_cells(
        entries, lengths, seeds, given.tune, space, common, Path(given.out)
    )
    for cell in cells:
        entry, experiment = cell.row.split(" trial ")[0], cell.given.experiment
        if not experiment.validation_fraction:
            raise UserError(
                f"--validation_fraction: 0 of {entry}; --tune chooses by validation images; "
                "allowed: above 0, to .5"
            )
        if experiment.split_seed is not None:
            tuning.check_seeds([experiment.split_seed], f"split_seed of {entry}")
    return cells, attempts


def _different(flag: str, values: Sequence) -> list:
    if not values:
        raise UserError(f"--{flag}: an empty list; at least one value is needed")
    for value in values:
        if list(values).count(value) > 1:
            raise UserError(f"--{flag}: {value} twice; allowed: each value once")
    return list(values)


def _train(cells: Sequence[Cell], done: dict[str, float | None], measure: str) -> dict[str, str]:
    """Trains what is not done, adds its mAP to done, and answers why cells failed, by name.

    measure: the key of metrics.json that has the mAP.
    """
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
                value = done[cell.name] = outcome.metrics[measure]
                _check_judged(cell.name, measure, value)
                result = (
                    f"{summary.TITLES[measure]} {'-' if value is None else format(value, '.4f')}"
                )
            left = (time.monotonic() - start) / count * (len(rest) - count)
            number = f"{len(cells) - len(rest) + count}/{len(cells)}"
            times = f"{duration(seconds)}, about {duration(left)} left"
            print(f"{number} {cell.name}: {result} ({times})", flush=True)
    return failed


def _check_judged(name: str, measure: str, value: float | None) -> None:
    """UserError where --tune chooses by what a cell does not have, at the first such cell."""
    if measure == AMONG_LABELLED and value is None:
        raise UserError(
            f"--tune: chooses by validation images, and {name} has none; allowed: a larger "
            "--labelled_per_class or --validation_fraction, and a protocol with labels"
        )
    if measure == HELD_OUT and value is None:
        raise UserError(
            f"--tune_by: held_out, which {name} does not have: no class has two validation images, "
            "or it is of an earlier version; allowed: labelled, or a larger --validation_fraction"
        )


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


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
