"""What a request may use while it runs: time, and memory that all requests share."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import grpc

from tfhash.serving.server.budget import Budget, Hold
from tfhash.serving.server.status import RequestError

UNBOUNDED = Budget(2**62, "max_working_mib")


class Answer(NamedTuple):
    """Bytes to send, and the memory that is theirs until they are sent."""

    content: bytes
    hold: Hold


class Turn:
    """The turn of one request, in the thread that does its work.

    seconds: until its time is up. message: the request, in memory that is `held`. working: the
    memory for what requests become. parsing: held by the one that is being parsed; most_parsed:
    bytes that this may take.
    """

    def __init__(
        self,
        seconds: float = threading.TIMEOUT_MAX,
        message: bytes = b"",
        held: Hold | None = None,
        *,
        working: Budget = UNBOUNDED,
        parsing: threading.Lock | None = None,
        most_parsed: int = 2**62,
    ):
        self._end = time.monotonic() + seconds
        self._held = held
        self._parsing = parsing or threading.Lock()
        self.message = message
        self.working = working
        self.most_parsed = most_parsed
        self.over = threading.Event()  # nobody waits for the answer any more

    def seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """RequestError where the time is up or the client has gone."""
        if self.over.is_set() or not self.seconds_left():
            raise deadline_exceeded()

    def take(self, size: int) -> Hold:
        """Memory for what the request becomes; waits for it as long as there is time."""
        return self.working.take(size, self.seconds_left())

    @contextlib.contextmanager
    def parsing(self) -> Iterator[None]:
        """One request at a time is parsed, until it holds the memory that it becomes.

        The message is not kept after that.
        """
        if not self._parsing.acquire(timeout=self.seconds_left()):
            raise deadline_exceeded()
        try:
            yield
        finally:
            self._parsing.release()
            self.forget()

    def forget(self) -> None:
        """Gives the memory of the message back."""
        self.message = b""
        if self._held:
            self._held.release()


def deadline_exceeded() -> RequestError:
    return RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
