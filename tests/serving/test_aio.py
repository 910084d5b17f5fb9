"""AsyncHashClient against the same service as HashClient, for what asyncio makes different."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.serving import AsyncHashClient, errors


def images(values) -> np.ndarray:
    """[n, 2, 3, 3] with these first bytes; the fake's codes are (value, 0xF0)."""
    array = np.full([len(values), 2, 3, 3], 0xFF, np.uint8)
    array[:, 0, 0, 0] = values
    return array


@pytest.fixture
def run(server):
    """run(use): what the coroutine function `use` makes of a client."""

    async def with_client(use):
        async with AsyncHashClient(server.target, timeout=10, max_batch=4, in_flight=3) as client:
            return await use(client)

    def run(use) -> Any:
        return asyncio.run(with_client(use))

    return run


def test_codes_by_hand(run):
    async def use(client):
        return (
            await client.encode_images(images([0x0A]), bits=True, embedding=True),
            await client.encode_bytes([b"ab", b""], on_error="mask"),
            await client.encode_images(images([])),
        )

    of_images, of_files, of_nothing = run(use)
    assert of_images.code.tolist() == [[0x0A, 0xF0]]
    assert of_images.bits.tolist() == [[0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1]]
    assert of_images.embedding.shape == (1, 12) and of_images.version == 3
    assert of_files.code.tolist() == [[0x61, 0x60], [0, 0]]
    assert of_files.valid.tolist() == [True, False]
    assert of_nothing.code.shape == (0, 2)


def test_many_calls_at_once(run, server):
    server.service.before = lambda number, context: time.sleep(0.02 * (number % 2))

    async def use(client):
        return await asyncio.gather(
            *(client.encode_images(images(range(i, i + 9))) for i in range(8))
        )

    for i, codes in enumerate(run(use)):
        assert codes.code[:, 0].tolist() == list(range(i, i + 9))


@pytest.mark.parametrize("is_async", [True, False])
def test_a_stream_answers_in_order_and_keeps_its_bound(run, server, is_async):
    server.service.before = lambda number, context: time.sleep([0.06, 0.02, 0.03][number % 3])
    read = []

    def batches():
        for i in range(9):
            read.append(i)
            yield images([i])

    async def awaited():
        for batch in batches():
            await asyncio.sleep(0)
            yield batch

    async def use(client):
        answered = []
        async for codes in client.stream(awaited() if is_async else batches()):
            answered.append(int(codes.code[0, 0]))
            assert len(read) <= len(answered) + 3
        return answered

    assert run(use) == list(range(9))
    assert server.service.most_at_once == 3


