"""batching: who runs, who waits, who is refused, and which parameter files are taken."""

from __future__ import annotations

import os
import queue
import threading

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.serving.server.batching import BatchLimits, BatchQueue, read_limits
from tfhash.serving.server.status import RequestError

PATIENCE = 30
FULL = "The batch scheduling queue to which this task was submitted is full"


def make_queue(max_batch_size: int = 4, max_enqueued: int = 1, threads: int = 2) -> BatchQueue:
    limits = BatchLimits(max_batch_size, max_enqueued, threads)
    return BatchQueue(limits, threading.BoundedSemaphore(threads))


class Tasks:
    """Tasks in threads: `events` tells what became of them; those that run wait for `release`."""

    def __init__(self, *queues: BatchQueue):
        self.events: queue.Queue[str] = queue.Queue()
        self.release = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in queues]
        for thread in self._threads:
            thread.start()

    def _run(self, batch_queue: BatchQueue) -> None:
        try:
            with batch_queue.task({}):
                self.events.put("runs")
                assert self.release.wait(PATIENCE)
        except RequestError as error:
            assert (error.code.name, error.message.startswith(FULL)) == ("UNAVAILABLE", True)
            self.events.put("refused")

    def next(self, count: int) -> list[str]:
        return sorted(self.events.get(timeout=PATIENCE) for _ in range(count))

    def end(self) -> None:
        self.release.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def test_two_run_one_waits_the_others_are_refused():
    batch_queue = make_queue(threads=2, max_enqueued=1)
    for _ in range(2):  # and all over again once they are done
        tasks = Tasks(*[batch_queue] * 10)
        assert tasks.next(9) == ["refused"] * 7 + ["runs"] * 2
        assert tasks.events.empty()
        tasks.end()
        assert tasks.next(1) == ["runs"]


def test_versions_share_the_threads_but_not_the_queue():
    limits, threads = BatchLimits(max_enqueued=1, threads=1), threading.BoundedSemaphore(1)
    old, new = BatchQueue(limits, threads), BatchQueue(limits, threads)
    full = Tasks(*[old] * 3)
    assert full.next(2) == ["refused", "runs"]
    waiting = Tasks(new)
    full.release.set()
    assert waiting.next(1) == ["runs"]
    waiting.end()
    full.end()


def test_a_task_that_fails_frees_its_place():
    batch_queue = make_queue(threads=1, max_enqueued=1)
    for _ in range(5):
        with pytest.raises(KeyError), batch_queue.task({}):
            raise KeyError


@pytest.mark.parametrize("shape", [(), (0,), (4,), (4, 100)])
def test_rows_up_to_the_limit(shape):
    with make_queue(max_batch_size=4).task({"images": np.zeros(shape)}):
        pass


def test_more_rows_than_the_limit():
    inputs = {"a": np.zeros(1), "b": np.zeros((5, 2))}
    batch_queue = make_queue(max_batch_size=4, max_enqueued=1, threads=1)
    for _ in range(5):  # it takes no place either
        with pytest.raises(RequestError) as raised, batch_queue.task(inputs):
            pass
        assert raised.value.code.name == "INVALID_ARGUMENT"
        assert raised.value.message == "Task size 5 is larger than maximum input batch size 4"


@pytest.fixture
def parameters(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "batching_parameters.txt"
        path.write_text(text)
        return str(path)

    return write


def test_limits_of_a_file(parameters):
    text = """
    max_batch_size { value: 32 }  # a comment
    batch_timeout_micros { value: 1000 }
    max_enqueued_batches { value: 100 }
    num_batch_threads { value: 3 }
    thread_pool_name { value: "pool" }
    allowed_batch_sizes: 8
    allowed_batch_sizes: 32
    pad_variable_length_inputs: true
    enable_large_batch_splitting { value: false }
    max_execution_batch_size { value: 8 }
    """
    assert read_limits(parameters(text)) == BatchLimits(32, 100, 3)


def test_defaults_are_tf_servings(parameters):
    expected = BatchLimits(1000, 10, os.cpu_count())
    assert read_limits(None) == read_limits(parameters("")) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size: 32", "max_batch_size"),
        ("max_batch { value: 32 }", 'no field named "max_batch"'),
        ("max_batch_size { value: 0 }", "max_batch_size is 0; at least 1 is allowed"),
        ("max_enqueued_batches { value: -1 }", "max_enqueued_batches is -1; at least 1"),
        ("num_batch_threads { value: 0 }", "num_batch_threads is 0; at least 1 is allowed"),
        ("allowed_batch_sizes: 8", "allowed_batch_sizes is [8]; allowed: increasing, and the last"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [8, 4, 8]", "[8, 4, 8]; allowed"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [8, 8]", "[8, 8]; allowed"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [4]", "the last is max_batch_size, 8"),
    ],
)
def test_wrong_files(parameters, text, words):
    path = parameters(text)
    with pytest.raises(UserError) as raised:
        read_limits(path)
    assert str(raised.value).startswith(f"--batching_parameters_file: {path}: ")
    assert words in str(raised.value)
