"""Tables of results from the metrics.json of many runs: `python -m tfhash.report DIR ...`."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from absl import app, flags

from tfhash import published
from tfhash.errors import UserError
from tfhash.mains import print_error

_NAME = "tfhash.report"

# Runs that agree in these keys and in all their flags but those repeat one experiment.
_SETTING = ("dataset", "protocol", "method", "variant", "code_length")
_NOT_DECISIVE = {"seed", "split_seed", "stage1_dir", "data_dir", "cache_dir", "name"}

# What runs whose metrics.json is older than a flag were judged by.
_FORMER_FLAGS = {"convention": "tfhash"}

_REQUIRED = {"dataset": str, "protocol": str, "method": str, "code_length": int, "map": float}
_OPTIONAL = {
    "seed": int,
    "variant": str,
    "name": str,
    "split_fingerprint": str,
    "database_size": int,
    "precision_at100": float,
    "precision_radius2": float,
    "train_seconds": float,
    "steps": int,
    "hardware": str,
    "command": str,
    "flags": dict,
}

_HOW_TO_READ = (
    "A row is one experiment: runs that differ in nothing but their seeds. mAP, over the whole "
    "ranking, is their mean ± standard deviation (n - 1); train seconds are a mean. The paper's "
    f"mAP is that of {published.SOURCE}; the gap is ours minus it. `-`: not measured, one seed "
    "only, or nothing published for this setting. Below each table, under the number of the row: "
    "the flags that tell it from other rows of its method and code length, the fingerprint of each "
    "seed's split, the hardware, and the command of the first seed."
)

_COLUMNS = {
    "#": "--:",
    "method": ":--",
    "variant": ":--",
    "bits": "--:",
    "seeds": ":--",
    "mAP": "--:",
    "precision@100": "--:",
    "precision radius 2": "--:",
    "train s": "--:",
    "steps": "--:",
    "paper": "--:",
    "gap": "--:",
}


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
    return [_read_run(path) for path in sorted(paths)]


def render(runs: Sequence[dict], command: str, notes: str = "") -> str:
    """The page in Markdown: command, how to read it, notes, one table a data set and protocol.

    runs: as read_runs answers them. command: what makes this page again. notes: Markdown.
    """
    parts = ["# Results", f"Made by `{command}`.", _HOW_TO_READ]
    if notes.strip():
        parts.append(notes.strip())
    tables = defaultdict(list)
    for group in _group(runs):
        tables[group[0]["dataset"], group[0]["protocol"]].append(group)
    for (dataset, protocol), groups in sorted(tables.items()):
        groups.sort(key=lambda group: (group[0]["code_length"], -_mean(group, "map")))
        parts += [f"## {dataset}, {protocol}", _table(groups), _details(groups)]
    return "\n\n".join(parts) + "\n"


def _read_run(path: Path) -> dict:
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
    return run


def _group(runs: Iterable[dict]) -> list[list[dict]]:
    """Runs that differ in nothing but their seeds, in the order of their seeds."""
    groups = defaultdict(list)
    for run in runs:
        setting = [run.get(key) for key in _SETTING]
        groups[json.dumps([setting, _decisive_flags(run)], sort_keys=True)].append(run)
    return [sorted(group, key=lambda run: run.get("seed") or 0) for group in groups.values()]


def _decisive_flags(run: Mapping) -> dict:
    """The run's flags without those that name a seed or a folder; `ssgah.stage1_dir` is one too."""
    return {
        name: value
        for name, value in (_FORMER_FLAGS | (run.get("flags") or {})).items()
        if name.rpartition(".")[2] not in _NOT_DECISIVE
    }


