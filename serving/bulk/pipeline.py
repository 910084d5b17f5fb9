"""The pipeline: what is there to encode, by shards, and a worker that makes each shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from tfhash.serving.bulk.inputs import Item
from tfhash.serving.bulk.making import Counts, Job, Making, shard_of
from tfhash.serving.local import Tally

METRICS = "tfhash.bulk"
_COUNTS = ("images", "read", "encoded", "unchanged", "bad")
# Those of `local.Tally`, which are of what was encoded.
_TIMED = {name: f"timed_{name}" if name == "images" else name for name in Tally.names()}
NAMES = (*_COUNTS, "shards_made", "shards_finished", *_TIMED.values())


def tally_of(counted: Mapping[str, int]) -> Tally:
    """What all workers saw, from the counters NAMES; of none nothing."""
    return Tally(**{name: counted.get(counter, 0) for name, counter in _TIMED.items()})


def add_to(pipeline: beam.Pipeline, job: Job) -> None:
    """Adds the steps of a job. What they count are the counters NAMES of METRICS.

    What goes from worker to worker are names and sizes; no image does, and no code.
    """
    every_shard = pipeline | "Shards" >> beam.Create(range(job.shards))
    drafts = (
        pipeline
        | "Input" >> beam.Create([0])
        | "Find" >> beam.ParDo(_Find(job))
        | "Share the reading" >> beam.Reshuffle()
    )
    items = drafts | "Look at each" >> beam.ParDo(_LookAt(job))
    (
        # A shard that no image is of has to be made too: it may hold images that are gone.
        (items, every_shard | "No image" >> beam.Map(_alone))
        | beam.Flatten()
        | "By shard" >> beam.GroupByKey()
        | "Make the shard" >> beam.ParDo(_MakeShard(job))
        # Nobody needs what comes behind; but Beam's local runner notices the death of a worker only
        # where it waits for what the worker passes on, and waits for ever else.
        | "Made" >> beam.Reshuffle()
    )


def _alone(shard: int) -> tuple[int, Any]:
    return shard, None


class _Find(beam.DoFn):
    def __init__(self, job: Job):
        self._source = job.source

    def process(self, element: Any) -> Iterator[Any]:
        # Plain tuples, which Beam writes without pickle.
        yield from map(tuple, self._source.find())


class _LookAt(beam.DoFn):
    def __init__(self, job: Job):
        self._source, self._shards = job.source, job.shards

    def process(self, element: Any) -> Iterator[tuple[int, Any]]:
        for item in self._source.items(Item(*element)):
            yield shard_of(item.id, self._shards), tuple(item)


class _MakeShard(beam.DoFn):
    def __init__(self, job: Job):
        self._job = job
        self._shared = Shared()  # one model a process, however many threads work in it
        self._model: Any = None
        self._counters = {name: Metrics.counter(METRICS, name) for name in NAMES}

    def process(self, element: tuple[int, Iterable[Any]]) -> Iterator[int]:
        shard, values = element
        items = (Item(*value) for value in values if value is not None)
        making = Making(self._job, shard, self._encoder)
        self._count(making.run(items), making.tally)
        yield shard

    def _encoder(self) -> Any:
        self._model = self._model or self._shared.acquire(self._job.model.load)
        return self._model

    def _count(self, counts: Counts, tally: Tally) -> None:
        for name in _COUNTS:
            self._counters[name].inc(getattr(counts, name))
        for name, counter in _TIMED.items():
            self._counters[counter].inc(getattr(tally, name))
        self._counters["shards_finished" if counts.finished else "shards_made"].inc()
