"""The papers' figures as PNG files: retrieval curves, top results, synthetic images."""

from tfhash.figures.curves import against, precision_at, precision_recall
from tfhash.figures.images import image_grid, top_results, top_results_of_methods
from tfhash.figures.style import MOST_LINES, Look, optional
from tfhash.figures.synthetic import (
    nearest_real,
    synthetic_by_class,
    synthetic_label_sets,
    synthetic_triplets,
)

__all__ = [
    "MOST_LINES",
    "Look",
    "against",
    "image_grid",
    "nearest_real",
    "optional",
    "precision_at",
    "precision_recall",
    "synthetic_by_class",
    "synthetic_label_sets",
    "synthetic_triplets",
    "top_results",
    "top_results_of_methods",
]
