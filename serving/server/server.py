"""The embedded server: gRPC and REST in front of the models, and the thread that watches files."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.config import model_server_config_pb2

from tfhash.errors import UserError
from tfhash.serving.server import grpc_services, http_server, text_protos
from tfhash.serving.server.batching import BatchLimits, BatchQueue
from tfhash.serving.server.calls import Calls, Limits
from tfhash.serving.server.models import Models
from tfhash.serving.server.rest import RestApi
from tfhash.serving.server.servable import Servable
from tfhash.serving.server.status import RequestError
from tfhash.serving.server.versions import Retries

_MIB = 2**20
_SMALL_CALLS = 256  # at once over gRPC, beside max_concurrent_requests
_CONNECTION_SECONDS = 600  # then clients are asked to open another, which they do unseen
_STOP_SECONDS = 5  # for what a stop itself takes

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How a server listens, what it allows, and how it watches its files.

    Ports: 0 takes a free one for gRPC; None is no REST. Limits: bytes of a message, bytes that one
    TensorProto may ask for; bytes of all messages, and of all that they become; predictions at
    once, and of one address (0: three quarters of these); seconds for a message to come or go, and
    for a request in all. batching: None is none. Seconds between looks at the version folders and
    at model_config_file: 0 looks once.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    rest_api_port: int | None = None
    ssl_config: Any = None  # text_protos.SSLConfig, None for no TLS
    max_message_bytes: int = 64 * _MIB
    max_tensor_bytes: int = 64 * _MIB
    max_held_bytes: int = 512 * _MIB
    max_working_bytes: int = 1536 * _MIB
    max_concurrent_requests: int = 128
    max_requests_per_client: int = 0
    receive_seconds: float = 30.0
    request_seconds: float = 300.0
    threads: int = 4 * (os.cpu_count() or 1)
    batching: BatchLimits | None = None
    as_content: bool = False
    health: bool = True
    warm_up: bool = True
    session_config: config_pb2.ConfigProto | None = None
    retries: Retries = field(default_factory=Retries)
    labels_for_unavailable: bool = False
    poll_seconds: float = 1.0
    model_config_file: str | None = None
    config_poll_seconds: float = 0.0

    @property
    def limits(self) -> Limits:
        most = self.max_concurrent_requests
        return Limits(
            self.max_message_bytes,
            self.max_held_bytes,
            self.max_working_bytes,
            most,
            self.max_requests_per_client or -(-3 * most // 4),
            self.receive_seconds,
            self.request_seconds,
            self.threads,
        )


class Server:
    """Serves models until `stop`. `port` and `rest_port` tell where, once it is made.

    config: the models. Raises UserError for a port that cannot be had, a wrong TLS configuration,
    and for models that TF Serving would refuse at its start.
    """

    def __init__(self, config: model_server_config_pb2.ModelServerConfig, options: Options):
        self.options = options
        self.models = Models(
            self._load, options.retries, labels_for_unavailable=options.labels_for_unavailable
        )
        batching = options.batching
        self._batch_threads = threading.BoundedSemaphore(batching.threads if batching else 1)
        self._stopping = threading.Event()
        self._watchers: list[threading.Thread] = []
        self._http: http_server.HttpServer | None = None
        self._grpc: grpc.aio.Server | None = None
        self.port, self.rest_port = 0, None
        # Of gRPC and REST; what takes longer than a moment is done in other threads.
        self._loop = asyncio.new_event_loop()
        self._looping = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._looping.start()
        try:
            self._calls: Calls = self._on_loop(self._bind())
            self._configure(config)
        except BaseException:
            self.stop(0)
            raise

    def start(self) -> None:
        self._on_loop(self._start())
        if self.options.poll_seconds > 0:
            self._spawn(lambda: self._repeat(self.options.poll_seconds, self.models.poll))
        if self.options.model_config_file and self.options.config_poll_seconds > 0:
            self._spawn(lambda: self._repeat(self.options.config_poll_seconds, self._reread))

    def stop(self, grace: float) -> bool:
        """Takes no more calls, gives those that run `grace` seconds, closes the models.

        Whether nothing is left: work that a call has given up on cannot be broken off.
        """
        self._stopping.set()
        if self._loop.is_closed():
            return True
        all_done = self._on_loop(self._stop(grace))
        for watcher in self._watchers:
            watcher.join(grace)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._looping.join()
        self._loop.close()
        self.models.close()
        return all_done and not any(watcher.is_alive() for watcher in self._watchers)

    async def _start(self) -> None:
        assert self._grpc is not None
        await self._grpc.start()
        if self._http:
            self._http.start()

    async def _stop(self, grace: float) -> bool:
        servers = []
        if self._grpc:
            # After its grace it would cancel calls, which so are answered before.
            servers.append(asyncio.ensure_future(self._grpc.stop(grace + _STOP_SECONDS)))
        if self._http:
            servers.append(asyncio.ensure_future(self._http.stop(grace + _STOP_SECONDS)))
        await asyncio.sleep(0)
        all_done = await self._calls.finish(grace) if hasattr(self, "_calls") else True
        await asyncio.gather(*servers)
        if not hasattr(self, "_calls"):  # the start failed, and what it began still waits
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
        return all_done

    def _on_loop(self, doing: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result()

    def _load(self, name: str, version: int, folder: Path) -> Servable:
        batching = self.options.batching
        servable = Servable(
            name,
            version,
            folder,
            session_config=self.options.session_config,
            max_tensor_bytes=self.options.max_tensor_bytes,
            max_answer_bytes=self.options.max_message_bytes,
            # Of its own: a full queue of another version must not fail the warm-up.
            queue=BatchQueue(batching, self._batch_threads) if batching else None,
        )
        if self.options.warm_up:
            try:
                servable.warm_up(folder)
            except BaseException:
                servable.close()
                raise
        return servable

    def _configure(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        try:
            self.models.configure(config.model_config_list.config)
        except RequestError as error:
            raise UserError(error.message) from None
        self._config = config

    async def _bind(self) -> Calls:
        calls = Calls(self.options.limits)
        self._grpc = self._bind_grpc(calls)
        host, port = self.options.host, self.options.rest_api_port
        if port is not None:
            try:
                listening = http_server.listen(host, port)
            except (OSError, OverflowError) as error:
                raise UserError(
                    f"--rest_api_port: cannot listen on {address_of(host, port)}: {error}"
                ) from None
            self.rest_port = listening.getsockname()[1]
            self._http = http_server.HttpServer(
                RestApi(calls, self.models), listening, self.options.receive_seconds
            )
        return calls

    def _bind_grpc(self, calls: Calls) -> grpc.aio.Server:
        options = self.options
        server = grpc.aio.server(
            maximum_concurrent_rpcs=options.max_concurrent_requests + _SMALL_CALLS,
            options=[
                ("grpc.max_receive_message_length", options.max_message_bytes),
                ("grpc.max_send_message_length", options.max_message_bytes),
                ("grpc.so_reuseport", 0),  # else two servers would share a port, unseen
                # A call whose answer is not taken ends with its connection alone.
                ("grpc.max_connection_age_ms", 1000 * _CONNECTION_SECONDS),
                ("grpc.max_connection_age_grace_ms", int(1000 * options.request_seconds)),
            ],
        )
        server.add_generic_rpc_handlers(
            grpc_services.handlers(
                calls, self.models, as_content=options.as_content, health=options.health
            )
        )
        address = address_of(options.host, options.port)
        try:
            if options.ssl_config is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, _credentials(options.ssl_config))
        except RuntimeError:
            reason = "is it taken?"
            if options.ssl_config is not None:
                reason = "is it taken, or are the key and certificates of --ssl_config_file wrong?"
            raise UserError(f"--port: cannot listen on {address}; {reason}") from None
        return server

    def _reread(self) -> None:
        """Serves what model_config_file lists, where that is not what it listed before."""
        path, kind = self.options.model_config_file, text_protos.ModelServerConfig
        assert path is not None
        config = text_protos.read("model_config_file", path, kind)
        if config != self._config:
            self._configure(config)

    def _spawn(self, target: Callable[[], None]) -> None:
        self._watchers.append(threading.Thread(target=target, daemon=True))
        self._watchers[-1].start()

    def _repeat(self, seconds: float, action: Callable[[], None]) -> None:
        while not self._stopping.wait(seconds):
            try:
                action()
            except (UserError, OSError) as error:
                log.error("%s", error)  # what is served stays served
            except Exception:
                log.exception("watching for new versions")


def address_of(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _credentials(config: Any) -> grpc.ServerCredentials:
    for name in ("server_key", "server_cert"):
        if "-----BEGIN" not in getattr(config, name):
            raise UserError(f"--ssl_config_file: {name} must hold PEM text")
    if config.client_verify and not config.custom_ca:
        raise UserError("--ssl_config_file: client_verify needs custom_ca, PEM text")
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
