"""What gRPC and REST share: who may call, how long a call may take, and who does its work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from tfhash.serving.server.budget import Budget
from tfhash.serving.server.status import RequestError
from tfhash.serving.server.turn import Answer, Turn, deadline_exceeded
from tfhash.serving.server.watch import Watch

# The largest messages that may be held at once beside the predictions: status, metadata, health.
_SMALL_CALLS = 4
# Seconds that a message may take, to come or to go, once others wait for the memory it has.
_PATIENCE, _SMALL_PATIENCE = 2.0, 0.5
_SMALL_ANSWER = 2**16  # what a connection takes at once
_PARSED = 5  # bytes that a message may become as objects, in units of the largest message
_LEAST_PARSED = 2**20

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Bytes of a message; of those that are held and of what they become, all together.

    Calls at once, of all clients and of one; seconds for a message to come or to go, and for all.
    Worker threads.
    """

    max_message_bytes: int
    max_held_bytes: int
    max_working_bytes: int
    max_concurrent: int
    max_per_client: int
    receive_seconds: float
    request_seconds: float
    threads: int


class Busy(RequestError):
    """More calls at once than are allowed."""

    def __init__(self, message: str):
        super().__init__(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


class Calls:
    """The calls that run. Made on the event loop, whose coroutines these are; work is in threads.

    A prediction waits for memory, for a thread and for the client; the others have their own.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._held = Budget(limits.max_held_bytes, "max_held_mib")
        self._small = Budget(_SMALL_CALLS * limits.max_message_bytes, "max_message_mib")
        self._working = Budget(limits.max_working_bytes, "max_working_mib")
        self._parsing = threading.Lock()
        self._pool = futures.ThreadPoolExecutor(limits.threads, "predict")
        self._small_pool = futures.ThreadPoolExecutor(2, "status")
        self._clients: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._watch = Watch(min(limits.receive_seconds, limits.request_seconds))
        self._at_work = 0

    @contextlib.contextmanager
    def admitted(self, client: str) -> Iterator[None]:
        """Counts a prediction while it runs. RequestError where there are too many."""
        if self._stopping:
            raise stopping()
        for running, most, whose in (
            (self._clients.total(), self.limits.max_concurrent, ""),
            (self._clients[client], self.limits.max_per_client, " of this client"),
        ):
            if running >= most:
                raise Busy(f"{running} requests{whose} are running already")
        self._clients[client] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
            if not self._clients:
                self._idle.set()

    async def predict(
        self,
        receive: Callable[[], Awaitable[bytes]],
        size: int,
        work: Callable[[Turn], Answer],
        seconds: float | None = None,
    ) -> Answer:
        """Receives a message of up to `size` bytes, and has `work` done in a thread.

        seconds: until the client will not wait any longer. Raises RequestError.
        """
        end = self._loop.time() + min(seconds or 1e9, self.limits.request_seconds)
        held = await self._held.hold(size, max(0, end - self._loop.time()))
        try:
            with self._in_transit(self._held, _PATIENCE):
                message = await receive()
        except BaseException:
            held.release()
            raise
        held.shrink(len(message))
        turn = Turn(
            max(0, end - self._loop.time()),
            message,
            held,
            working=self._working,
            parsing=self._parsing,
            most_parsed=max(_PARSED * self.limits.max_message_bytes, _LEAST_PARSED),
        )
        del message  # it is the turn's, to be forgotten
        return await self._in_thread(work, turn)

    async def sent(self, answer: Answer, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Sends an answer and gives its memory back. RequestError where that takes too long."""
        if len(answer.content) <= _SMALL_ANSWER:
            with answer.hold, self._in_transit(self._working, _PATIENCE):
                await send(answer.content)
            return

        def gone(sending: asyncio.Future[None]) -> None:
            answer.hold.release()
            if not sending.cancelled():
                sending.exception()  # of a client that has gone; nobody else asks for it

        # It is in use for as long as the transport has it, which may be longer than one waits.
        sending = asyncio.ensure_future(send(answer.content))
        sending.add_done_callback(gone)
        with self._in_transit(self._working, _PATIENCE):
            await asyncio.shield(sending)

    async def small(self, receive: Callable[[], Awaitable[bytes]]) -> bytes:
        """The message of a call that is no prediction, on memory of its own."""
        held = await self._small.hold(self.limits.max_message_bytes, self.limits.receive_seconds)
        with held, self._in_transit(self._small, _SMALL_PATIENCE):
            return await receive()

    async def small_work(self, work: Callable[..., T], *arguments: Any) -> T:
        """Does something short in a thread that no prediction takes."""
        return await self._loop.run_in_executor(self._small_pool, work, *arguments)

    async def finish(self, grace: float) -> bool:
        """Takes no more calls, gives those that run `grace` seconds; whether no work is left."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace)
        if not self._over.done():
            self._over.set_result(None)
        self._watch.end_all(stopping)
        await asyncio.sleep(0)  # what waits is told
        for pool in (self._pool, self._small_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        return not self._at_work

    async def over(self) -> None:
        """Waits for the end of the server."""
        await asyncio.shield(self._over)

    def _in_transit(
        self, budget: Budget, patience: float
    ) -> contextlib.AbstractContextManager[None]:
        """What takes as long as the client likes: until its time is up, or others wait."""
        return self._watch.limited(self.limits.receive_seconds, too_slow, budget, patience)

    async def _in_thread(self, work: Callable[[Turn], Answer], turn: Turn) -> Answer:
        answer: asyncio.Future[Answer] = self._loop.create_future()

        def run() -> None:
            made, error = None, None
            try:
                turn.check()
                made = work(turn)
            except RequestError as raised:
                # A new one: the traceback keeps what the frames hold, arrays and all.
                error = RequestError(raised.code, raised.message)
            except Exception:
                log.exception("a prediction")
                error = internal()
            turn.forget()
            with contextlib.suppress(RuntimeError):  # the loop of a server that has stopped
                self._loop.call_soon_threadsafe(deliver, made, error)

        def deliver(made: Answer | None, error: RequestError | None) -> None:
            self._at_work -= 1
            if answer.cancelled():
                if made:
                    made.hold.release()
            elif made:
                answer.set_result(made)
            elif error:
                answer.set_exception(error)

        job = self._pool.submit(run)
        self._at_work += 1
        try:
            with self._watch.limited(turn.seconds_left(), deadline_exceeded):
                return await answer
        except BaseException:
            turn.over.set()
            if job.cancel():
                self._at_work -= 1
                turn.forget()
            answer.cancel()
            if not answer.cancelled() and not answer.exception():  # made at the last moment
                answer.result().hold.release()
            raise


def too_slow() -> RequestError:
    return RequestError(
        grpc.StatusCode.DEADLINE_EXCEEDED, "the client took too long over a message"
    )


def internal() -> RequestError:
    return RequestError(grpc.StatusCode.UNKNOWN, "internal error; the server's log tells more")


def stopping() -> RequestError:
    return RequestError(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
