"""Codes that are there already: of tfhash.serving.encode or bulk, and of a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfhash import exports, npz
from tfhash.codes import validate_codes
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.search import coded_shards


class Coded(NamedTuple):
    """codes: packed uint8 [n, w]; ids; payload: of each; fingerprint: empty where none is known."""

    codes: np.ndarray
    ids: list[str]
    payload: list[Any] | None
    code_length: int
    fingerprint: str


def of_files(path: str) -> Coded:
    """What tfhash.serving.encode writes, or tfhash.serving.bulk. UserError for anything else."""
    if not path.endswith(".parquet"):
        return of_encode(path)
    codes, ids, code_length, fingerprint = coded_shards.read(path)
    return Coded(codes, ids, None, code_length, fingerprint)


def of_encode(path: str | Path) -> Coded:
    """The .npz file that tfhash.serving.encode writes. UserError for another one."""
    try:
        found = npz.read(path, ["codes", "paths", "code_length"])
        code_length = int(found["code_length"])
        codes = validate_codes(found["codes"], code_length)
        everything = npz.read(path)
    except (ValueError, TypeError) as error:
        raise UserError(f"`codes`: {shown(path)}: {error}") from None
    fingerprint = str(everything.get("fingerprint", ""))
    return Coded(codes, [*map(str, found["paths"])], None, code_length, fingerprint)


def of_run(directory: str | Path) -> Coded:
    """The database of a run folder; the labels of an image are its payload.

    {"label": name} where no image has several, else {"labels": [names]}; {} of none.
    """
    directory = Path(directory)
    path = directory / "codes" / "database.npz"
    try:
        metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
        code_length = int(metrics["code_length"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        where = shown(directory)
        raise UserError(f"`model_dir`: no finished run in {where} ({error})") from None
    try:
        found = npz.read(path, ["codes", "labels", "ids"])
        codes = validate_codes(found["codes"], code_length)
    except ValueError as error:
        raise UserError(f"`model_dir`: {shown(path)}: {error}") from None
    names = metrics.get("class_names") or [str(c) for c in range(found["labels"].shape[1])]
    payload = _labels(found["labels"], names)
    return Coded(codes, [*map(str, found["ids"])], payload, code_length, _fingerprint(directory))


def _labels(rows: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    own = [[names[place] for place in np.flatnonzero(row)] for row in rows]
    if any(len(some) > 1 for some in own):
        return [{"labels": some} for some in own]
    return [{"label": some[0]} if some else {} for some in own]


def _fingerprint(directory: Path) -> str:
    """That of the newest export of a run; empty where it has none."""
    try:
        return exports.describe(exports.newest(directory / "export"))["fingerprint"]
    except UserError:
        return ""
