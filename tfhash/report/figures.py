"""Figures of many runs: which lines of the papers' figures a set of results has."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfhash import figures
from tfhash.errors import UserError
from tfhash.report.rows import Result, Row, Section

DEFAULT_BITS = 48  # of the papers' curves
REAL_FRACTION = "dsh_gan.real_fraction"
_STEPS = ("steps", "stage0_steps")  # of H; the second one is a flag of methods with a GAN

_FEATURES = ("cnn", "gist", "bow", "pixels")  # told by the dash; all else by colour and marker
# The name of the fraction in a variant, with what joins it to the rest.
_REAL = re.compile(r"[ _]real_[\d.]+(?=[ _]|$)")
_LABELLED = re.compile(r"labelled=(\d+), ")

# label of a line -> number on the x axis -> the value of each repeat
Points = Mapping[str, Mapping[float, Sequence[float]]]


class _Looks:
    """The look of each line: a method has one colour and marker on all figures of a page."""

    def __init__(self) -> None:
        self._methods: list[str] = []

    def of(self, labels: Iterable[str]) -> dict[str, figures.Look]:
        return {label: self._look(label) for label in labels}

    def _look(self, label: str) -> figures.Look:
        words = label.split()
        features = [word for word in words[1:2] if word in _FEATURES]
        method = " ".join([words[0], *words[1 + len(features) :]])
        if method not in self._methods:
            self._methods.append(method)
        dash = _FEATURES.index(features[0]) if features else 0
        return figures.Look.of(self._methods.index(method), dash)


def draw(sections: Sequence[Section], directory: Path, bits: int | None = None) -> list[Path]:
    """Draws the papers' figures of all sections into folders of `directory`; answers their paths.

    bits: the code length of the curves; by default 48, or the longest of a section without it. More
    lines than a figure holds go on in the next one. One that fails leaves a warning and has no
    path. Raises UserError where no section has `bits`.
    """
    lengths = sorted({length for section in sections for length in section.code_lengths})
    if bits not in (None, *lengths):
        allowed = ", ".join(map(str, lengths))
        raise UserError(
            f"`figure_bits`={bits}: no run has codes of this length; allowed: {allowed}"
        )
    looks = _Looks()
    paths: list[Path] = []
    for section in sections:
        folder = directory / _folder(section.dataset, section.protocol)
        paths += _draw_lengths(section, folder, looks)
        paths += _draw_curves(section, folder, looks, bits)
        paths += _draw_real_fractions(section, folder)
    paths += _draw_supervision(sections, directory, looks, bits)
    return paths


def _draw_lengths(section: Section, folder: Path, looks: _Looks) -> Iterator[Path]:
    """Precision within Hamming radius 2 against bits: Fig. 3a and 4a of DSH-GANs."""
    points = {
        label: _values(row.results, "precision_radius2")
        for label, row in _labelled(section.rows).items()
    }
    titles = "number of bits", "precision in Hamming radius 2"
    return _draw_points(points, *titles, folder / "precision_radius2.png", looks)


def _draw_curves(section: Section, folder: Path, looks: _Looks, bits: int | None) -> Iterator[Path]:
    """Precision-recall and precision of the top N at one code length: Fig. 3 and 4, b and c."""
    bits = _figure_bits([section], bits)
    rows = _labelled(section.rows)
    for key, plot, name in (
        ("pr_curve", figures.precision_recall, "precision_recall"),
        ("precision_at100", figures.precision_at, "precision_at"),
    ):
        runs = {
            label: row.results[bits].runs
            for label, row in rows.items()
            if bits in row.results and _all_have(row.results[bits], key)
        }
        for path, part in _pages(runs, folder / f"{name}_{bits}.png"):
            with figures.optional(path):
                plot(part, path, looks.of(part))
                yield path


def _draw_real_fractions(section: Section, folder: Path) -> Iterator[Path]:
    """mAP against the synthetic part of the triplets, a line a code length: Fig. 6 of DSH-GANs."""
    settings: dict[str, list[Row]] = defaultdict(list)
    for row in section.rows:
        if REAL_FRACTION in row.flags:
            settings[_setting(row, REAL_FRACTION, title=_of_any_fraction(row))].append(row)
    firsts = [rows[0] for rows in settings.values()]
    labels = _unique(list(map(_of_any_fraction, firsts)), [f"#{row.number}" for row in firsts])
    for label, rows in zip(labels, settings.values(), strict=True):
        points = {}
        for length in section.code_lengths:
            results = {
                round(100 * (1 - row.flags[REAL_FRACTION]), 6): row.results[length]
                for row in rows
                if length in row.results
            }
            points[f"{length} bits"] = _values(results, section.measure)
        titles = "synthetic images in the triplets (%)", section.measure_name
        name = f"map_by_synthetic_{_file_name(label)}.png"
        yield from _draw_points(points, *titles, folder / name)


def _draw_supervision(
    sections: Iterable[Section], directory: Path, looks: _Looks, bits: int | None
) -> Iterator[Path]:
    """mAP against labelled images a class, over the protocols of a data set: Fig. 2 of SSGAH.

    A line has the same flags at every amount but for the numbers of steps of H, in stage 0 too; of
    two rows that differ in nothing else, the longer training stands.
    """
    for (dataset, protocol), amounts in _by_amount(sections).items():
        length = _figure_bits(amounts.values(), bits)
        settings: dict[str, dict[int, Row]] = defaultdict(dict)
        for amount, section in amounts.items():
            for row in sorted(section.rows, key=lambda row: row.flags.get("steps") or 0):
                if length in row.results:
                    lengths = [flag for flag in row.flags if flag.rpartition(".")[2] in _STEPS]
                    settings[_setting(row, "labelled_per_class", *lengths)][amount] = row
        lines = [rows for rows in settings.values() if len(rows) > 1]
        titles = [next(iter(rows.values())).title for rows in lines]
        labels = _unique(titles, [f"({number})" for number in range(1, len(lines) + 1)])
        first = next(iter(amounts.values()))
        points = {
            label: _values({x: row.results[length] for x, row in rows.items()}, first.measure)
            for label, rows in zip(labels, lines, strict=True)
        }
        path = directory / _folder(dataset, protocol) / f"map_by_labelled_{length}.png"
        yield from _draw_points(points, "labelled images a class", first.measure_name, path, looks)


def _by_amount(sections: Iterable[Section]) -> dict[tuple[str, str], dict[int, Section]]:
    """Data set and protocol without its labelled images a class -> these -> the section."""
    amounts: dict[tuple[str, str], dict[int, Section]] = defaultdict(dict)
    for section in sections:
        if match := _LABELLED.search(section.protocol):
            protocol = _LABELLED.sub("", section.protocol)
            amounts[section.dataset, protocol][int(match[1])] = section
    return amounts


def _draw_points(
    points: Points, x: str, y: str, path: Path, looks: _Looks | None = None
) -> Iterator[Path]:
    """Draws the lines of two points or more."""
    lines = {label: values for label, values in points.items() if len(values) > 1}
    for page, part in _pages(lines, path):
        with figures.optional(page):
            figures.against(part, x, y, page, None if looks is None else looks.of(part))
            yield page


def _pages(lines: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """As many lines as a figure holds, and its path: name.png, then name_2.png, ..."""
    labels = list(lines)
    for page, start in enumerate(range(0, len(labels), figures.MOST_LINES), start=1):
        part = {label: lines[label] for label in labels[start : start + figures.MOST_LINES]}
        yield path if page == 1 else path.with_stem(f"{path.stem}_{page}"), part


def _labelled(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows of a section by their title, and by their number too where several have it."""
    labels = _unique([row.title for row in rows], [f"#{row.number}" for row in rows])
    return dict(zip(labels, rows, strict=True))


