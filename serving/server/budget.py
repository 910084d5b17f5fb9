"""Bytes that all requests share: who asks for more than is left waits for its turn."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent import futures

import grpc

from tfhash.serving.server.status import RequestError

MIB = 2**20


class Budget:
    """`total` bytes, given out in the order in which they are asked for, from any thread.

    flag: the option that sets it, for messages.
    """

    def __init__(self, total: int, flag: str):
        self.total = total
        self._flag = flag
        self._free = total
        self._asked: deque[tuple[int, futures.Future[Hold]]] = deque()
        self._lock = threading.Lock()

    @property
    def contested(self) -> bool:
        """Whether somebody waits."""
        return bool(self._asked)

    def take(self, size: int, seconds: float) -> Hold:
        """Waits up to `seconds`. RequestError RESOURCE_EXHAUSTED after that, or if never."""
        asked = self._ask(size)
        try:
            return asked.result(seconds)
        except futures.TimeoutError:
            self._withdraw(asked)
            raise self._refusal(size) from None

    async def hold(self, size: int, seconds: float) -> Hold:
        """`take` for a coroutine."""
        asked = self._ask(size)
        if asked.done():
            return asked.result()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(asked)
        except TimeoutError:
            self._withdraw(asked)
            raise self._refusal(size) from None
        except BaseException:
            self._withdraw(asked)
            raise

    def _ask(self, size: int) -> futures.Future[Hold]:
        if size > self.total:
            raise RequestError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"this would take {_mib(size)}; the server has {_mib(self.total)} for all requests "
                f"together, by --{self._flag}",
            )
        asked: futures.Future[Hold] = futures.Future()
        with self._lock:
            self._asked.append((size, asked))
        self._serve()
        return asked

    def _serve(self, given_back: int = 0) -> None:
        served = []
        with self._lock:
            self._free += given_back
            while self._asked:
                size, asked = self._asked[0]
                if size > self._free and not asked.cancelled():
                    break
                self._asked.popleft()
                if asked.set_running_or_notify_cancel():
                    self._free -= size
                    served.append((size, asked))
        for size, asked in served:
            asked.set_result(Hold(self, size))

    def _withdraw(self, asked: futures.Future[Hold]) -> None:
        if asked.cancel():
            self._serve()  # it may have been the one that others waited behind
        else:  # it was served at the last moment
            asked.result().release()

    def _refusal(self, size: int) -> RequestError:
        return RequestError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"waited in vain for {_mib(size)}: other requests hold what --{self._flag} allows, "
            f"{_mib(self.total)}",
        )


class Hold:
    """Bytes that a request has; safe to give back from any thread, and more than once.

    As a context it gives them back at the end.
    """

    def __init__(self, budget: Budget, size: int):
        self._budget = budget
        self._size = size
        self._lock = threading.Lock()

    def shrink(self, size: int) -> None:
        """Gives back what is more than `size`."""
        with self._lock:
            more, self._size = max(0, self._size - size), min(self._size, size)
        if more:
            self._budget._serve(more)

    def release(self) -> None:
        self.shrink(0)

    def handed_over(self, size: int) -> Hold:
        """`size` of the bytes, for another to give back; the others stay here."""
        with self._lock:
            kept, self._size = min(size, self._size), self._size - min(size, self._size)
        return Hold(self._budget, kept)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"
