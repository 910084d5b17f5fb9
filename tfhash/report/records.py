"""Results as flat records, for other programs: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfhash.report.rows import GRADED, Result, Row, Section


def record(section: Section, row: Row, result: Result) -> dict[str, Any]:
    """One experiment at one code length, flat, for other programs; None is not known.

    mean, sd and n are of `measure`, a key of metrics.json, over the runs; sd divides by n - 1.
    paper is the preferred published number. gap is mean - paper where protocol and method are the
    paper's. not_as_published: what differs from the method's paper, by field; None where the run
    does not tell. `changed_flags` tell the row from the first of its method and variant.
    """
    mean = result.mean(section.measure)
    papers = section.published(result)
    paper = papers[0].map if papers else None
    return {
        "dataset": section.dataset,
        "protocol": section.protocol,
        "row": row.number,
        "method": result["method"],
        "variant": result["variant"],
        "proxy": result["proxy"],
        "name": ", ".join(result.distinct("name")) or None,
        "convention": result.flags["convention"],
        "bits": result["code_length"],
        "measure": section.measure,
        "mean": mean,
        "sd": result.deviation(section.measure),
        "n": len(result.runs),
        "paper": paper,
        "source": papers[0].source if papers else None,
        "gap": mean - paper if mean and paper and section.is_published(result) else None,
        "not_as_published": result["not_as_published"],
        "other_papers": [{"map": other.map, "source": other.source} for other in papers[1:]],
        "seeds": result.values("seed"),
        "fingerprints": result.values("split_fingerprint"),
        **{
            key: result.mean(key)
            for key in ("map", "precision_at100", "precision_radius2", *GRADED, "train_seconds")
        },
        "labels_used": result.distinct("labels_used"),
        "steps": result.distinct("steps"),
        "database_size": result["database_size"],
        "hardware": "; ".join(result.distinct("hardware")) or None,
        "command": result["command"],
        "changed_flags": section.changes(row)[1],
    }


def records(sections: Iterable[Section]) -> list[dict[str, Any]]:
    """The records of all sections, in their order."""
    return [
        record(section, row, result)
        for section in sections
        for row in section.rows
        for result in row.results.values()
    ]


def to_csv(flat: Sequence[Mapping[str, Any]]) -> str:
    """The records as CSV (RFC 4180) with a header; a list or an object in a cell is JSON.

    A name that is no UTF-8 stands there as its surrogates: `names.encoded` makes its bytes of it.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(flat[0]) if flat else [])
    writer.writeheader()
    for record in flat:
        writer.writerow(
            {
                field: json.dumps(value) if isinstance(value, list | dict) else value
                for field, value in record.items()
            }
        )
    return text.getvalue()


def to_json(flat: Sequence[Mapping[str, Any]]) -> str:
    """The records as a JSON array in ASCII, so of names of any bytes; floats unrounded."""
    return json.dumps(flat, indent=1) + "\n"
