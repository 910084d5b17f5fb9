"""The one style of all figures: sizes, colours, markers, dashes, and how a picture is written."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every common colour blindness; their yellow is left out
# because it vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Not as many as colours, so that both together come back only after 70 lines.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "p")
LINE_STYLES = ("-", "--", ":", "-.")
MOST_LINES = 10  # of one figure; more cannot be told apart at its width

COLUMN_WIDTH = 3.4  # inches; one column of a two-column paper
PAGE_WIDTH = 7.0

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.edgecolor": "0.3",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 2.6,
    "savefig.dpi": 200,
}


class Look(NamedTuple):
    """How a line is told from the others."""

    colour: str
    marker: str
    line_style: str

    @classmethod
    def of(cls, index: int, dash: int = 0) -> Look:
        """The index-th colour and marker, and the dash-th line style."""
        return cls(
            COLOURS[index % len(COLOURS)],
            MARKERS[index % len(MARKERS)],
            LINE_STYLES[dash % len(LINE_STYLES)],
        )

    def options(self) -> dict[str, Any]:
        """For Axes.plot."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line_style}


def line_figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Axes of column width for lines."""
    figure = Figure(figsize=(COLUMN_WIDTH, 0.75 * COLUMN_WIDTH), layout="constrained")
    return figure, figure.add_subplot(xlabel=x_label, ylabel=y_label, axisbelow=True)


def legend_below(figure: Figure, labels: Iterable[str]) -> None:
    """The legend where it hides nothing, in one column or two; the figure grows by its lines."""
    labels = list(labels)
    columns = 2 if max(map(len, labels)) <= 24 else 1
    figure.set_figheight(figure.get_figheight() + 0.16 * math.ceil(len(labels) / columns))
    figure.legend(loc="outside lower center", ncols=columns)


def save(figure: Figure, path: str | os.PathLike, **options) -> None:
    """Writes a PNG so that whoever reads `path` finds the old picture or the new, never a half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(unfinished, format="png", **options)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
