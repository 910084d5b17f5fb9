"""Given descriptors, e.g. NUS-WIDE's bags of 500 visual words: a matrix with a row an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tfhash import names, npz
from tfhash.errors import UserError

_CHUNK = 4096  # rows at a time


def read(
    path: str | Path, ids: Sequence[str], empty: Callable[..., np.ndarray] = np.empty
) -> np.ndarray:
    """The descriptors of images, float32 [n, F], in the order of their ids.

    path: an .npz file with `ids`, m strings, and `features`, numbers [m, F]; rows of other images
    are passed over. empty: what makes the answer, as np.empty does, e.g. `Storage.empty`. The
    file's own array is held while it is read. UserError, naming the flag, for a file that is none,
    holds an id twice or a value that is not finite, or lacks an image, with their number.
    """
    try:
        arrays = npz.read(path, ("ids", "features"))
        known, features = arrays["ids"].astype(str), arrays["features"]
    except ValueError as error:
        raise UserError(
            f"`features_file`={path}: {error}; allowed: an .npz file with ids and features"
        ) from None
    if features.ndim != 2 or features.dtype.kind not in "fiu" or known.shape != features.shape[:1]:
        raise UserError(
            f"`features_file`={path}: features {features.dtype} {list(features.shape)} and ids "
            f"{list(known.shape)}; allowed: numbers [m, F] and m strings"
        )
    row_of = {id_: row for row, id_ in enumerate(known.tolist())}
    if repeated := len(known) - len(row_of):
        raise UserError(f"`features_file`={path}: {repeated} ids stand there twice")
    ids = list(map(names.finder(row_of), ids))
    missing = [id_ for id_ in ids if id_ not in row_of]
    if missing:
        raise UserError(
            f"`features_file`={path}: no row for {len(missing)} of {len(ids)} images, the first is "
            f"{missing[0]}"
        )
    rows, bad = [row_of[id_] for id_ in ids], 0
    answer = empty((len(ids), features.shape[1]), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = answer[start : start + _CHUNK]
        part[:] = features[rows[start : start + _CHUNK]]
        bad += int((~np.isfinite(part)).any(axis=1).sum())
    if bad:
        raise UserError(f"`features_file`={path}: {bad} rows hold values that are not finite")
    return answer
