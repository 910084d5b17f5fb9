"""Run times and mAP in the headers of flagfiles, from the runs that were made of them.

python -m tfhash.benchmark.headers results --flagfiles=configs
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from tfhash import train
from tfhash.cli import mains
from tfhash.cli.flags import define_path
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.report.rows import Result, read_runs, without_repeats
from tfhash.runs.configurations import Configurations

NAME = "tfhash.benchmark.headers"

# Flags that a header's command leaves to the user, or that a mean is taken over.
_FREE = {"seed", "split_seed", "name", "weights", "data_dir"}
_RUN_TIME = re.compile(r"^(# run time:  ).*?(, and once .*)?$", re.MULTILINE)
_MAP = re.compile(r"^(# mAP:       ).*$", re.MULTILINE)


def update(directory: Path, runs: Iterable[Mapping[str, Any]]) -> list[Path]:
    """Writes run time and mAP into the header of each flagfile of a directory that has runs.

    A run is one of a flagfile where all flags that decide are the flagfile's, but for seeds and
    the paths of weights and data. Answers the flagfiles that were changed. UserError for a
    directory without flagfiles.
    """
    paths = sorted(directory.glob("*.flags"))
    if not paths:
        raise UserError(f"--flagfiles: no flagfile in {directory}; allowed: a folder of *.flags")
    by_flags: defaultdict[str, list[dict]] = defaultdict(list)
    for run in without_repeats(map(dict, runs)):
        if run.get("flags"):
            by_flags[_key(Configurations.of(run["flags"]))].append(run)
    changed = []
    for path in paths:
        if is_matrix(path):  # its header names no run
            continue
        text = path.read_text(encoding="utf-8")
        found = by_flags.get(_key(train.parse([f"--flagfile={path}"])))
        if found and (new := with_figures(text, Result(tuple(found)))) != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def is_matrix(path: Path) -> bool:
    """Whether a flagfile is one of tfhash.benchmark: it names methods, or a flagfile that does.

    As in absl, the name of a flagfile in it is relative to the working directory.
    """
    text = path.read_text(encoding="utf-8")
    nested = map(Path, re.findall(r"^--flagfile=(.+)$", text, re.MULTILINE))
    # One that is not there is told when its flags are read.
    return "\n--methods=" in text or any(is_matrix(one) for one in nested if one.is_file())


def with_figures(text: str, result: Result) -> str:
    """The text of a flagfile with the mean training time and mAP of its runs in the header.

    What stands after `, and once` in the line of the run time stays.
    """
    seconds, mean = result.mean("train_seconds"), result.mean("map")
    if seconds is not None:
        text = _RUN_TIME.sub(lambda m: f"{m[1]}{duration(seconds)} of training{m[2] or ''}", text)
    if mean is not None:
        deviation = result.deviation("map")
        spread = "" if deviation is None else f" ± {deviation:.3f}"
        text = _MAP.sub(lambda m: f"{m[1]}{mean:.3f}{spread} ({in_words(result)})", text)
    return text


def in_words(result: Result) -> str:
    """The seeds of a result: `seed 3`, `seeds 0, 2`, `seeds 10 to 19`."""
    seeds = sorted(result.values("seed"))
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, or `4 min 5 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _key(given: Configurations) -> str:
    decides = {flag: value for flag, value in given.deciding.items() if flag not in _FREE}
    return json.dumps(decides, sort_keys=True)


def main(argv: list[str]) -> int:
    if not argv[1:]:
        raise UserError(f"no folder given; usage: python -m {NAME} DIR [DIR ...] --flagfiles=DIR")
    for path in update(Path(flags.FLAGS.flagfiles), read_runs(argv[1:])):
        print(f"wrote {shown(path)}")
    return 0


def entry_point() -> None:
    define_path("flagfiles", "configs", "folder of the flagfiles")
    mains.run(NAME, main, positional=True)


if __name__ == "__main__":
    entry_point()
