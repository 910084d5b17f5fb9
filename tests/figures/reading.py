"""A picture read back, and what the tests of figures draw."""

from __future__ import annotations

import matplotlib.image
import matplotlib.text
import numpy as np
from matplotlib.colors import to_rgb

BLUE, MAGENTA, CYAN = (0, 0, 255), (255, 0, 255), (0, 255, 255)
YELLOW = (255, 255, 0)
PIXELS_PER_INCH = 200
GREY = np.full((1, 2, 2, 3), 128, np.uint8)


def read(path):
    """The PNG as uint8 [H, W, 3]."""
    return np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(np.uint8)


def is_colour(picture, colour):
    """Where the picture has exactly this colour, a name or RGB in [0, 255]; bool [H, W]."""
    if isinstance(colour, str):
        colour = np.rint(np.multiply(to_rgb(colour), 255))
    return (picture == np.asarray(colour, np.uint8)).all(axis=-1)


def box(picture, colour):
    """top, bottom, left, right of a colour, the ends included."""
    rows, columns = np.nonzero(is_colour(picture, colour))
    return rows.min(), rows.max(), columns.min(), columns.max()


def plain(colour, *shape):
    return np.broadcast_to(np.asarray(colour, np.uint8), (*shape, 3))


def texts_of(figure):
    """All texts that it shows, once the ticks have theirs."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def run_metrics(precision, mean_average_precision=0.5, **more):
    curve = {"recall": [0.0, 0.5, 1.0], "precision": [precision] * 3}
    return {"map": mean_average_precision, "pr_curve": curve, **more}
