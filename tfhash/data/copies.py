"""Images that are there twice: whose copies they are, and how many are nearly so."""

from __future__ import annotations

import hashlib

import numpy as np
from threadpoolctl import threadpool_limits

GROUP, DROP, KEEP = "group", "drop", "keep"
CHOICES = (GROUP, DROP, KEEP)

MOST_COMPARED = 100_000  # images; with each image more, all others are looked at
_SIDE = 6  # px of the thumbnails that are compared
_NEAR = 2.0  # grey levels; JPEG at quality 50 changes a thumbnail by some .5
_ROWS, _COLUMNS = 256, 8192  # that are compared at a time: 8 MiB of distances


def first_of_copies(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each image the position of the one that it is a copy of, its own where of none.

    images: uint8 [n, S, S, 3]; copies have the same pixels, whatever their files. labels: [n, C];
    the first of copies is the first one with a label. Returns int64 [n].
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    first: dict[bytes, int] = {}
    has_label = labels.any(axis=1) if labels.shape[1] else np.ones(len(labels), bool)
    for position in (*np.flatnonzero(has_label), *np.flatnonzero(~has_label)):
        first.setdefault(digests[position], int(position))
    return np.array([first[digest] for digest in digests], np.int64)


def notes_on(first: np.ndarray, images: np.ndarray, labels: np.ndarray, choice: str) -> list[str]:
    """A sentence each on copies, on copies with other labels, and on images that are nearly so.

    first: of `first_of_copies`. choice: what becomes of copies, for the first sentence.
    """
    notes = []
    copies = np.flatnonzero(first != np.arange(len(first)))
    if len(copies):
        becomes = {
            GROUP: "each stands in the part of the split where that one does",
            DROP: "they are left out",
            KEEP: "they may be queries of which the database has a copy",
        }[choice]
        notes.append(f"{len(copies)} images repeat another one; {becomes} (`duplicates`={choice})")
        both = labels[copies].any(axis=1) & labels[first[copies]].any(axis=1)
        if others := int((both & (labels[copies] != labels[first[copies]]).any(axis=1)).sum()):
            notes.append(f"{others} of them have other labels than the image that they repeat")
    alone = np.flatnonzero(first == np.arange(len(first)))
    if len(alone) > MOST_COMPARED:
        notes.append(f"not looked for images that are nearly the same: over {MOST_COMPARED:,}")
    elif near := count_near(thumbnails(images, alone)):
        notes.append(f"{near} images are nearly the same as another one; nothing is done about it")
    return notes


def thumbnails(images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Images at 6 x 6 px, as means over their parts: float32 [n, 108] for uint8 [N, S, S, 3]."""
    size = images.shape[1]
    starts = (np.arange(_SIDE) * size) // _SIDE  # parts of an image below 6 px repeat
    lengths = np.maximum(np.diff(starts, append=size), 1)
    small = np.empty((len(positions), _SIDE, _SIDE, 3), np.float32)
    for start in range(0, len(positions), _ROWS):
        some = slice(start, start + _ROWS)
        rows = np.add.reduceat(images[positions[some]], starts, axis=1, dtype=np.uint32)
        small[some] = np.add.reduceat(rows, starts, axis=2)
    return (small / (lengths[:, None] * lengths)[..., None]).reshape(len(positions), -1)


@threadpool_limits.wrap(limits=1, user_api="blas")  # blocks are too small for several
def count_near(small: np.ndarray) -> int:
    """How many thumbnails, float32 [n, d], are within _NEAR of another one (root mean square).

    The means of two near thumbnails are within _NEAR too, so in the order of their means few have
    to be compared: none of two that are known to be near, as most images of a film are. Where all
    means are alike every pair is, by a product of matrices: 2 n^2 d operations, and _ROWS times
    _COLUMNS distances at a time.
    """
    small = small[np.argsort(small.mean(axis=1), kind="stable")]
    means = small.mean(axis=1)
    small = small - small.mean(axis=0)
    squares, ones = (small**2).sum(axis=1, keepdims=True), np.ones((len(small), 1), np.float32)
    # The scalar product of a row of one and a row of the other is their squared distance.
    left, right = np.hstack([-2 * small, squares, ones]), np.hstack([small, ones, squares])
    limit = _NEAR**2 * small.shape[1]
    near = np.zeros(len(small), bool)
    for start in range(0, len(small), _ROWS):
        rows = slice(start, start + _ROWS)
        stop = int(np.searchsorted(means, means[rows][-1] + _NEAR, side="right"))
        for first in range(start, stop, _COLUMNS):
            columns = slice(first, min(first + _COLUMNS, stop))
            if near[rows].all() and near[columns].all():
                continue
            distances = left[rows] @ right[columns].T
            if first == start:
                np.fill_diagonal(distances, np.inf)  # of each to itself
            is_near = distances <= limit
            near[rows] |= is_near.any(axis=1)
            near[columns] |= is_near.any(axis=0)
    return int(near.sum())
