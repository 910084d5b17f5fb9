"""The papers' figures as PNG files: retrieval curves, top results, synthetic triplets."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, ScalarFormatter

# Okabe and Ito's colours, told apart with every common colour blindness; their yellow is left out
# because it vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINE_STYLES = ("-", "--", ":")
HIT_COLOUR = "#009E73"
MISS_COLOUR = "#D55E00"

COLUMN_WIDTH = 3.4  # inches; one column of a two-column paper
PAGE_WIDTH = 7.0
LARGEST_IMAGE_WIDTH = 0.65
CENTRED = {"ha": "center", "va": "center_baseline"}
GRID_GAP = 2  # pixels

STYLE = {
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


def precision_recall(metrics: Mapping[str, dict], path: str | os.PathLike) -> None:
    """Draws precision against recall, one line a label, mAP in the legend.

    `metrics` maps a label to the contents of a metrics.json (keys `pr_curve` and `map`); writes a
    PNG to `path`. Raises ValueError where `metrics` is empty or lacks a key.
    """
    curves = {}
    for label, run in metrics.items():
        curve, mean_average_precision = _value(run, "pr_curve", label), _value(run, "map", label)
        name = f"{label} (mAP {mean_average_precision:.3f})"
        curves[name] = _value(curve, "recall", label), _value(curve, "precision", label)
    with matplotlib.rc_context(STYLE):
        figure, axes = _line_figure("recall", "precision")
        _draw_lines(axes, curves)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        _save(figure, path)


def precision_at(metrics: Mapping[str, dict], path: str | os.PathLike) -> None:
    """Draws precision against the number of returned images, one line a label.

    `metrics` maps a label to the contents of a metrics.json (keys `precision_at{N}`); writes a PNG
    to `path`. Raises ValueError where `metrics` is empty or a label has no such key.
    """
    curves = {}
    for label, run in metrics.items():
        matches = (re.fullmatch(r"precision_at(\d+)", key) for key in run)
        counts = sorted(int(match[1]) for match in matches if match)
        if not counts:
            raise ValueError(f"metrics[{label!r}] has no 'precision_at{{N}}'; it has {sorted(run)}")
        curves[label] = counts, [run[f"precision_at{count}"] for count in counts]
    with matplotlib.rc_context(STYLE):
        figure, axes = _line_figure("number of returned images", "precision")
        _draw_lines(axes, curves)
        fewest = min(counts[0] for counts, _ in curves.values())
        if max(counts[-1] for counts, _ in curves.values()) > 20 * fewest:
            axes.set_xscale("log")  # 1, 10, 100, ...: a linear axis would pile up the small ones
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
        _save(figure, path)


def top_results(
    query_images: np.ndarray,
    result_images: np.ndarray,
    hits: np.ndarray,
    path: str | os.PathLike,
    *,
    query_names: Sequence[str] | None = None,
) -> None:
    """Draws one row a query: the query, its top results framed by relevance, and their precision.

    query_images uint8 [q, H, W, 3], result_images uint8 [q, r, H, W, 3], nearest first, hits bool
    [q, r]; query_names, q strings, stand at the left. A relevant result has a solid bluish green
    frame, another a dashed vermillion one. Writes a PNG to `path`. Raises ValueError where an array
    or the names do not fit.
    """
    _check("result_images", result_images, np.uint8, "q", "r", "H", "W", 3)
    query_count, result_count, height, width, _ = result_images.shape
    _check("query_images", query_images, np.uint8, query_count, height, width, 3)
    _check("hits", hits, np.bool, query_count, result_count)
    query_names = _names("query_names", query_names, query_count)

    aspect = height / width  # the figure's unit is the width of an image
    columns = 1.35 + 1.14 * np.arange(result_count)
    rows = (aspect + 0.14) * np.arange(query_count)
    precision_column = columns[-1] + 1.6
    with matplotlib.rc_context(STYLE):
        # Half of a frame lies outside its image.
        figure, axes = _image_figure(precision_column + 0.5, rows[-1] + aspect, margin=0.04)
        for row, images, row_hits in zip(rows, result_images, hits, strict=True):
            for column, image, hit in zip(columns, images, row_hits, strict=True):
                _draw_image(axes, image, column, row)
                axes.add_patch(_frame(column, row, aspect, hit))
        for row, image, precision in zip(rows, query_images, hits.mean(axis=1), strict=True):
            _draw_image(axes, image, 0, row)
            axes.text(precision_column, row + aspect / 2, f"{precision:.2f}", **CENTRED)
        titles = ["query", *range(1, result_count + 1), "precision"]
        axes.set_xticks([0.5, *(columns + 0.5), precision_column], labels=titles)
        axes.set_yticks(rows + aspect / 2, labels=query_names)
        axes.legend(
            handles=[_frame(0, 0, 1, hit) for hit in (True, False)],
            labels=["relevant", "not relevant"],
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            ncols=2,
        )
        _save(figure, path, bbox_inches="tight")


def synthetic_triplets(
    x: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    path: str | os.PathLike,
    *,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws real images over their synthetic positives and negatives (SSGAH, Fig. 3).

    x, positive = G_p(x) and negative = G_n(x) are uint8 [n, H, W, 3]; class_names, n strings, name
    the class of each x. Writes a PNG to `path`. Raises ValueError where an array or the names do
    not fit.
    """
    _check("x", x, np.uint8, "n", "H", "W", 3)
    _check("positive", positive, np.uint8, *x.shape)
    _check("negative", negative, np.uint8, *x.shape)
    image_count, height, width, _ = x.shape
    class_names = _names("class_names", class_names, image_count)

    grid = image_grid([x, positive, negative])
    columns = (width / 2 + (width + GRID_GAP) * np.arange(image_count)) / width
    rows = (height / 2 + (height + GRID_GAP) * np.arange(3)) / width
    grid_height, grid_width = (size / width for size in grid.shape[:2])
    with matplotlib.rc_context(STYLE):
        figure, axes = _image_figure(grid_width, grid_height)
        _draw_image(axes, grid, 0, 0, width=grid_width)
        axes.set_xticks(columns, labels=class_names)
        axes.set_yticks(rows, labels=["$x$", "$G_p(x)$", "$G_n(x)$"])
        _save(figure, path, bbox_inches="tight")


