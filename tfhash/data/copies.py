"""Images that are there twice: whose copies they are, and how many are nearly so."""

from __future__ import annotations

import hashlib

import numpy as np

GROUP, DROP, KEEP = "group", "drop", "keep"
CHOICES = (GROUP, DROP, KEEP)

MOST_COMPARED = 100_000  # images; with each image more, all others are looked at
_SIDE = 6  # px of the thumbnails that are compared
_NEAR = 1.5  # grey levels; JPEG at quality 50 changes a thumbnail by some .5


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
            GROUP: "each stands where that one does",
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
    small = np.empty((len(positions), _SIDE, _SIDE, 3), np.float32)
    for row, position in enumerate(positions):
        rows = np.add.reduceat(images[position].astype(np.uint32), starts, axis=0)
        small[row] = np.add.reduceat(rows, starts, axis=1)
    lengths = np.maximum(np.diff(starts, append=size), 1)
    return (small / (lengths[:, None] * lengths)[..., None]).reshape(len(positions), -1)


def count_near(small: np.ndarray) -> int:
    """How many thumbnails, float32 [n, 108], differ by at most _NEAR on the mean from another one.

    Where the means of parts differ by more, so do the thumbnails: most pairs are told apart by one
    number, in whose order they stand, or by twelve.
    """
    order = np.argsort(small.mean(axis=1), kind="stable")
    small = small[order]
    means = small.mean(axis=1)
    quarters = small.reshape(-1, 2, _SIDE // 2, 2, _SIDE // 2, 3).mean(axis=(2, 4)).reshape(-1, 12)

    def of_these(rows: np.ndarray, arrays: np.ndarray, step: int) -> np.ndarray:
        return rows[np.abs(arrays[rows] - arrays[rows + step]).mean(axis=1) <= _NEAR]

    is_near = np.zeros(len(small), bool)
    for step in range(1, len(small)):
        beside = np.flatnonzero(means[step:] - means[:-step] <= _NEAR)
        if not len(beside):
            break
        near = of_these(of_these(beside, quarters, step), small, step)
        is_near[near] = is_near[near + step] = True
    return int(is_near.sum())
