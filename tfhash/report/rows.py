"""Results of many runs: their metrics.json, grouped into experiments, rows and sections."""

from __future__ import annotations

import functools
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfhash.errors import UserError
from tfhash.report import published

# Runs that agree in these keys and in all their flags but those repeat one experiment.
_PUBLISHED = ("dataset", "protocol", "method", "variant", "code_length")
_SETTING = (*_PUBLISHED, "features_digest")
_NOT_DECISIVE = {
    *("seed", "split_seed", "name"),
    *("stage0_dir", "stage1_dir", "data_dir", "cache_dir", "images_in", "features_file"),
    "worker_wait",
}

# What runs whose metrics.json is older than a flag were judged by.
_FORMER_FLAGS = {"convention": "tfhash", "ndcg_at": [], "acg_at": [], "weighted_map_at": []}

# What counts the labels that are shared, where runs have it.
GRADED = {"weighted_map": "weighted mAP", "ndcg_at100": "NDCG@100", "acg_at100": "ACG@100"}
_REQUIRED = {"dataset": str, "protocol": str, "method": str, "code_length": int}
_JUDGED = ("map", "triplet_accuracy")  # a run has one of them
_OPTIONAL = {
    "map": float,
    "triplet_accuracy": float,
    "seed": int,
    "variant": str,
    "name": str,
    "split_fingerprint": str,
    "database_size": int,
    "labels_used": int,
    "precision_at100": float,
    "precision_radius2": float,
    **dict.fromkeys(GRADED, float),
    "pr_curve": dict,
    "train_seconds": float,
    "steps": int,
    "hardware": str,
    "command": str,
    "proxy": str,
    "flags": dict,
    "not_as_published": dict,
    "features_digest": str,
    "ties": str,
}


@dataclass(frozen=True)
class Result:
    """One experiment at one code length: runs that differ in nothing but their seeds."""

    runs: tuple[dict, ...]  # in the order of their seeds

    def __getitem__(self, key: str) -> Any:
        """What the runs have in common under a key of metrics.json; None where they lack it."""
        return self.runs[0].get(key)

    @functools.cached_property
    def flags(self) -> dict[str, Any]:
        """The flags that decide the experiment; seeds, folders and names do not."""
        return {
            flag: value
            for flag, value in (_FORMER_FLAGS | (self["flags"] or {})).items()
            if flag.rpartition(".")[2] not in _NOT_DECISIVE  # `ssgah.stage1_dir` is a folder too
        }

    @property
    def judged_by(self) -> tuple[str, str]:
        """Whose convention of mAP, and what order of ties counts."""
        return self.flags["convention"], self["ties"] or "expected"

    def values(self, key: str) -> list:
        return [run[key] for run in self.runs if run.get(key) is not None]

    def distinct(self, key: str) -> list:
        return list(dict.fromkeys(self.values(key)))

    def mean(self, key: str) -> float | None:
        """The mean over all runs; None where one lacks the key: the rest's mean would mislead."""
        values = self.values(key)
        return statistics.fmean(values) if len(values) == len(self.runs) else None

    def deviation(self, key: str) -> float | None:
        """The standard deviation over all runs (n - 1); None of one run, or where one lacks it."""
        values = self.values(key)
        return statistics.stdev(values) if len(values) == len(self.runs) > 1 else None


@dataclass(frozen=True)
class Row:
    """Results of one setting at several code lengths: a row of a table, a line of a figure."""

    number: int  # from 1 in its section
    results: Mapping[int, Result]  # by code length, ascending

    @property
    def first(self) -> Result:
        return next(iter(self.results.values()))

    @property
    def title(self) -> str:
        """Method, variant, names of the runs, and whose mAP it is where not ours."""
        words = [self.first["method"], self.first["variant"] or ""]
        words += dict.fromkeys(name for r in self.results.values() for name in r.distinct("name"))
        convention, ties = self.first.judged_by
        words += [f"mAP of {convention}"] if convention != "tfhash" else []
        words += [f"ties {ties}"] if ties != "expected" else []
        return " ".join(filter(None, words))

    @property
    def flags(self) -> dict[str, Any]:
        """The flags that all of its results share."""
        return {flag: v for flag, v in self.first.flags.items() if flag != "code_length"}