def image_grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of equally many images as one image, white lines of GRID_GAP pixels between them.

    rows: r arrays uint8 [n, H, W, 3]; returns uint8 [r (H + gap) - gap, n (W + gap) - gap, 3].
    Raises ValueError where there is no row, or rows differ in shape.
    """
    if not len(rows):
        raise ValueError("rows is empty; allowed: at least one uint8 [n, H, W, 3]")
    shape = ("n", "H", "W", 3)
    for index, row in enumerate(rows):
        _check(f"rows[{index}]", row, np.uint8, *shape)
        shape = row.shape
    margins = ((0, 0), (0, 0), (0, GRID_GAP), (0, GRID_GAP), (0, 0))
    cells = np.pad(np.stack(rows), margins, constant_values=255)  # [r, n, H + gap, W + gap, 3]
    row_count, image_count, height, width, _ = cells.shape
    grid = cells.swapaxes(1, 2).reshape(row_count * height, image_count * width, 3)
    return grid[:-GRID_GAP, :-GRID_GAP]


def _line_figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(COLUMN_WIDTH, 0.75 * COLUMN_WIDTH), layout="constrained")
    return figure, figure.add_subplot(xlabel=x_label, ylabel=y_label, axisbelow=True)


def _draw_lines(axes: Axes, curves: Mapping[str, tuple[Sequence, Sequence]]) -> None:
    """Draws label -> (x, y), and the legend below, where it hides nothing; None leaves a hole."""
    if not curves:
        raise ValueError("metrics is empty; allowed: at least one label with its metrics")
    for index, (label, (x, y)) in enumerate(curves.items()):
        axes.plot(
            np.asarray(x, dtype=float),
            np.asarray(y, dtype=float),
            label=label,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            linestyle=LINE_STYLES[index // len(COLOURS) % len(LINE_STYLES)],
            markevery=0.1,
        )
    legend_columns = 2 if max(map(len, curves)) <= 24 else 1
    legend_lines = math.ceil(len(curves) / legend_columns)
    figure = axes.figure
    figure.set_figheight(figure.get_figheight() + 0.16 * legend_lines)
    figure.legend(loc="outside lower center", ncols=legend_columns)


def _image_figure(width: float, height: float, margin: float = 0) -> tuple[Figure, Axes]:
    """Axes of width x height and a margin, labelled at the top; the unit is an image's width."""
    width, height = width + 2 * margin, height + 2 * margin
    unit = min(LARGEST_IMAGE_WIDTH, PAGE_WIDTH / width)
    figure = Figure(figsize=(width * unit, height * unit))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-margin, width - margin))
    axes.set(ylim=(height - margin, -margin), autoscale_on=False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    return figure, axes


def _draw_image(axes: Axes, image: np.ndarray, left: float, top: float, width: float = 1) -> None:
    height = width * image.shape[0] / image.shape[1]
    axes.imshow(image, extent=(left, left + width, top + height, top), interpolation="nearest")


def _frame(left: float, top: float, height: float, hit: bool) -> Rectangle:
    colour, line_style = (HIT_COLOUR, "solid") if hit else (MISS_COLOUR, (0, (2, 1)))
    style = {"linewidth": 2, "edgecolor": colour, "linestyle": line_style}
    return Rectangle((left, top), 1, height, fill=False, **style)


def _save(figure: Figure, path: str | os.PathLike, **options) -> None:
    """Writes a PNG so that whoever reads `path` finds the old picture or the new, never a half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(unfinished, format="png", **options)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _value(values: Mapping, key: str, label: str):
    if key not in values:
        raise ValueError(f"metrics[{label!r}] has no key {key!r}; it has {sorted(values)}")
    return values[key]


def _check(name: str, array: np.ndarray, dtype: type, *shape: int | str) -> None:
    """Raises ValueError for another dtype or shape; a letter in `shape` is any size from 1."""
    fits = np.ndim(array) == len(shape) and all(
        size >= 1 if isinstance(allowed, str) else size == allowed
        for size, allowed in zip(np.shape(array), shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        received = f"{np.asarray(array).dtype} [{', '.join(map(str, np.shape(array)))}]"
        allowed = f"{np.dtype(dtype)} [{', '.join(map(str, shape))}]"
        raise ValueError(f"{name} is {received}; allowed: {allowed}")


def _names(argument: str, names: Sequence[str] | None, count: int) -> Sequence[str]:
    """The names, one an image; empty ones where there are none."""
    if names is None:
        return [""] * count
    if len(names) != count:
        raise ValueError(f"{argument} has {len(names)} entries; allowed: {count}, one an image")
    return names
