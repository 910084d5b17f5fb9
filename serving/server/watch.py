"""Ends what takes too long: a look at all that waits, a few times a second; no timer for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tfhash.serving.server.budget import Budget
from tfhash.serving.server.status import RequestError

_MOST_SECONDS = 0.5  # between two looks


@dataclass(eq=False)
class _Wait:
    task: asyncio.Task
    end: float
    early_end: float  # once somebody waits for `budget`
    budget: Budget | None
    error: Callable[[], RequestError]
    ended: bool = False


class Watch:
    """Of the running event loop. seconds: the shortest limit that matters."""

    def __init__(self, seconds: float):
        self._loop = asyncio.get_running_loop()
        self._waits: set[_Wait] = set()
        self._looking = self._loop.create_task(self._look(min(seconds / 4, _MOST_SECONDS)))

    @contextlib.contextmanager
    def limited(
        self,
        seconds: float,
        error: Callable[[], RequestError],
        budget: Budget | None = None,
        patience: float = 0.0,
    ) -> Iterator[None]:
        """What is awaited inside ends with `error` after so many seconds.

        Already after `patience` where somebody waits for the budget.
        """
        task, now = asyncio.current_task(), self._loop.time()
        assert task is not None
        wait = _Wait(task, now + seconds, now + patience, budget, error)
        self._waits.add(wait)
        try:
            yield
        except asyncio.CancelledError:
            if not wait.ended:
                raise
            task.uncancel()
            # Made here, and kept nowhere: its traceback holds what has come of a message.
            raise wait.error() from None
        finally:
            self._waits.discard(wait)

    def end_all(self, error: Callable[[], RequestError]) -> None:
        """Ends all that waits now, and looks no more."""
        self._looking.cancel()
        for wait in list(self._waits):
            wait.error = error
            self._end(wait)

    async def _look(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            now = self._loop.time()
            for wait in list(self._waits):
                contested = wait.budget is not None and wait.budget.contested
                if now >= wait.end or contested and now >= wait.early_end:
                    self._end(wait)

    def _end(self, wait: _Wait) -> None:
        if not wait.ended:
            wait.ended = True
            wait.task.cancel()
