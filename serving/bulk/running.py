"""A job is run by a runner of Beam, with options that are Beam's."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    PipelineOptions,
    StandardOptions,
    TypeOptions,
    WorkerOptions,
)
from apache_beam.runners.runner import PipelineState

from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.serving.bulk import pipeline
from tfhash.serving.bulk.making import Job

# They know all of their options; to the others a job server may tell more.
_OF_THIS_MACHINE = ("", "direct", "switchingdirect", "bundlebaseddirect", "fnapi")


class FailedError(RuntimeError):
    """A job that ended before its shards were made; what caused it is its cause."""


def options_of(arguments: Sequence[str], verbose: bool = False) -> PipelineOptions:
    """Beam's options. UserError for a value that is not allowed, and for a name nobody knows.

    verbose: whether workers of this machine tell what they do.
    """
    options = PipelineOptions([*arguments])
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            known = options.get_all_options()
            every = options.get_all_options(retain_unknown_options=True)
    except SystemExit:  # of argparse, after its usage of a hundred lines
        raise UserError(told.getvalue().strip().rpartition("error: ")[2]) from None
    # As Beam reads it: in capitals or not, with the last word or without.
    runner = (options.view_as(StandardOptions).runner or "").lower().removesuffix("runner")
    unknown = sorted(f"--{name}" for name in every.keys() - known.keys())
    if unknown and runner in _OF_THIS_MACHINE:
        raise UserError(
            f"{', '.join(unknown)}: unknown; allowed: the flags that --help tells, and Beam's"
        )
    if runner in _OF_THIS_MACHINE:
        # Without this DirectRunner fetches a binary, Prism, from the Internet, and waits where
        # there is none. It says of triggers, of which there are none here.
        options.view_as(TypeOptions).allow_unsafe_triggers = True
        worker = options.view_as(WorkerOptions)
        if not (verbose or worker.default_sdk_harness_log_level):
            worker.default_sdk_harness_log_level = "CRITICAL"
    return options


def run(options: PipelineOptions, job: Job) -> dict[str, int]:
    """Makes the shards; returns the counters `pipeline.NAMES`, none where the runner has none.

    FailedError, in one line, where the job fails, whatever the reason.
    """
    try:
        made = beam.Pipeline(options=options)
        pipeline.add_to(made, job)
        result = made.run()
        state = result.wait_until_finish()
    except Exception as error:
        raise FailedError(_last_line(error)) from error
    if state is not None and state != PipelineState.DONE:
        raise FailedError(f"its state is {state}")
    try:
        counters = result.metrics().query()["counters"]
    except (AttributeError, NotImplementedError):  # of runners that keep no metrics
        return {}
    counted = dict.fromkeys(pipeline.NAMES, 0)
    for counter in counters:
        if counter.key.metric.namespace == pipeline.METRICS:
            # Some runners tell only of attempts, of which one that failed counts too.
            value = counter.attempted if counter.committed is None else counter.committed
            counted[counter.key.metric.name] += value
    return counted


def _last_line(error: Exception) -> str:
    """What went wrong: a worker's error comes as the text of its whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return shown(text[:500])
