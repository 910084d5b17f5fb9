"""Codes in shards: the Parquet files of tfhash.serving.bulk, as one set of codes."""

from __future__ import annotations

import glob

import numpy as np

from tfhash import shards
from tfhash.codes import validate_codes
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.shards import Facts


def read(pattern: str) -> tuple[np.ndarray, list[str], int, str]:
    """Codes uint8 [n, w], their ids, the code length and the fingerprint of a set of shards.

    pattern: NAME@16.parquet, NAME@*.parquet or what a shell has. Rows without a code are left out.
    UserError where shards are missing, of two sets or models, or damaged.
    """
    paths = sorted(glob.glob(shards.glob_of(pattern, glob.escape)))
    if not paths:
        raise UserError(f"`codes`: no file matches {shown(pattern)}")
    _check_whole(pattern, paths)
    first: Facts | None = None
    codes: list[np.ndarray] = []
    ids: list[str] = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                facts, table = shards.read(file)
            found = [row for row in shards.rows_of(table) if row.code is not None]
            joined = np.frombuffer(b"".join(row.code or b"" for row in found), np.uint8)
            codes.append(validate_codes(joined.reshape(len(found), facts.width), facts.code_length))
        except (OSError, ValueError) as error:
            raise UserError(f"`codes`: {shown(path)}: {error}") from None
        first = first or facts
        if (facts.fingerprint, facts.code_length) != (first.fingerprint, first.code_length):
            raise UserError(
                f"`codes`: {shown(path)} is of model {facts.fingerprint}, {shown(paths[0])} of "
                f"{first.fingerprint}: codes of two models cannot be compared; allowed: run the "
                "command that made them to its end"
            )
        ids += [row.id for row in found]
    assert first
    return np.concatenate(codes), ids, first.code_length, first.fingerprint


def _check_whole(pattern: str, paths: list[str]) -> None:
    """UserError where a shard is missing, or not all are of one set."""
    sets: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        parts = shards.parts_of(path)
        if parts is None:
            raise UserError(f"`codes`: {shown(path)} is no shard; allowed: {shards.ALLOWED}")
        name, shard, count = parts
        sets.setdefault((name, count), set()).add(shard)
    if len(sets) > 1:
        names = ", ".join(shown(f"{name}@{count}.parquet") for name, count in sorted(sets)[:3])
        raise UserError(f"`codes`: {shown(pattern)} matches {names}; allowed: one of them")
    ((name, count),) = sets
    missing = sorted(set(range(count)) - sets[name, count])
    if missing:
        path = shown(shards.path_of(name, missing[0], count))
        raise UserError(
            f"`codes`: {len(missing):,} of {count:,} shards are missing, such as {path}; run "
            "again, the command that makes them goes on where it stopped"
        )
