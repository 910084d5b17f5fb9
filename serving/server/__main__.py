"""Serves exported encoders over the TF Serving API: gRPC and REST.

python -m tfhash.serving.server --model_base_path=DIR/export [--port=8500]
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path

from tfhash.cli import quiet

quiet.start()
# Else TensorFlow keeps what the largest request needed; read when its operations are loaded.
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")

from absl import flags, logging  # noqa: E402
from tensorflow.core.protobuf import config_pb2  # noqa: E402

from tfhash.cli import mains  # noqa: E402
from tfhash.cli.flags import define_path  # noqa: E402
from tfhash.errors import UserError  # noqa: E402

NAME = "tfhash.serving.server"
mains.require(NAME, "serving", "tensorflow_serving", "grpc_health", "uvicorn", "h11")

from tfhash.serving.server import memory, text_protos  # noqa: E402
from tfhash.serving.server.batching import read_limits  # noqa: E402
from tfhash.serving.server.server import Options, Server, address_of  # noqa: E402
from tfhash.serving.server.versions import Retries  # noqa: E402

BANNER = (
    "This is tfhash's embedded server, for laptops and tests. It speaks the TF Serving API but is "
    "not TF Serving; docs/serving.md tells what differs."
)
_GRACE_SECONDS = 10
_LOOK_SECONDS = 0.2
_MIB = 2**20


def define_flags() -> None:
    """TF Serving's flags under their names, then our own."""
    flags.DEFINE_integer("port", 8500, "port of gRPC; 0 takes a free one", 0, 65535)
    flags.DEFINE_integer("rest_api_port", 0, "port of the REST API; 0 for none", 0, 65535)
    flags.DEFINE_string("model_name", "tfhash", "name of the model")
    define_path("model_base_path", None, "folder of its versions, DIR/export")
    define_path("model_config_file", None, "text proto ModelServerConfig: several models")
    flags.DEFINE_float("model_config_file_poll_wait_seconds", 0, "0: read it once", 0)
    flags.DEFINE_float(
        "file_system_poll_wait_seconds", 1, "seconds between looks for new versions; 0: one look", 0
    )
    flags.DEFINE_integer("max_num_load_retries", 5, "of a version that does not load", 0)
    flags.DEFINE_integer("load_retry_interval_micros", 60_000_000, "between these", 0)
    flags.DEFINE_boolean("enable_model_warmup", True, "replay the warm-up records of an export")
    flags.DEFINE_boolean(
        "allow_version_labels_for_unavailable_models", False, "new labels, before the version is up"
    )
    flags.DEFINE_boolean("enable_batching", False, "keep the limits of batching_parameters_file")
    define_path("batching_parameters_file", None, "text proto BatchingParameters")
    define_path("ssl_config_file", None, "text proto SSLConfig: TLS, and mutual TLS")
    flags.DEFINE_boolean("enable_grpc_healthcheck_service", True, "answer grpc.health.v1")
    flags.DEFINE_boolean(
        "enable_serialization_as_tensor_content", False, "answers as bytes, not as *_val fields"
    )
    flags.DEFINE_integer("grpc_max_threads", 4 * (os.cpu_count() or 1), "threads of gRPC", 1)
    for kind in ("session", "intra_op", "inter_op"):
        name = f"tensorflow_{kind}_parallelism"
        flags.DEFINE_integer(name, 0, "threads of TensorFlow; 0 lets it choose", 0)
    # Not in TF Serving.
    flags.DEFINE_string("host", "127.0.0.1", "address to listen on; 0.0.0.0 for all")
    flags.DEFINE_integer("max_message_mib", 64, "largest request and answer", 1, 2047)
    flags.DEFINE_integer("max_tensor_mib", 64, "memory that one input tensor may ask for", 1)
    flags.DEFINE_integer("max_held_mib", 512, "memory for all requests that come or wait", 1)
    flags.DEFINE_integer("max_working_mib", 1536, "memory for all that requests become", 64)
    flags.DEFINE_integer("max_concurrent_requests", 128, "predictions; more are refused", 1)
    flags.DEFINE_integer(
        "max_requests_per_client",
        0,
        "predictions of one address; 0: three quarters of all. Behind a proxy all have one",
        0,
    )
    flags.DEFINE_float("max_receive_seconds", 30, "for a message to come, and to go", 1)
    flags.DEFINE_float("max_request_seconds", 300, "for a request in all", 1)


