"""Figures of synthetic images: triplets, by class, by label set, and the nearest real images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from tfhash.figures.images import GRID_GAP, check, draw_image, image_figure, image_grid, names_of
from tfhash.figures.style import STYLE, drawn, save

HALVES_GAP = 0.7  # between the left half and the right one; in widths of an image, as are these:
TITLE_HEIGHT = 0.65  # above each half of a row
NEAREST_GAP = 0.25  # between synthetic images and the real ones


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
    check("x", x, np.uint8, "n", "H", "W", 3)
    check("positive", positive, np.uint8, *x.shape)
    check("negative", negative, np.uint8, *x.shape)
    image_count, height, width, _ = x.shape
    class_names = names_of("class_names", class_names, image_count)

    grid = image_grid([x, positive, negative])
    columns = (width / 2 + (width + GRID_GAP) * np.arange(image_count)) / width
    rows = (height / 2 + (height + GRID_GAP) * np.arange(3)) / width
    grid_height, grid_width = (size / width for size in grid.shape[:2])
    with matplotlib.rc_context(STYLE):
        figure, axes = image_figure(grid_width, grid_height)
        draw_image(axes, grid, 0, 0, width=grid_width)
        axes.set_xticks(columns, labels=class_names)
        axes.set_yticks(rows, labels=["$x$", "$G_p(x)$", "$G_n(x)$"], parse_math=True)
        save(figure, path, bbox_inches="tight")


def synthetic_by_class(
    real: np.ndarray,
    synthetic: np.ndarray,
    path: str | os.PathLike,
    *,
    class_names: Sequence[str],
    titles: tuple[str, str] = ("real images", "synthetic images"),
) -> None:
    """Draws a row a class: real images at the left, synthetic ones at the right (DSH-GANs, Fig. 7).

    real uint8 [c, r, H, W, 3], synthetic uint8 [c, s, H, W, 3]; class_names, c strings; titles of
    the halves. Writes a PNG to `path`. Raises ValueError where an array or the names do not fit.
    """
    check("real", real, np.uint8, "c", "r", "H", "W", 3)
    class_count, _, height, width, _ = real.shape
    check("synthetic", synthetic, np.uint8, class_count, "s", height, width, 3)
    class_names = names_of("class_names", class_names, class_count)
    grids = [image_grid(list(half)) for half in (real, synthetic)]
    grid_height = grids[0].shape[0] / width
    widths = [grid.shape[1] / width for grid in grids]
    second = widths[0] + HALVES_GAP
    rows = (height / 2 + (height + GRID_GAP) * np.arange(class_count)) / width
    with matplotlib.rc_context(STYLE):
        figure, axes = image_figure(second + widths[1], grid_height)
        for grid, left, grid_width in zip(grids, (0, second), widths, strict=True):
            draw_image(axes, grid, left, 0, width=grid_width)
        _divide(axes, second - HALVES_GAP / 2, grid_height)
        axes.set_xticks(
            [widths[0] / 2, second + widths[1] / 2], labels=[drawn(title) for title in titles]
        )
        axes.set_yticks(rows, labels=class_names)
        save(figure, path, bbox_inches="tight")


def synthetic_label_sets(
    sets: np.ndarray,
    supersets: np.ndarray,
    path: str | os.PathLike,
    *,
    set_names: Sequence[str],
    superset_names: Sequence[str],
) -> None:
    """Draws synthetic images of a label set beside those of a larger one (DSH-GANs, Fig. 8).

    sets, supersets: uint8 [r, n, H, W, 3], a row each; r set_names and r superset_names stand above
    the halves. Writes a PNG to `path`. Raises ValueError where an array or the names do not fit.
    """
    check("sets", sets, np.uint8, "r", "n", "H", "W", 3)
    check("supersets", supersets, np.uint8, *sets.shape)
    names = [
        names_of("set_names", set_names, len(sets)),
        names_of("superset_names", superset_names, len(sets)),
    ]
    width = sets.shape[3]
    grids = [[image_grid([row]) for row in half] for half in (sets, supersets)]
    row_height, row_width = (size / width for size in grids[0][0].shape[:2])
    second = row_width + HALVES_GAP
    tops = TITLE_HEIGHT + (row_height + TITLE_HEIGHT) * np.arange(len(sets))
    with matplotlib.rc_context(STYLE):
        figure, axes = image_figure(second + row_width, tops[-1] + row_height)
        for left, of_half, names_of_half in zip((0, second), grids, names, strict=True):
            for top, grid, name in zip(tops, of_half, names_of_half, strict=True):
                draw_image(axes, grid, left, top, width=row_width)
                axes.text(left, top - 0.1, name, ha="left", va="bottom")
        _divide(axes, second - HALVES_GAP / 2, tops[-1] + row_height)
        axes.set_xticks([])
        axes.set_yticks([])
        save(figure, path, bbox_inches="tight")


def nearest_real(
    real: np.ndarray,
    distances: np.ndarray,
    path: str | os.PathLike,
    *,
    synthetic: np.ndarray | None = None,
) -> None:
    """Draws the real images that are nearest to synthetic ones below them, nearest first.

    real uint8 [r, n, H, W, 3], distances [n] to the first row, over the usual one between real
    images; synthetic uint8 [n, H, W, 3], or None where they cannot be seen. Writes a PNG to `path`.
    Raises ValueError where an array does not fit.
    """
    check("real", real, np.uint8, "r", "n", "H", "W", 3)
    row_count, image_count, height, width, _ = real.shape
    check("distances", distances, np.float64, image_count)
    aspect = height / width
    columns = (width / 2 + (width + GRID_GAP) * np.arange(image_count)) / width
    rows = (height + GRID_GAP) / width * np.arange(row_count)
    if synthetic is not None:
        check("synthetic", synthetic, np.uint8, *real.shape[1:])
        rows += aspect + NEAREST_GAP
    grid = image_grid(list(real))
    grid_height, grid_width = (size / width for size in grid.shape[:2])
    with matplotlib.rc_context(STYLE):
        figure, axes = image_figure(grid_width, rows[0] + grid_height)
        labels = ["nearest real", *["next"] * (row_count - 1)]
        middles = [*(rows + aspect / 2)]
        draw_image(axes, grid, 0, rows[0], width=grid_width)
        if synthetic is not None:
            draw_image(axes, image_grid([synthetic]), 0, 0, width=grid_width)
            labels, middles = ["synthetic", *labels], [aspect / 2, *middles]
        axes.set_xticks(columns, labels=[f"{distance:.2f}" for distance in distances])
        axes.set_xlabel("distance to the nearest real image (1: as between real images)")
        axes.xaxis.set_label_position("top")
        axes.set_yticks(middles, labels=labels)
        save(figure, path, bbox_inches="tight")


def _divide(axes: Axes, x: float, height: float) -> None:
    axes.plot([x, x], [0, height], color="black", linewidth=1)