def _table(groups: Sequence[Sequence[dict]]) -> str:
    lines = [list(_COLUMNS), list(_COLUMNS.values())]
    lines += [_row(number, group) for number, group in enumerate(groups, start=1)]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _row(number: int, group: Sequence[dict]) -> list[str]:
    first = group[0]
    setting = [first.get(key) for key in _SETTING]
    paper = published.published_map(*setting, first.get("database_size"))
    mean_map = _mean(group, "map")
    labels = _distinct(group, "variant") + _distinct(group, "name")
    convention = _decisive_flags(first)["convention"]
    if convention != "tfhash":
        labels.append(f"mAP of {convention}")
    deviation = "-" if len(group) == 1 else f"{statistics.stdev(_values(group, 'map')):.3f}"
    return [
        str(number),
        first["method"],
        ", ".join(labels) or "-",
        str(first["code_length"]),
        ", ".join(str(seed) for seed in _values(group, "seed")) or "-",
        f"{mean_map:.3f} ± {deviation}",
        _number(_mean(group, "precision_at100"), ".3f"),
        _number(_mean(group, "precision_radius2"), ".3f"),
        _number(_mean(group, "train_seconds"), ",.0f"),
        ", ".join(_distinct(group, "steps")) or "-",
        _number(paper, ".3f"),
        "-" if paper is None else f"{mean_map - paper:+.3f}",
    ]


def _details(groups: Sequence[Sequence[dict]]) -> str:
    """What is too long for a cell, as a list numbered like the table's rows."""
    lines = []
    for number, group in enumerate(groups, start=1):
        first = group[0]
        title = [first["method"], *_distinct(group, "variant"), *_distinct(group, "name")]
        lines.append(f"{number}. **{' '.join(title)}, {first['code_length']} bits**")
        differing = _differing_flags(group, groups)
        details = {
            "flags": ", ".join(f"`--{flag}={value}`" for flag, value in differing.items()),
            "splits": ", ".join(f"`{mark[:8]}`" for mark in _values(group, "split_fingerprint")),
            "hardware": "; ".join(_distinct(group, "hardware")),
            "command": f"`{first['command']}`" if first.get("command") else "",
        }
        indent = " " * (len(str(number)) + 2)
        lines += [f"{indent}- {key}: {text or '-'}" for key, text in details.items()]
    return "\n".join(lines)


def _differing_flags(group: Sequence[dict], groups: Iterable[Sequence[dict]]) -> dict:
    """The flags that tell this group from the others of its method and code length."""
    same = ("method", "code_length")
    rivals = [
        _decisive_flags(other[0])
        for other in groups
        if all(other[0][key] == group[0][key] for key in same)
    ]
    return {
        flag: value
        for flag, value in sorted(_decisive_flags(group[0]).items())
        if any(rival.get(flag) != value for rival in rivals)
    }


def _values(group: Iterable[dict], key: str) -> list:
    return [run[key] for run in group if run.get(key) is not None]


def _distinct(group: Iterable[dict], key: str) -> list[str]:
    return list(dict.fromkeys(str(value) for value in _values(group, key)))


def _mean(group: Sequence[dict], key: str) -> float | None:
    """The mean over all runs; None where one lacks the key: the rest's mean would mislead."""
    values = _values(group, key)
    return statistics.fmean(values) if len(values) == len(group) else None


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print_error(_NAME, error)
        sys.exit(2)


def main(argv: list[str]) -> int:
    try:
        _write_report(argv[1:], Path(flags.FLAGS.output), flags.FLAGS.notes)
    except UserError as error:
        print_error(_NAME, error)
        return 2
    return 0


def _write_report(directories: Sequence[str], output: Path, notes_file: str | None) -> None:
    if not directories:
        raise UserError("no folder given; usage: python -m tfhash.report DIR [DIR ...]")
    runs = read_runs(directories)
    try:
        notes = Path(notes_file).read_text(encoding="utf-8") if notes_file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--notes={notes_file}: {error}") from error
    command = shlex.join(["python", "-m", _NAME, *sys.argv[1:]])
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(render(runs, command, notes), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output={output}: {error}") from error
    print(f"wrote {output}")


def entry_point() -> None:
    # Here rather than at import: several commands have an --output, and one process may import
    # them all.
    flags.DEFINE_string("output", "results.md", "Markdown file to write")
    flags.DEFINE_string("notes", None, "Markdown file whose text goes below the header")
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    entry_point()
