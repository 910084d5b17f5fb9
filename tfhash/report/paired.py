"""Differences of two methods on the same splits, which tell more than two means do."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from scipy import stats

from tfhash.errors import UserError
from tfhash.report.rows import Result, Row, Section


class Difference(NamedTuple):
    """The mean over splits of one method's measure minus another's.

    half: half the width of the 95 % interval of Student's t; None of a single split.
    """

    mean: float
    half: float | None
    splits: int


def difference(result: Result, reference: Result, key: str) -> Difference | None:
    """`result` minus `reference` on the splits that both have; None where there is none.

    None too where they are judged by other conventions, or other orders of ties. key: of
    metrics.json. A split is a seed with its fingerprint.
    """
    ours, theirs = (_by_split(one, key) for one in (result, reference))
    if result.judged_by != reference.judged_by:
        return None
    found = [ours[split] - theirs[split] for split in ours if split in theirs]
    if not found:
        return None
    half = None
    if len(found) > 1:
        quantile = float(stats.t.ppf(0.975, len(found) - 1))
        half = quantile * statistics.stdev(found) / len(found) ** 0.5
    return Difference(statistics.fmean(found), half, len(found))


def reference_row(section: Section, title: str) -> Row | None:
    """The first row of that title, e.g. `ssgah baseline`; None where the section has none."""
    return next((row for row in section.rows if row.title == title), None)


def check_title(sections: Any, title: str) -> None:
    """UserError where no section has a row of that title."""
    titles = dict.fromkeys(row.title for section in sections for row in section.rows)
    if title not in titles:
        raise UserError(f"--against: {title!r}; allowed: {', '.join(titles)}")


def _by_split(result: Result, key: str) -> dict[Any, float]:
    return {
        (run.get("seed"), run.get("split_fingerprint")): run[key]
        for run in result.runs
        if run.get(key) is not None
    }
