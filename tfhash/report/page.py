"""The page of results in Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfhash.report import markdown, paired, published
from tfhash.report.records import record
from tfhash.report.rows import GRADED, Result, Row, Section

_NOT_AS_PUBLISHED = "not as in the method's paper"
_LEFT_ALIGNED = {"method", "variant", "bits", "seeds", "paper", _NOT_AS_PUBLISHED}

_HOW_TO_READ = (
    "A row is one setting of one method. The first table of a protocol has its mAP as "
    "`mean ± standard deviation (paper, gap)`: over runs that differ in nothing but their seeds, "
    "the deviation dividing by n - 1 and left out of a single run; the paper's number, and ours "
    "minus it where protocol and method are the paper's. The last column has the flags by which a "
    "row is not the method of its own paper; `?` stands for runs that do not tell. mAP is over the "
    "whole ranking where nothing else is said. The second table has what else was measured, by "
    "code length; labels are the labelled images learned from; `-` is not measured or not "
    "published. Below stand the fingerprints of the splits, the hardware, and a command for each "
    "row, that of its first seed and shortest code; for the others change `--seed` and "
    "`--code_length`."
)


def render(
    sections: Sequence[Section], command: str, notes: str = "", against: str | None = None
) -> str:
    """The page in Markdown: command, how to read it, notes, a section a data set and protocol.

    command: what makes this page again. notes: Markdown. against: the title of the row from which
    all others of its section are told their differences.
    """
    sources = [f"- {name}: {source}" for name, source in published.SOURCES.items()]
    parts = [
        "# Results",
        f"Made by {markdown.code(command)}.",
        _HOW_TO_READ,
        "The papers; where both have a number, the first one's is compared with:\n\n"
        + "\n".join(sources),
    ]
    if notes.strip():
        parts.append(notes.strip())
    for section in sections:
        parts += [
            f"## {markdown.plain(f'{section.dataset}, {section.protocol}')}",
            *(f"This data set is {markdown.plain(proxy)}." for proxy in section.proxies),
            _overview(section, against),
            _measurements(section),
            _splits(section),
            _commands(section),
        ]
    return "\n\n".join(parts) + "\n"


def _overview(section: Section, against: str | None) -> str:
    lengths = section.code_lengths
    reference = paired.reference_row(section, against) if against else None
    judged = [f"{section.measure_name}, {k} bits" for k in lengths]
    header = ["#", "method", "variant", *judged]
    header += [f"minus {against}"] * (reference is not None)
    header += ["paper", _NOT_AS_PUBLISHED]
    rows = []
    for row in section.rows:
        flat = {k: record(section, row, result) for k, result in row.results.items()}
        sources = dict.fromkeys(one["source"] for one in flat.values() if one["source"])
        cells = [_judged(flat[k]) if k in flat else "-" for k in lengths]
        cells += [_minus(section, row, reference)] if reference else []
        cells += ["; ".join(sources) or "-", _differences(row)]
        rows.append([str(row.number), *_title(row), *cells])
    return markdown.table(header, rows, _LEFT_ALIGNED)


def _title(row: Row) -> tuple[str, str]:
    """The cells method and variant."""
    method, _, rest = row.title.partition(" ")
    return markdown.plain(method), markdown.plain(rest) or "-"


def _minus(section: Section, row: Row, reference: Row) -> str:
    """Paired differences by code length, as `mean ± half of the 95 % interval (splits)`."""
    if row is reference:
        return "-"
    found = []
    for code_length, result in row.results.items():
        other = reference.results.get(code_length)
        one = paired.difference(result, other, section.measure) if other else None
        if one is None:
            found.append("-")
        else:
            half = "" if one.half is None else f" ± {one.half:.3f}"
            found.append(f"{one.mean:+.3f}{half} ({one.splits})")
    return " / ".join(found)


def _differences(row: Row) -> str:
    """What differs from the method's paper, as NAME=VALUE; `?` where the runs do not tell."""
    found = row.first["not_as_published"]
    if found is None:
        return "?"
    texts = (f"{name}={_as_text(value)}" for name, value in found.items())
    return ", ".join(map(markdown.plain, texts)) or "-"


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    return format(value, "g") if isinstance(value, float) else str(value)


