"""HashClient.stream: its order, its bound, its errors."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np
import pytest

from tests.serving.client.by_hand import images
from tfhash.serving import errors


def batches_of(count: int, rows: int = 2) -> list[np.ndarray]:
    return [images(range(i * rows, i * rows + rows)) for i in range(count)]


def test_a_stream_answers_in_order_whatever_ends_first(server, client):
    server.service.before = lambda number, context: time.sleep([0.06, 0.02, 0][number % 3])
    answered = [codes.code[:, 0].tolist() for codes in client.stream(batches_of(10))]
    assert answered == [[2 * i, 2 * i + 1] for i in range(10)]


def test_a_stream_takes_images_and_files_long_and_empty(client):
    batches = [images([1]), images([]), images(range(9)), [b"ab", b""], []]
    answers = list(client.stream(batches, on_error="mask"))
    assert [len(codes) for codes in answers] == [1, 0, 9, 2, 0]
    assert answers[2].code[:, 0].tolist() == list(range(9))
    assert answers[3].valid.tolist() == [True, False]
    assert [codes.code.shape[1] for codes in answers] == [2] * 5


def test_a_stream_is_lazy_and_keeps_its_bound(server, client):
    """Three in flight: when the first answer is out, at most its successor and three are read."""
    read = []

    def batches():
        for i, batch in enumerate(batches_of(12)):
            read.append(i)
            yield batch

    stream = client.stream(batches())
    assert read == []
    server.service.before = lambda number, context: time.sleep(0.03)
    for i, codes in enumerate(stream):
        assert codes.code[0, 0] == 2 * i
        assert len(read) <= i + 1 + 3
    assert server.service.most_at_once == 3  # neither more, nor one after the other


def test_an_error_comes_in_its_turn(server, client):
    """The second request fails at once, the first is slow: its codes come first nevertheless."""

    def before(number, context):
        if server.service.requests[number].inputs["images"].tensor_content[0] == 2:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the second")
        time.sleep(0.1)

    server.service.before = before
    stream = client.stream(batches_of(5))
    assert next(stream).code[:, 0].tolist() == [0, 1]
    with pytest.raises(errors.InvalidInput, match="the second"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_closing_a_stream_cancels_what_is_in_flight(server, client):
    ended = threading.Semaphore(0)

    def before(number, context):
        if server.service.requests[number].inputs["images"].tensor_content[0]:
            context.add_callback(ended.release)
            while context.is_active():
                time.sleep(0.01)

    server.service.before = before
    stream = client.stream(batches_of(9))
    next(stream)
    assert not ended.acquire(timeout=0.1)
    stream.close()
    assert all(ended.acquire(timeout=5) for _ in range(3))  # what was in flight behind the first


# Metadata and status
