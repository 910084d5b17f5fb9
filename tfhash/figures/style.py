"""The one style of all figures: sizes, colours, markers, dashes, and how a picture is written."""

from __future__ import annotations

import contextlib
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from absl import logging
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tfhash.names import shown

# Okabe and Ito's colours, told apart with every common colour blindness; their yellow is left out
# because it vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Not as many as colours, so that both together come back only after 70 lines.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "p")
LINE_STYLES = ("-", "--", ":", "-.")
MOST_LINES = 10  # of one figure; more cannot be told apart at its width

COLUMN_WIDTH = 3.4  # inches; one column of a two-column paper
PAGE_WIDTH = 7.0
_LONGEST = 61  # characters of a name; as many have room below a figure of COLUMN_WIDTH

# Asked for what the first font lacks, in this order, where they are installed. Not the coloured
# emoji fonts, which matplotlib cannot draw.
_MORE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Emoji",
)
_INSTALLED = set(font_manager.fontManager.get_font_names())
_LACKING = re.compile(r"Glyph (\d+) .* missing from font", re.DOTALL)  # matplotlib's warning
_told: set[str] = set()  # characters without a font, which were told already

STYLE: Any = {
    # Names of classes and runs are no TeX: what is, asks for it where it is drawn.
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
    "font.family": [
        *matplotlib.rcParams["font.family"],
        *(font for font in _MORE_FONTS if font in _INSTALLED),
    ],
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


def drawn(text: str) -> str:
    """A text of a user as figures draw it: its lines as `names.shown` has them, at most so long."""
    lines = map(shown, str(text).split("\n"))
    half = (_LONGEST - 1) // 2
    return "\n".join(
        line if len(line) <= _LONGEST else f"{line[:half]}…{line[-half:]}" for line in lines
    )


def legend_below(figure: Figure, lines: Sequence[Any], labels: Sequence[str]) -> None:
    """The legend where it hides nothing, in one column or two; the figure grows by its lines."""
    columns = 2 if max(map(len, labels)) <= 24 else 1
    figure.set_figheight(figure.get_figheight() + 0.16 * math.ceil(len(labels) / columns))
    numbers = [str(number) for number in range(len(labels))]
    legend = figure.legend(lines, numbers, loc="outside lower center", ncols=columns)
    # Set afterwards: matplotlib leaves out a label that begins with an underscore.
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(drawn(label))


def save(figure: Figure, path: str | os.PathLike, **options) -> None:
    """Writes a PNG so that whoever reads `path` finds the old picture or the new, never a half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            figure.savefig(unfinished, format="png", **options)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    _tell(path, told)


@contextlib.contextmanager
def optional(what: str | os.PathLike) -> Iterator[None]:
    """Within it, a figure that fails leaves a warning that names it, and the work goes on."""
    try:
        yield
    except Exception as error:  # whatever it is: no run is lost for a picture
        logging.warning("not drawn: %s (%s: %s)", shown(what), type(error).__name__, shown(error))


def _tell(path: Path, told: Sequence[warnings.WarningMessage]) -> None:
    """Passes warnings of matplotlib on; those of characters without a font in one line, once."""
    lacking = set()
    for warning in told:
        if match := _LACKING.match(str(warning.message)):
            lacking.add(chr(int(match[1])))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if new := sorted(lacking - _told):
        _told.update(new)
        logging.warning(
            "%s: no font here has %s; they are drawn as boxes. Fonts such as Noto Sans CJK and "
            "Noto Emoji have them",
            shown(path),
            shown(" ".join(new[:20])) + (" ..." if new[20:] else ""),
        )