def main(argv: list[str]) -> int:
    logging.set_verbosity(logging.INFO)
    config, how = models(), options()  # a mistake is told first, and alone
    stopping = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    memory.give_back_large_blocks()
    try:
        serve(config, how, stopping)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def serve(config: text_protos.ModelServerConfig, how: Options, stopping: threading.Event) -> None:
    """Serves until `stopping` is set, then lets what runs finish."""
    print(BANNER, flush=True)
    server = Server(config, how)
    server.start()
    # TensorFlow's objects are many; looking through them again takes longer than parsing a request.
    gc.freeze()
    secured = "TLS" if server.options.ssl_config else "no TLS"
    host = server.options.host
    print(f"gRPC on {address_of(host, server.port)} ({secured})", flush=True)
    if server.rest_port:
        print(f"REST on http://{address_of(host, server.rest_port)}", flush=True)
    for name, versions in server.models.available().items():
        listed = ", ".join(map(str, versions)) or "none yet"
        print(f"model {name}: version {listed}", flush=True)
    # A signal may reach any thread; the handler runs in this one, once it does something.
    while not stopping.wait(_LOOK_SECONDS):
        pass
    print("stopping", flush=True)
    if not server.stop(_GRACE_SECONDS):
        print("stopped while work was still running", flush=True)
        os._exit(0)  # at its end Python would wait for these threads


def models() -> text_protos.ModelServerConfig:
    """The models that the flags ask for. UserError where they are not there."""
    if flags.FLAGS.model_config_file:
        return text_protos.read(
            "model_config_file", flags.FLAGS.model_config_file, text_protos.ModelServerConfig
        )
    if not flags.FLAGS.model_base_path:
        raise UserError("--model_base_path: needed, or --model_config_file; DIR/export of a run")
    base_path = Path(flags.FLAGS.model_base_path).absolute()
    if not base_path.is_dir():
        raise UserError(f"--model_base_path: no folder {base_path}; allowed: DIR/export of a run")
    config = text_protos.ModelServerConfig()
    config.model_config_list.config.add(
        name=flags.FLAGS.model_name, base_path=str(base_path), model_platform="tensorflow"
    )
    return config


def options() -> Options:
    given = flags.FLAGS
    ssl_config = None
    if given.ssl_config_file:
        kind = text_protos.SSLConfig
        ssl_config = text_protos.read("ssl_config_file", given.ssl_config_file, kind)
    if given.batching_parameters_file and not given.enable_batching:
        raise UserError("--batching_parameters_file: needs --enable_batching")
    if given.max_held_mib < given.max_message_mib:
        raise UserError(
            f"--max_held_mib: {given.max_held_mib} is less than one message may have, "
            f"--max_message_mib, {given.max_message_mib}"
        )
    session = given.tensorflow_session_parallelism
    return Options(
        host=given.host,
        port=given.port,
        rest_api_port=given.rest_api_port or None,
        ssl_config=ssl_config,
        max_message_bytes=given.max_message_mib * _MIB,
        max_tensor_bytes=given.max_tensor_mib * _MIB,
        max_held_bytes=given.max_held_mib * _MIB,
        max_working_bytes=given.max_working_mib * _MIB,
        max_concurrent_requests=given.max_concurrent_requests,
        max_requests_per_client=given.max_requests_per_client,
        receive_seconds=given.max_receive_seconds,
        request_seconds=given.max_request_seconds,
        threads=given.grpc_max_threads,
        batching=(read_limits(given.batching_parameters_file) if given.enable_batching else None),
        as_content=given.enable_serialization_as_tensor_content,
        health=given.enable_grpc_healthcheck_service,
        warm_up=given.enable_model_warmup,
        session_config=config_pb2.ConfigProto(
            intra_op_parallelism_threads=given.tensorflow_intra_op_parallelism or session,
            inter_op_parallelism_threads=given.tensorflow_inter_op_parallelism or session,
        ),
        retries=Retries(given.max_num_load_retries, given.load_retry_interval_micros / 1e6),
        labels_for_unavailable=given.allow_version_labels_for_unavailable_models,
        poll_seconds=given.file_system_poll_wait_seconds,
        model_config_file=given.model_config_file,
        config_poll_seconds=given.model_config_file_poll_wait_seconds,
    )


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