def _unique(titles: Sequence[str], marks: Sequence[str]) -> list[str]:
    """The titles, with their mark where several are the same."""
    count = Counter(titles)
    return [
        title if count[title] == 1 else f"{title} {mark}"
        for title, mark in zip(titles, marks, strict=True)
    ]


def _values(results: Mapping[Any, Result], key: str) -> dict[float, list[float]]:
    return {x: result.values(key) for x, result in results.items() if _all_have(result, key)}


def _all_have(result: Result, key: str) -> bool:
    return len(result.values(key)) == len(result.runs)


def _of_any_fraction(row: Row) -> str:
    """The title of a row, without the part of its variant that names its real_fraction."""
    words = _REAL.sub(" ", row.title).replace(" _", " ")
    return " ".join(words.split())


def _setting(row: Row, *without: str, title: str | None = None) -> str:
    """What two rows have in common that differ in nothing but these flags, and in the title."""
    flags = {flag: value for flag, value in row.flags.items() if flag not in without}
    return json.dumps([title or row.title, flags], sort_keys=True)


def _figure_bits(sections: Iterable[Section], bits: int | None) -> int:
    lengths = {length for section in sections for length in section.code_lengths}
    return bits or (DEFAULT_BITS if DEFAULT_BITS in lengths else max(lengths))


def _folder(dataset: str, protocol: str) -> str:
    return _file_name(f"{dataset} {protocol}")


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-")