def test_an_error_says_what_was_asked(run, server):
    def before(number, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the server's\nwords")

    server.service.before = before
    with pytest.raises(errors.InvalidInput) as caught:
        run(lambda client: client.encode_bytes([b"ab"]))
    assert str(caught.value) == (
        f"tfhash, encode_bytes at {server.target}: INVALID_ARGUMENT: the server's words"
    )
    assert len(server.service.requests) == 1
    with pytest.raises(UserError, match="^images: "):
        run(lambda client: client.encode_images(np.zeros([2, 2, 3], np.uint8)))


def test_unavailable_is_retried(run, server):
    def before(number, context):
        if number < 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    server.service.before = before
    assert run(lambda client: client.encode_images(images([7]))).code.tolist() == [[7, 0xF0]]
    assert len(server.service.requests) == 3


def test_a_server_that_is_down_is_told_from_a_slow_one(server):
    released = threading.Event()
    server.service.before = lambda number, context: released.wait(5)

    async def use(target):
        async with AsyncHashClient(target, timeout=0.3) as client:
            await client.encode_images(images([1]))

    with pytest.raises(errors.DeadlineExceeded, match="no answer within 0.3 s"):
        asyncio.run(use(server.target))
    released.set()
    with pytest.raises(errors.Unavailable, match="not reachable within 0.3 s: .*refused"):
        asyncio.run(use("127.0.0.1:1"))


def test_cancelling_reaches_what_is_in_flight(run, server):
    ended = threading.Semaphore(0)

    def before(number, context):
        context.add_callback(ended.release)
        while context.is_active():
            time.sleep(0.01)

    server.service.before = before

    async def use(client):
        stream = client.stream(images([i]) for i in range(9))
        first = asyncio.ensure_future(anext(stream))
        while len(server.service.requests) < 3:
            await asyncio.sleep(0.01)
        assert not ended.acquire(blocking=False)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert all([await asyncio.to_thread(ended.acquire, timeout=5) for _ in range(3)])

    run(use)
    assert len(server.service.requests) == 3


def test_closing_a_stream_cancels_what_is_in_flight(run, server):
    ended = threading.Semaphore(0)

    def before(number, context):
        if server.service.requests[number].inputs["images"].tensor_content[0]:
            context.add_callback(ended.release)
            while context.is_active():
                time.sleep(0.01)

    server.service.before = before

    async def use(client):
        async with aclosing(client.stream(images([i]) for i in range(9))) as stream:
            await anext(stream)
            while len(server.service.requests) < 4:
                await asyncio.sleep(0.01)
            assert not ended.acquire(blocking=False)
        assert all([await asyncio.to_thread(ended.acquire, timeout=5) for _ in range(3)])

    run(use)


def test_metadata_and_readiness(run, server):
    server.service.states = [(3, 20, 0, "")]  # LOADING

    async def use(client):
        with pytest.raises(errors.Unavailable, match="version 3 is LOADING"):
            await client.wait_until_ready(0.3)
        waiting = asyncio.ensure_future(client.wait_until_ready(10))
        await asyncio.sleep(0.05)
        server.service.states = [(3, 30, 0, "")]  # AVAILABLE
        return await waiting, await client.metadata()

    version, metadata = run(use)
    assert version == 3
    assert (metadata.version, metadata.code_length) == (3, 12)


def test_mutual_tls(tls_server, certificate):
    root, key = (path.read_bytes() for path in certificate)

    async def use():
        credentials = grpc.ssl_channel_credentials(root, key, root)
        async with AsyncHashClient(tls_server.target, tls=credentials) as client:
            return await client.encode_images(images([5]))

    assert asyncio.run(use()).code.tolist() == [[5, 0xF0]]


def test_fingerprints(run, server):
    """Told; no longer told by the model that took its place; asked for again with the metadata."""

    async def use(client):
        before = await client.encode_images(images(range(9)))
        server.service.fingerprint = ""
        without = await client.encode_images(images(range(9)))
        empty = await client.encode_images(images([]))
        server.service.fingerprint = "f4"
        metadata = await client.metadata()
        return before, without, empty, metadata, await client.encode_images(images([1]))

    assert [found.fingerprint for found in run(use)] == ["f3", "", "", "f4", "f4"]


def test_a_server_swapped_within_a_call(run, server):
    def swap(number, context):
        server.service.fingerprint = "f4" if number else "f3"

    server.service.before = swap
    with pytest.raises(errors.VersionChanged, match=r"by several models of version \[3\]"):
        run(lambda client: client.encode_images(images(range(8))))


def test_a_call_that_the_server_cancels_is_sent_again(run, server):
    def before(number, context):
        if number == 0:
            context.abort(grpc.StatusCode.CANCELLED, "stopping")

    server.service.before = before
    codes = run(lambda client: client.encode_images(images([7])))
    assert codes.code.tolist() == [[7, 0xF0]]


def test_what_was_cut_off_in_its_answer_is_sent_again(run, server):
    def before(number, context):
        if number == 0:
            context.send_initial_metadata(())
            context.abort(grpc.StatusCode.UNAVAILABLE, "Stream removed (by hand)")

    server.service.before = before
    codes = run(lambda client: client.encode_images(images([7])))
    assert codes.code.tolist() == [[7, 0xF0]]


def test_no_proxy_leads_into_this_machine(run, monkeypatch):
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    codes = run(lambda client: client.encode_images(images([7])))
    assert codes.code.tolist() == [[7, 0xF0]]
