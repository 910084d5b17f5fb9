"""The shards of a job as a whole: what is there before, and what is told of them afterwards."""

from __future__ import annotations

import csv
import io
from typing import NamedTuple

from tfhash import shards
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.serving.bulk import places
from tfhash.serving.bulk.making import Job


class Existing(NamedTuple):
    """How many shards are there, and how many of these are of another model."""

    shards: int
    others: int


class Total(NamedTuple):
    """Rows in all shards, those without a code, and the path of the list of the latter."""

    rows: int
    errors: int
    listed: str


def prepare(job: Job) -> Existing:
    """Makes the folder and clears it of what killed writers left.

    UserError where shards of another number lie there under the same name, or of the same model by
    another engine, or files of another kind where shards would be written.
    """
    places.make_folder(job.name, "output")
    places.delete_leftovers(f"{job.name}-")
    found = others = 0
    for path in places.siblings(f"{job.name}-"):
        parts = shards.parts_of(path)
        if parts is None or parts[0] != job.name:
            continue
        if parts[2] != job.shards:
            raise UserError(
                f"--output: {shown(path)} is one of {parts[2]:,} shards, not {job.shards:,}; "
                f"allowed: {shown(job.name)}@{parts[2]}.parquet, another name, or without its files"
            )
        try:
            with places.open_to_read(path) as file:
                facts = shards.read_facts(file)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--output: {shown(path)}: {error}; allowed: another name, or without that file"
            ) from None
        found += 1
        if (facts.fingerprint, facts.code_length) != (
            job.model.fingerprint,
            job.model.code_length,
        ):
            others += 1
        elif facts.engine != job.model.engine:
            raise UserError(
                f"--output: {shown(path)} is of --engine={facts.engine}, not {job.model.engine}, "
                f"whose codes may differ in some bits; allowed: --engine={facts.engine}, another "
                "name, or without its files"
            )
    return Existing(found, others)


def finish(job: Job) -> Total:
    """Lists the images without a code in NAME-errors.csv, by id: columns id, error."""
    rows = errors = 0
    listed: list[tuple[str, str]] = []
    for shard in range(job.shards):
        path = shards.path_of(job.name, shard, job.shards)
        with places.open_to_read(path) as file:
            facts = shards.read_facts(file)
            rows, errors = rows + facts.rows, errors + facts.errors
            if facts.errors:
                file.seek(0)
                _, table = shards.read(file)
                bad = (row for row in shards.rows_of(table) if row.code is None)
                listed += [(row.id, row.error or "") for row in bad]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("id", "error"), *sorted(listed)])
    path = f"{job.name}-errors.csv"
    places.write(path, text.getvalue().encode())
    return Total(rows, errors, path)
