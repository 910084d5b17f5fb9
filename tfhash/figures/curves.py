"""Figures of retrieval metrics: precision-recall, precision of the top N, a value against another.

A line is the mean over repeats of a run, with ± one standard deviation where there are several.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

from tfhash.figures.style import COLOURS, STYLE, Look, legend_below, line_figure, save

RECALLS = np.linspace(0, 1, 101)  # where curves of several runs are averaged

# label -> the contents of a metrics.json, or of those of all repeats.
Runs = Mapping[str, Mapping | Sequence[Mapping]]
Looks = Mapping[str, Look]


class _Line(NamedTuple):
    x: np.ndarray  # [p]
    y: np.ndarray  # [repeats, p]; NaN leaves a hole


def precision_recall(runs: Runs, path: str | os.PathLike, looks: Looks | None = None) -> None:
    """Draws precision against recall, one line a label, mAP in the legend.

    runs: label -> metrics.json, or those of all its repeats (keys `pr_curve` and `map`); precisions
    of repeats are averaged at equal recall, where all of them have one. looks: how each label
    looks; by default one after the other. Writes a PNG. Raises ValueError where `runs` is empty or
    lacks a key.
    """
    lines = {}
    for label, repeats in _repeats(runs).items():
        mean_average_precision = np.mean([_value(run, "map", label) for run in repeats])
        name = f"{label} (mAP {mean_average_precision:.3f})"
        lines[name] = _precision_recall_line(label, repeats)
    if looks is not None:
        looks = dict(zip(lines, (looks[label] for label in runs), strict=True))
    with matplotlib.rc_context(STYLE):
        figure, axes = line_figure("recall", "precision")
        _draw(axes, lines, looks, markevery=0.1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        save(figure, path)


def precision_at(runs: Runs, path: str | os.PathLike, looks: Looks | None = None) -> None:
    """Draws precision against the number of returned images, one line a label.

    runs: label -> metrics.json, or those of all its repeats (keys `precision_at{N}`; the N that all
    have are drawn). looks: how each label looks; by default one after the other. Writes a PNG.
    Raises ValueError where `runs` is empty or a label has no such key.
    """
    lines = {}
    for label, repeats in _repeats(runs).items():
        counts = sorted(set.intersection(*map(_depths, repeats)))
        if not counts:
            keys = sorted(repeats[0])
            raise ValueError(f"runs[{label!r}] has no 'precision_at{{N}}'; it has {keys}")
        precisions = [[run[f"precision_at{count}"] for count in counts] for run in repeats]
        lines[label] = _Line(np.array(counts), np.array(precisions, float))
    with matplotlib.rc_context(STYLE):
        figure, axes = line_figure("number of returned images", "precision")
        _draw(axes, lines, looks)
        _scale(axes, (count for line in lines.values() for count in line.x))
        save(figure, path)


def against(
    values: Mapping[str, Mapping[float, Sequence[float]]],
    x_label: str,
    y_label: str,
    path: str | os.PathLike,
    looks: Looks | None = None,
) -> None:
    """Draws a value against a number, one line a label, bars of ± one standard deviation.

    values: label -> number on the x axis -> the value of each repeat. looks: how each label looks;
    by default one after the other. Writes a PNG. Raises ValueError where `values` is empty.
    """
    numbers = sorted({x for of_label in values.values() for x in of_label})
    with matplotlib.rc_context(STYLE):
        figure, axes = line_figure(x_label, y_label)
        _check_any("values", values)
        drawn = []
        for label, look in _looks(values, looks).items():
            points = sorted(values[label].items())
            line = axes.errorbar(
                [x for x, _ in points],
                [np.mean(repeats) for _, repeats in points],
                yerr=[float(np.std(r, ddof=1)) if len(r) > 1 else 0.0 for _, r in points],
                elinewidth=0.8,
                **look.options(),
            )
            drawn.append(line)
        legend_below(figure, drawn, list(values))
        _scale(axes, numbers)
        axes.set_xticks(numbers, labels=[f"{x:g}" for x in numbers])
        axes.xaxis.set_minor_locator(NullLocator())
        save(figure, path)


def _repeats(runs: Runs) -> dict[str, Sequence[Mapping]]:
    return {label: [run] if isinstance(run, Mapping) else run for label, run in runs.items()}


def _precision_recall_line(label: str, repeats: Sequence[Mapping]) -> _Line:
    curves = []
    for run in repeats:
        curve = _value(run, "pr_curve", label)
        recall, precision = (_value(curve, key, label) for key in ("recall", "precision"))
        curves.append((np.array(recall, float), np.array(precision, float)))
    if len(curves) == 1:
        return _Line(curves[0][0], curves[0][1][np.newaxis])
    return _Line(RECALLS, np.stack([_at_recalls(*curve) for curve in curves]))


def _at_recalls(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """The precision at each of RECALLS, float64; NaN below the recall of the smallest ball."""
    # Of balls with one recall the smallest counts: the others only add what is not relevant.
    recall, first = np.unique(recall, return_index=True)
    return np.interp(RECALLS, recall, precision[first], left=np.nan, right=np.nan)


def _depths(run: Mapping) -> set[int]:
    matches = (re.fullmatch(r"precision_at(\d+)", key) for key in run)
    return {int(match[1]) for match in matches if match}


def _draw(axes: Axes, lines: Mapping[str, _Line], looks: Looks | None, **options) -> None:
    """Draws the lines, a band around those with repeats, and the legend; options: of Axes.plot."""
    _check_any("runs", lines)
    drawn = []
    for label, look in _looks(lines, looks).items():
        x, y = lines[label]
        mean = y.mean(axis=0)
        drawn += axes.plot(x, mean, **look.options(), **options)
        if len(y) > 1:
            deviation = y.std(axis=0, ddof=1)
            band: dict[str, Any] = {"color": look.colour, "alpha": 0.12, "linewidth": 0}
            axes.fill_between(x, mean - deviation, mean + deviation, **band)
    figure: Any = axes.figure  # of no subfigure
    legend_below(figure, drawn, list(lines))


def _looks(labels: Iterable[str], looks: Looks | None) -> Looks:
    if looks is None:
        return {label: Look.of(i, i // len(COLOURS)) for i, label in enumerate(labels)}
    return {label: looks[label] for label in labels}


def _scale(axes: Axes, numbers: Iterable[float]) -> None:
    """A logarithmic x axis for 10, 100, 1000: a linear one would pile up the small numbers."""
    numbers = list(numbers)
    if max(numbers) > 20 * min(numbers) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())


def _check_any(name: str, labels: Mapping) -> None:
    if not labels:
        raise ValueError(f"{name} is empty; allowed: at least one label")


def _value(values: Mapping, key: str, label: str):
    if key not in values:
        raise ValueError(f"runs[{label!r}] has no key {key!r}; it has {sorted(values)}")
    return values[key]
