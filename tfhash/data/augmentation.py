"""Views of images: weak ones, which leave what is seen as it is, and strong ones, which do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfhash.data.pipeline import FlipAndShift

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in tf.image
GREY = 127.5


@dataclass(frozen=True)
class StrongView:
    """A weak view whose brightness, contrast and colours change, with a square cut out.

    Each image has draws of its own: its values are multiplied by a factor, then drawn to or away
    from their mean grey, then to or away from the grey of each pixel, all three factors uniform in
    [1 - strength, 1 + strength]; then a square of `hole` of the side, anywhere in the image, turns
    grey. strength: in [0, 1). hole: in [0, 1).
    """

    weak: FlipAndShift
    strength: float = 0.4
    hole: float = 0.375

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [n, 1, H, W, 3] -> uint8 [n, H, W, 3]."""
        views = self.weak(images, rng).astype(np.float32)
        low, high = 1 - self.strength, 1 + self.strength
        brightness, contrast, colour = rng.uniform(low, high, (3, len(views), 1, 1, 1))
        views *= brightness.astype(np.float32)
        grey = (views @ _LUMA)[..., None]
        mean = grey.mean(axis=(1, 2), keepdims=True)
        views = mean + (views - mean) * contrast.astype(np.float32)
        grey = (views @ _LUMA)[..., None]
        views = grey + (views - grey) * colour.astype(np.float32)
        views = np.where(self._holes(views, rng)[..., None], np.float32(GREY), views)
        return np.rint(np.clip(views, 0, 255)).astype(np.uint8)

    def _holes(self, views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """bool [n, H, W]: a square a view, all of which is inside of it."""
        count, height, width = views.shape[:3]
        side = round(self.hole * min(height, width))
        top = rng.integers(0, height - side + 1, count)
        left = rng.integers(0, width - side + 1, count)
        rows = np.arange(height) - top[:, None]
        columns = np.arange(width) - left[:, None]
        in_rows, in_columns = ((0 <= at) & (at < side) for at in (rows, columns))
        return in_rows[:, :, None] & in_columns[:, None, :]
