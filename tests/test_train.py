"""Which of several processes writes the run folder."""

import json

import pytest

from tfhash.train import _is_first_process

WORKERS = {"worker": ["a:1", "b:1"]}


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "first"),
    [
        (WORKERS, "worker", 0, True),
        (WORKERS, "worker", 1, False),
        (WORKERS | {"chief": ["c:1"]}, "chief", 0, True),
        (WORKERS | {"chief": ["c:1"]}, "worker", 0, False),
    ],
)
def test_the_chief_writes_or_the_first_worker_where_there_is_none(cluster, kind, index, first):
    config = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    assert _is_first_process(config) is first


@pytest.mark.parametrize("nothing", [None, "", "{}"])
def test_a_process_alone_writes(nothing):
    assert _is_first_process(nothing)
