"""Figures of images: top results of queries, and what all such figures are put together of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tfhash.figures.style import PAGE_WIDTH, STYLE, drawn, save

HIT_COLOUR = "#009E73"
MISS_COLOUR = "#D55E00"
LARGEST_IMAGE_WIDTH = 0.65  # inches
CENTRED: dict[str, Any] = {"ha": "center", "va": "center_baseline"}
GRID_GAP = 2  # pixels
ROW_GAP, BLOCK_GAP = 0.14, 0.5  # below a row, and before the next query; in widths of an image


class _Row(NamedTuple):
    top: float  # in widths of an image, from the first row's
    name: str
    query: np.ndarray | None  # uint8 [H, W, 3]
    results: np.ndarray  # uint8 [r, H, W, 3]
    hits: np.ndarray  # bool [r]


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
    check("result_images", result_images, np.uint8, "q", "r", "H", "W", 3)
    query_count, result_count, height, width, _ = result_images.shape
    check("query_images", query_images, np.uint8, query_count, height, width, 3)
    check("hits", hits, np.bool, query_count, result_count)
    names = names_of("query_names", query_names, query_count)
    tops = (height / width + ROW_GAP) * np.arange(query_count)
    rows = zip(tops, names, query_images, result_images, hits, strict=True)
    _draw_results([_Row(*row) for row in rows], path)


def top_results_of_methods(
    query_images: np.ndarray,
    results: Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: str | os.PathLike,
    *,
    hit: str = "relevant",
) -> None:
    """Draws the top results of several methods below each other, query after query.

    query_images uint8 [q, H, W, 3]; results: name of the method -> its result images, uint8
    [q, r, H, W, 3], nearest first, and hits, bool [q, r]; hit: what a hit is called; frames as in
    `top_results` (DSH-GANs, Fig. 5, has queries in rows too). Writes a PNG to `path`. Raises
    ValueError where there is no method or an array does not fit.
    """
    if not results:
        raise ValueError("results is empty; allowed: at least one method")
    check("query_images", query_images, np.uint8, "q", "H", "W", 3)
    query_count, height, width, _ = query_images.shape
    shape = (query_count, "r", height, width, 3)
    for name, (images, hits) in results.items():
        check(f"results[{name!r}][0]", images, np.uint8, *shape)
        check(f"results[{name!r}][1]", hits, np.bool, *images.shape[:2])
        shape = images.shape
    rows, top = [], 0.0
    for query, image in enumerate(query_images):
        for position, (name, (images, hits)) in enumerate(results.items()):
            beside = image if position == 0 else None
            rows.append(_Row(top, drawn(name), beside, images[query], hits[query]))
            top += height / width + ROW_GAP
        top += BLOCK_GAP
    _draw_results(rows, path, hit)


def image_grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of equally many images as one image, white lines of GRID_GAP pixels between them.

    rows: r arrays uint8 [n, H, W, 3]; returns uint8 [r (H + gap) - gap, n (W + gap) - gap, 3].
    Raises ValueError where there is no row, or rows differ in shape.
    """
    if not len(rows):
        raise ValueError("rows is empty; allowed: at least one uint8 [n, H, W, 3]")
    shape = ("n", "H", "W", 3)
    for index, row in enumerate(rows):
        check(f"rows[{index}]", row, np.uint8, *shape)
        shape = row.shape
    margins = ((0, 0), (0, 0), (0, GRID_GAP), (0, GRID_GAP), (0, 0))
    cells = np.pad(np.stack(rows), margins, constant_values=255)  # [r, n, H + gap, W + gap, 3]
    row_count, image_count, height, width, _ = cells.shape
    grid = cells.swapaxes(1, 2).reshape(row_count * height, image_count * width, 3)
    return grid[:-GRID_GAP, :-GRID_GAP]


def _draw_results(
    rows: Sequence[_Row], path: str | os.PathLike, hit_name: str = "relevant"
) -> None:
    """Draws rows of a query, framed results and their precision."""
    result_count, height, width, _ = rows[0].results.shape
    aspect = height / width  # the figure's unit is the width of an image
    columns = 1.35 + 1.14 * np.arange(result_count)
    precision_column = columns[-1] + 1.6
    with matplotlib.rc_context(STYLE):
        # Half of a frame lies outside its image.
        figure, axes = image_figure(precision_column + 0.5, rows[-1].top + aspect, margin=0.04)
        for row in rows:
            for column, image, hit in zip(columns, row.results, row.hits, strict=True):
                draw_image(axes, image, column, row.top)
                axes.add_patch(_frame(column, row.top, aspect, hit))
            if row.query is not None:
                draw_image(axes, row.query, 0, row.top)
            middle = row.top + aspect / 2
            axes.text(precision_column, middle, f"{row.hits.mean():.2f}", **CENTRED)
        titles = ["query", *range(1, result_count + 1), "precision"]
        axes.set_xticks([0.5, *(columns + 0.5), precision_column], labels=titles)
        axes.set_yticks([row.top + aspect / 2 for row in rows], labels=[row.name for row in rows])
        axes.legend(
            handles=[_frame(0, 0, 1, hit) for hit in (True, False)],
            labels=[hit_name, f"not {hit_name}"],
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            ncols=2,
        )
        save(figure, path, bbox_inches="tight")


def image_figure(width: float, height: float, margin: float = 0) -> tuple[Figure, Axes]:
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


def draw_image(axes: Axes, image: np.ndarray, left: float, top: float, width: float = 1) -> None:
    height = width * image.shape[0] / image.shape[1]
    axes.imshow(image, extent=(left, left + width, top + height, top), interpolation="nearest")


def _frame(left: float, top: float, height: float, hit: bool) -> Rectangle:
    colour, line_style = (HIT_COLOUR, "solid") if hit else (MISS_COLOUR, (0, (2, 1)))
    style: dict[str, Any] = {"linewidth": 2, "edgecolor": colour, "linestyle": line_style}
    return Rectangle((left, top), 1, height, fill=False, **style)


def check(name: str, array: np.ndarray, dtype: type, *shape: int | str) -> None:
    """Raises ValueError for another dtype or shape; a letter in `shape` is any size from 1."""
    fits = np.ndim(array) == len(shape) and all(
        size >= 1 if isinstance(allowed, str) else size == allowed
        for size, allowed in zip(np.shape(array), shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        received = f"{np.asarray(array).dtype} [{', '.join(map(str, np.shape(array)))}]"
        allowed = f"{np.dtype(dtype)} [{', '.join(map(str, shape))}]"
        raise ValueError(f"{name} is {received}; allowed: {allowed}")


def names_of(argument: str, names: Sequence[str] | None, count: int) -> Sequence[str]:
    """The names as they are drawn, one an image; empty ones where there are none."""
    if names is None:
        return [""] * count
    if len(names) != count:
        raise ValueError(f"{argument} has {len(names)} entries; allowed: {count}, one an image")
    return [drawn(name) for name in names]
