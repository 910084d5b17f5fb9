"""Budget: never more than its total is out, first come first served, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent import futures

import pytest

from tfhash.serving.server.budget import Budget, Hold
from tfhash.serving.server.status import RequestError

PATIENCE = 30
MIB = 2**20


def test_what_is_left_is_given_at_once():
    budget = Budget(10, "flag")
    first, second = budget.take(6, 0), budget.take(4, 0)
    assert not budget.contested
    first.release()
    first.release()  # once more gives nothing more back
    second.shrink(1)
    assert budget.take(9, 0)
    with pytest.raises(RequestError):
        budget.take(1, 0)


@pytest.mark.parametrize("sync", [True, False])
def test_waiting_in_vain(sync):
    budget = Budget(3 * MIB, "max_working_mib")
    budget.take(2 * MIB, 0)
    with pytest.raises(RequestError) as raised:
        if sync:
            budget.take(2 * MIB, 0.01)
        else:
            asyncio.run(budget.hold(2 * MIB, 0.01))
    assert raised.value.code.name == "RESOURCE_EXHAUSTED"
    assert raised.value.message == (
        "waited in vain for 2.0 MiB: other requests hold what --max_working_mib allows, 3.0 MiB"
    )
    assert not budget.contested
    assert budget.take(MIB, 0)  # who gave up stands in nobody's way


def test_who_gives_up_lets_the_next_one_in():
    """40 are left: too few for the first, enough for the second."""
    budget = Budget(100, "flag")
    budget.take(60, 0)

    async def both() -> list:
        waiting = budget.hold(50, 0.01), budget.hold(30, 5)
        return await asyncio.gather(*waiting, return_exceptions=True)

    gave_up, hold = asyncio.run(both())
    assert isinstance(gave_up, RequestError) and isinstance(hold, Hold)


def test_more_than_there_ever_is():
    with pytest.raises(RequestError, match=r"2.0 MiB; the server has 1.0 MiB .* by --flag"):
        Budget(MIB, "flag").take(2 * MIB, PATIENCE)


def test_first_come_first_served():
    """A small one does not pass a large one, which else might wait for ever."""
    budget = Budget(10, "flag")
    hold = budget.take(5, 0)
    with futures.ThreadPoolExecutor(2) as pool:
        large = pool.submit(budget.take, 10, PATIENCE)
        while not budget.contested:
            pass
        small = pool.submit(budget.take, 1, PATIENCE)
        hold.release()
        taken = large.result()
        assert not small.done()
        taken.release()
        small.result()


def test_a_part_that_is_handed_over():
    budget = Budget(10, "flag")
    with budget.take(10, 0) as hold:
        handed = hold.handed_over(3)
    assert budget.take(7, 0)
    with pytest.raises(RequestError):
        budget.take(1, 0)
    handed.release()
    budget.take(3, 0)


def test_a_cancelled_coroutine_gives_back_what_it_gets():
    budget = Budget(1, "flag")

    async def cancel() -> None:
        hold = budget.take(1, 0)
        waiting = asyncio.ensure_future(budget.hold(1, PATIENCE))
        await asyncio.sleep(0)
        hold.release()  # it is given to the one that waits
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancel())
    assert budget.take(1, 0)


def test_many_threads():
    budget, out, most, lock = Budget(100, "flag"), [0], [0], threading.Lock()

    def work(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(200):
            size = choose.randrange(1, 101)
            with budget.take(size, PATIENCE):
                with lock:
                    out[0] += size
                    most[0] = max(most[0], out[0])
                with lock:
                    out[0] -= size

    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert most[0] <= 100
    assert budget.take(100, 0)
