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
    places.delete_leftovers(
        f"{job.name}-", lambda path: path == errors_of(job) or _count(job, path) is not None
    )
    found = others = 0
    for path in places.siblings(f"{job.name}-"):
        count = _count(job, path)
        if count is None:
            continue
        if count != job.shards:
            raise UserError(
                f"--output: {shown(path)} is one of {count:,} shards, not {job.shards:,}; "
                f"allowed: {shown(job.name)}@{count}.parquet, another name, or without its files"
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
    path = errors_of(job)
    places.write(path, text.getvalue().encode())
    return Total(rows, errors, path)


def errors_of(job: Job) -> str:
    """The path of the list of images without a code."""
    return f"{job.name}-errors.csv"


def _count(job: Job, path: str) -> int | None:
    """Of how many shards the path is one, by its name; None where it is none of this job.

    The shards of codes-big begin with `codes-` too.
    """
    parts = shards.parts_of(path)
    return parts[2] if parts and parts[0] == job.name else None
