"""The papers' figures as PNG files: retrieval curves, top results, synthetic triplets."""

from tfhash.figures.curves import against, precision_at, precision_recall
from tfhash.figures.images import (
    image_grid,
    synthetic_triplets,
    top_results,
    top_results_of_methods,
)
from tfhash.figures.style import MOST_LINES, Look

__all__ = [
    "MOST_LINES",
    "Look",
    "against",
    "image_grid",
    "precision_at",
    "precision_recall",
    "synthetic_triplets",
    "top_results",
    "top_results_of_methods",
]
