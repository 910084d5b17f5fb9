"""Settings chosen by trials, the same number for each method: `tfhash.benchmark --tune`.

The first trial of a method has its settings as they are given. Each further one draws a value for
every field that has a `search` (or for the flags of --search), by a generator that depends on the
name of the method and nothing else. All are judged by the mAP of validation images.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfhash import methods
from tfhash.errors import UserError
from tfhash.settings import as_text, fields_of

FIRST_SEED = 100  # tables show seeds below: no setting is chosen on a split of theirs
_DRAWS = 1000  # how often a draw that was there before is drawn again

Space = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class Trial:
    """One attempt at the settings of an entry; flags: what it draws, by the flags' names."""

    entry: str
    number: int
    flags: Mapping[str, str]

    @property
    def row(self) -> str:
        return f"{self.entry} trial {self.number}"


def check_seeds(seeds: Iterable[int], flag: str = "seeds") -> None:
    """UserError, naming the flag, for a seed whose split tables may show."""
    for seed in seeds:
        if seed < FIRST_SEED:
            raise UserError(
                f"--{flag}: {seed}; allowed with --tune: {FIRST_SEED} and up, for tables show "
                "splits of seeds below"
            )


def space_of(method: str, given: Space) -> Space:
    """The values to draw from, by flag: those of the method's fields, or those given instead."""
    hasher = methods.get(method)
    found: dict[str, Sequence[str | None]] = {}
    for prefix, config_class in ((f"{method}.", hasher.Config), ("", hasher.Settings)):
        for name, field in fields_of(config_class).items():
            flag = prefix + name
            if flag in given:
                found[flag] = given[flag]
            elif values := field.metadata["search"]:
                found[flag] = [None if value is None else as_text(value) for value in values]
    return found


def read_space(texts: Sequence[str]) -> Space:
    """--search: FLAG=VALUE|VALUE|... of each; a flag without values is left alone."""
    space: dict[str, Sequence[str | None]] = {}
    for text in texts:
        flag, equals, values = text.partition("=")
        if not flag or not equals:
            raise UserError(f"--search: {text!r}; allowed: FLAG=VALUE|VALUE|...")
        if flag in space:
            raise UserError(f"--search: {flag} twice; allowed: one list of values a flag")
        space[flag] = values.split("|") if values else []
    return space


def trials(entry: str, space: Space, count: int, given: Mapping[str, Any]) -> list[Trial]:
    """`count` of an entry, the first one with nothing drawn; fewer where the space has fewer.

    given: the values that the entry has by itself; a draw that is all of these is no trial more.
    """
    own = {flag: None if given[flag] is None else as_text(given[flag]) for flag in space}
    space = {flag: values for flag, values in space.items() if values}
    digest = hashlib.sha256(entry.encode("utf-8", "surrogateescape")).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8])))
    drawn: list[dict[str, str]] = [{}]
    for _ in range(_DRAWS):
        if len(drawn) == count:
            break
        chosen = {flag: values[int(rng.integers(len(values)))] for flag, values in space.items()}
        one = {f: value for f, value in chosen.items() if value is not None and value != own[f]}
        if one not in drawn:
            drawn.append(one)
    return [Trial(entry, number, flags) for number, flags in enumerate(drawn)]


def best(
    attempts: Sequence[Trial], found: Mapping[str, Sequence[float | None]]
) -> tuple[Trial, float] | None:
    """The trial of the highest mean mAP, the first of equal ones, and that mean.

    found: of each trial's row the mAP of its cells, None of a cell that failed; a trial with one of
    these is out. None where all are.
    """
    means = []
    for trial in attempts:
        values = [value for value in found[trial.row] if value is not None]
        if values and len(values) == len(found[trial.row]):
            means.append((statistics.fmean(values), -trial.number, trial))
    if not means:
        return None
    mean, _, trial = max(means, key=lambda one: one[:2])
    return trial, mean


def write_flagfile(path: Path, argument: str, trial: Trial, mean: float, command: str) -> None:
    """The chosen settings as a flagfile, for --methods and tfhash.train; argument: of the entry."""
    lines = [
        f"# {trial.entry}: trial {trial.number}, mAP {mean:.4f} of validation images. Made by",
        f"# {command}",
        argument,
        *(f"--{flag}={value}" for flag, value in trial.flags.items()),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
