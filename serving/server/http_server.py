"""uvicorn as the embedded server needs it: on the loop of gRPC, quiet, its connections bounded."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_BACKLOG = 2048
_MOST_CONNECTIONS = 2000
_QUIET = logging.CRITICAL  # it would write a line for each request that is no HTTP


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; 0 takes a free port. OSError where the address cannot be had."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


class HttpServer:
    """Serves an ASGI application on a socket. seconds: for a head of a request to come.

    application: takes a fourth argument, which drops the connection at once.
    """

    def __init__(self, application: Callable, listening: socket.socket, seconds: float):
        config = uvicorn.Config(
            application,
            http=partial(_Connection, seconds),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            interface="asgi3",
            backlog=_BACKLOG,
            timeout_keep_alive=max(1, round(seconds)),
            log_config=None,
            log_level=_QUIET,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._listening = listening
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._serving = asyncio.ensure_future(self._server.serve([self._listening]))

    async def stop(self, grace: float) -> None:
        """Closes what is idle, gives requests `grace` seconds."""
        if self._serving is None:
            self._listening.close()
            return
        self._server.config.timeout_graceful_shutdown = grace  # type: ignore[assignment]
        self._server.should_exit = True
        await self._serving


class _Connection(H11Protocol):
    """A connection on which the head of the next request must come in time."""

    def __init__(self, seconds: float, **options: Any):
        super().__init__(**options)
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self.app = partial(self.app, abort=self._abort)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            self._abort()
        # Else an answer waits 40 ms between its head and its body.
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._await_head()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """As JSON, as all other answers are."""
        content = json.dumps({"error": msg}).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            ("Connection", "close"),
        ]
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (response, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(self._seconds, self._expire, self.cycle)

    def _expire(self, before: object) -> None:
        if self.cycle is before:  # no request has begun since
            self._abort()

    def _abort(self) -> None:
        # Else the system would go on sending what it has, as slowly as the client likes.
        connected = self.transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
