"""Watch: what takes too long ends with its error, sooner where somebody waits for its budget."""

from __future__ import annotations

import asyncio

import pytest

from tfhash.serving.server.budget import Budget
from tfhash.serving.server.status import RequestError, invalid
from tfhash.serving.server.watch import Watch

PATIENCE = 30


def too_slow() -> RequestError:
    return invalid("too slow")


async def limited(seconds: float, *budget, **limits) -> str:
    with Watch(0.02).limited(seconds, too_slow, *budget, **limits):
        await asyncio.sleep(PATIENCE if seconds < PATIENCE or budget else 0)
    return "done"


def test_in_time():
    assert asyncio.run(limited(PATIENCE)) == "done"


def test_too_late():
    with pytest.raises(RequestError, match="too slow"):
        asyncio.run(limited(0.02))


def test_somebody_waits_for_the_budget():
    async def run() -> None:
        budget = Budget(1, "flag")
        with budget.take(1, 0):
            waiting = asyncio.ensure_future(budget.hold(1, PATIENCE))
            with pytest.raises(RequestError, match="too slow"):
                await limited(2 * PATIENCE, budget, patience=0.02)
        (await waiting).release()

    asyncio.run(run())


def test_a_cancellation_by_others_is_one():
    async def run() -> None:
        waiting = asyncio.ensure_future(limited(PATIENCE - 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())


def test_the_end_of_all():
    async def run() -> None:
        watch = Watch(PATIENCE)

        async def wait() -> None:
            with watch.limited(PATIENCE, too_slow):
                await asyncio.sleep(PATIENCE)

        waiting = [asyncio.ensure_future(wait()) for _ in range(3)]
        await asyncio.sleep(0)
        watch.end_all(lambda: invalid("the end"))
        for one in waiting:
            with pytest.raises(RequestError, match="the end"):
                await one

    asyncio.run(run())
