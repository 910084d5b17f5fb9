"""Codes, names and payload for tests of an index, and what it has to find."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfhash.search.index import Index

BITS, COUNT = 20, 60


def made(count=COUNT, bits=BITS, seed=0, kinds=9):
    """Codes of which many are the same, and names whose order is not that of the rows."""
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2, (kinds, bits), np.uint8)
    codes = np.packbits(few[rng.integers(0, kinds, count)], axis=1)
    return codes, [f"{n * 37 % 101:03d}é{seed}" for n in range(count)]


def labelled(count=COUNT):
    """Of each a label, a number and lists of none to two; of every fifth nothing."""
    payload = []
    for n in range(count):
        several = [*"abc"[: n % 3]]
        own = {"label": "abc"[n % 3], "n": n, "labels": several, 'odd "name': [several, n % 4]}
        payload.append(None if n % 5 == 4 else own)
    return payload


def brute_force(query, codes, ids, keep=lambda place: True):
    """(distance, id, place) of all items by distance and id: bits counted one by one."""
    distances = np.unpackbits(codes ^ query, axis=1).sum(axis=1)
    return sorted(
        (int(d), i, n) for n, (d, i) in enumerate(zip(distances, ids, strict=True)) if keep(n)
    )


def in_folder(tmp_path) -> Path:
    codes, ids = made()
    Index(codes, ids=ids, code_length=BITS, path=tmp_path / "i").close()
    return tmp_path / "i"