def _judged(one: Mapping[str, Any]) -> str:
    """A record as `mean ± sd (paper, gap)`, without the gap where it would mislead."""
    if one["mean"] is None:
        return "-"
    deviation = "" if one["sd"] is None else f" ± {one['sd']:.3f}"
    gap = "" if one["gap"] is None else f", {one['gap']:+.3f}"
    paper = "" if one["paper"] is None else f" ({one['paper']:.3f}{gap})"
    return f"{one['mean']:.3f}{deviation}{paper}"


def _measurements(section: Section) -> str:
    columns: dict[str, Callable[[Result], str]] = {
        "seeds": lambda result: ", ".join(map(str, result.values("seed"))),
        "precision@100": _mean_of("precision_at100"),
        "precision radius 2": _mean_of("precision_radius2"),
        **{name: _mean_of(key) for key, name in GRADED.items() if section.has(key)},
        "labels": lambda result: ", ".join(map(str, result.distinct("labels_used"))),
        "train s": lambda result: _number(result.mean("train_seconds"), ",.0f"),
        "steps": lambda result: ", ".join(map(str, result.distinct("steps"))),
    }
    if section.measure != "map":
        columns = {"mAP": _mean_of("map")} | columns
    header = ["#", "method", "variant", "bits", *columns]
    rows = [
        [str(row.number), *_title(row), " / ".join(map(str, row.results))]
        + [_by_length(row, cell) for cell in columns.values()]
        for row in section.rows
    ]
    return markdown.table(header, rows, _LEFT_ALIGNED)


def _mean_of(key: str) -> Callable[[Result], str]:
    return lambda result: _number(result.mean(key), ".3f")


def _by_length(row: Row, cell: Callable[[Result], str]) -> str:
    """The cell of every code length; once, where they all are the same."""
    cells = [cell(result) or "-" for result in row.results.values()]
    return cells[0] if len(set(cells)) == 1 else " / ".join(cells)


def _splits(section: Section) -> str:
    """The fingerprint of each seed's split; with their rows where runs of one seed had several."""
    rows_of: defaultdict = defaultdict(lambda: defaultdict(set))
    for row in section.rows:
        for result in row.results.values():
            for run in result.runs:
                if run.get("split_fingerprint"):
                    rows_of[run.get("seed")][run["split_fingerprint"]].add(row.number)
    parts = []
    for seed, fingerprints in sorted(rows_of.items(), key=lambda item: item[0] or 0):
        for fingerprint, numbers in fingerprints.items():
            part = f"seed {'-' if seed is None else seed} {markdown.code(fingerprint)}"
            if len(fingerprints) > 1:
                word = "row" if len(numbers) == 1 else "rows"
                part += f" ({word} {', '.join(map(str, sorted(numbers)))})"
            parts.append(part)
    return f"Splits: {', '.join(parts) or '-'}."


def _commands(section: Section) -> str:
    """Hardware, then a list numbered like the tables' rows."""
    is_shared = len({_hardware(row) for row in section.rows}) == 1
    lines = [f"Hardware: {_hardware(section.rows[0])}.", ""] if is_shared else []
    for row in section.rows:
        command = markdown.code(row.first["command"]) if row.first["command"] else "-"
        lines.append(f"{row.number}. {markdown.plain(row.title)}: {command}")
        model, changed = section.changes(row)
        notes = []
        if changed:
            changes = (markdown.code(f"--{flag}={value}") for flag, value in changed.items())
            notes.append(f"unlike row {model.number}: {', '.join(changes)}")
        if not is_shared:
            notes.append(f"hardware: {_hardware(row)}")
        notes += _also_published(section, row)
        lines += [" " * (len(str(row.number)) + 2) + f"- {note}" for note in notes]
    return "\n".join(lines)


def _hardware(row: Row) -> str:
    found = {name for result in row.results.values() for name in result.distinct("hardware")}
    return markdown.plain("; ".join(sorted(found))) or "-"


def _also_published(section: Section, row: Row) -> list[str]:
    """What another paper has for this row, where that differs from the number compared with."""
    differing = defaultdict(list)
    for code_length, result in row.results.items():
        papers = section.published(result)
        for other in papers[1:]:
            if other.map != papers[0].map:
                differing[other.source].append(f"{other.map:.3f} at {code_length} bits")
    return [f"{source} has {', '.join(numbers)}" for source, numbers in differing.items()]


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