@dataclass(frozen=True)
class Section:
    """All rows of one data set and protocol, the best at its longest code first."""

    dataset: str
    protocol: str
    rows: tuple[Row, ...]

    @property
    def code_lengths(self) -> list[int]:
        return sorted({bits for row in self.rows for bits in row.results})

    @property
    def results(self) -> list[Result]:
        return [result for row in self.rows for result in row.results.values()]

    @property
    def proxies(self) -> list[str]:
        """What the data set stands in for, where it is a proxy."""
        return list(dict.fromkeys(text for one in self.results for text in one.distinct("proxy")))

    def has(self, key: str) -> bool:
        """Whether a run has something under a key of metrics.json."""
        return any(result.values(key) for result in self.results)

    @functools.cached_property
    def measure(self) -> str:
        """The key that the papers print for this protocol; where no run has it, what one has."""
        keys = (published.measure(self.dataset, self.protocol), *_JUDGED)
        return next(key for key in keys if self.has(key))

    @property
    def measure_name(self) -> str:
        return self.measure.replace("map_at", "mAP@").replace("map", "mAP").replace("_", " ")

    def is_published(self, result: Result) -> bool:
        """Whether a result is of the protocol and the method that the papers' numbers are of.

        And whether it is judged as all others here: another order of ties may gain some hundredths.
        """
        as_here = result.judged_by == ("tfhash", "expected")
        exact = published.is_exact(result["protocol"])
        return exact and as_here and result["not_as_published"] == {}

    def published(self, result: Result) -> list[published.Published]:
        """What the papers report for a result of this section, the preferred number first."""
        if self.measure != published.measure(self.dataset, self.protocol):
            return []
        setting = {key: result[key] for key in (*_PUBLISHED, "database_size")}
        return published.lookup(**setting)

    def changes(self, row: Row) -> tuple[Row, dict[str, Any]]:
        """The first row of the same method and variant, and the flags that this one changes."""
        key = ("method", "variant")
        model = next(r for r in self.rows if all(r.first[k] == row.first[k] for k in key))
        theirs, own = model.flags, row.flags
        changed = {f: own.get(f) for f in sorted({*theirs, *own}) if theirs.get(f) != own.get(f)}
        return model, changed


def read_runs(directories: Iterable[str | Path]) -> list[dict]:
    """The contents of every metrics.json in or below the directories, each file once.

    Raises UserError where a directory holds none, or a file is not a metrics.json of tfhash.
    """
    paths = set()
    for directory in directories:
        found = {path.resolve() for path in Path(directory).rglob("metrics.json")}
        if not found:
            raise UserError(f"no metrics.json in {directory} or below; give the folders of runs")
        paths |= found
    return [read_run(path) for path in sorted(paths)]


def read_run(path: Path) -> dict:
    """The content of a metrics.json; UserError where it is none."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(run, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(run).__name__}")
    for key, type_ in (_REQUIRED | _OPTIONAL).items():
        value = run.get(key)
        if value is None and key in _OPTIONAL:
            continue
        if not isinstance(value, (int, float) if type_ is float else type_):
            raise UserError(f"{path}: {key} is {value!r}, expected {type_.__name__}")
    if all(run.get(key) is None for key in _JUDGED):
        raise UserError(f"{path}: expected {' or '.join(_JUDGED)}, it has neither")
    return run


def without_repeats(runs: Iterable[dict]) -> list[dict]:
    """The runs without those that have the seed, split and flags of one before them.

    Such a run tells nothing new, and would make a deviation smaller than it is.
    """
    first: dict[str, dict] = {}
    for number, run in enumerate(runs):
        setting = [run.get(key) for key in (*_SETTING, "split_fingerprint")]
        seed = run.get("seed", f"run {number}")  # of runs without a seed, each is its own
        first.setdefault(_key(setting, seed, Result((run,)).flags), run)
    return list(first.values())


def sections(runs: Iterable[dict]) -> list[Section]:
    """The runs, as read_runs answers them, by data set and protocol."""
    by_experiment = defaultdict(list)
    for run in runs:
        setting = [run.get(key) for key in _SETTING]
        by_experiment[_key(setting, Result((run,)).flags)].append(run)
    by_section: defaultdict = defaultdict(lambda: defaultdict(list))
    for group in by_experiment.values():
        result = Result(tuple(sorted(group, key=lambda run: run.get("seed") or 0)))
        same = {flag: value for flag, value in result.flags.items() if flag != "code_length"}
        row = _key(result["method"], result["variant"], result["features_digest"], same)
        by_section[result["dataset"], result["protocol"]][row].append(result)
    ordered = sorted(by_section.items(), key=lambda item: _natural(*item[0]))
    return [_section(dataset, protocol, rows) for (dataset, protocol), rows in ordered]


def _section(dataset: str, protocol: str, by_row: Mapping[str, Sequence[Result]]) -> Section:
    keys = (published.measure(dataset, protocol), *_JUDGED)

    def best_first(item: tuple[str, Sequence[Result]]) -> tuple:
        longest = max(item[1], key=lambda result: result["code_length"])
        means = (longest.mean(key) for key in keys)
        return -next((mean for mean in means if mean is not None), 0), longest["method"], item[0]

    rows = []
    for number, (_, results) in enumerate(sorted(by_row.items(), key=best_first), start=1):
        results = sorted(results, key=lambda result: result["code_length"])
        rows.append(Row(number, {result["code_length"]: result for result in results}))
    return Section(dataset, protocol, tuple(rows))


def _natural(*texts: str) -> list:
    """Sorts labelled=50 before labelled=100."""
    parts = [re.split(r"(\d+)", text) for text in texts]
    return [[int(part) if part.isdigit() else part for part in of_text] for of_text in parts]


def _key(*values: Any) -> str:
    return json.dumps(values, sort_keys=True)
