"""The embedded server: gRPC and REST in front of the models, and the thread that watches files."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from tfhash.errors import UserError
from tfhash.serving.server import rest, text_protos
from tfhash.serving.server.batching import BatchLimits, BatchQueue
from tfhash.serving.server.grpc_services import ModelService, PredictionService
from tfhash.serving.server.models import Models
from tfhash.serving.server.servable import Servable
from tfhash.serving.server.status import RequestError
from tfhash.serving.server.versions import Retries

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How a server listens, what it allows, and how it watches its files.

    Ports: 0 takes a free one for gRPC; None is no REST. Limits: bytes of a message, bytes that one
    TensorProto may ask for, calls at once of gRPC and of REST. batching: None is none.
    Seconds between looks at the version folders and at model_config_file: 0 looks once.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    rest_api_port: int | None = None
    ssl_config: Any = None  # text_protos.SSLConfig, None for no TLS
    max_message_bytes: int = 64 * 2**20
    max_tensor_bytes: int = 64 * 2**20
    max_concurrent_requests: int = 128
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
        self._rest = None
        self._grpc, self.port = self._bind_grpc()
        try:
            if options.rest_api_port is not None:
                self._rest = self._bind_rest()
            self._configure(config)
        except BaseException:
            self.stop(0)
            raise

    @property
    def rest_port(self) -> int | None:
        return self._rest.server_port if self._rest else None

    def start(self) -> None:
        self._grpc.start()
        if self._rest:
            self._spawn(self._rest.serve_forever)
        if self.options.poll_seconds > 0:
            self._spawn(lambda: self._repeat(self.options.poll_seconds, self.models.poll))
        if self.options.model_config_file and self.options.config_poll_seconds > 0:
            self._spawn(lambda: self._repeat(self.options.config_poll_seconds, self._reread))

    def stop(self, grace: float) -> None:
        """Takes no more calls, gives those that run `grace` seconds, closes the models."""
        self._stopping.set()
        if self._rest and self._watchers:
            self._rest.shutdown()
        stopped = self._grpc.stop(grace)
        if self._rest:
            self._rest.server_close()
            self._rest.drain(grace)
        stopped.wait()
        for watcher in self._watchers:
            watcher.join(grace)
        self.models.close()

    def _load(self, name: str, version: int, folder: Path) -> Servable:
        batching = self.options.batching
        servable = Servable(
            name,
            version,
            folder,
            session_config=self.options.session_config,
            max_tensor_bytes=self.options.max_tensor_bytes,
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

    def _bind_grpc(self) -> tuple[grpc.Server, int]:
        options = self.options
        server = grpc.server(
            futures.ThreadPoolExecutor(options.threads, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=options.max_concurrent_requests,
            options=[
                ("grpc.max_receive_message_length", options.max_message_bytes),
                ("grpc.max_send_message_length", options.max_message_bytes),
                ("grpc.so_reuseport", 0),  # else two servers would share a port, unseen
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self.models, as_content=options.as_content), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self.models), server
        )
        if options.health:
            servicer = health.HealthServicer()
            servicer.set("", health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        address = f"{options.host}:{options.port}"
        try:
            if options.ssl_config is None:
                return server, server.add_insecure_port(address)
            return server, server.add_secure_port(address, _credentials(options.ssl_config))
        except RuntimeError:
            reason = "is it taken?"
            if options.ssl_config is not None:
                reason = "is it taken, or are the key and certificates of --ssl_config_file wrong?"
            raise UserError(f"--port: cannot listen on {address}; {reason}") from None

    def _bind_rest(self) -> rest.RestServer:
        host, port = self.options.host, self.options.rest_api_port
        assert port is not None
        try:
            return rest.RestServer(
                host,
                port,
                self.models,
                max_body_bytes=self.options.max_message_bytes,
                max_concurrent=self.options.max_concurrent_requests,
            )
        except (OSError, OverflowError) as error:
            raise UserError(f"--rest_api_port: cannot listen on {host}:{port}: {error}") from None

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
