"""Several processes that train one model: who they are, how they meet, and what if one is gone.

TensorFlow's TF_CONFIG says who they are. All learn from their part of each batch and hold the same
weights; the first one alone writes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from tfhash.errors import NotNowError, UserError

KINDS = ("chief", "worker")
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
# What an operation raises whose other side is gone, or does not answer.
_GONE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnavailableError,
)
_OF_COLLECTIVES = "Collective ops is aborted"  # an InternalError or UnknownError says it too


@dataclass(frozen=True)
class Cluster:
    """The workers of a job, and which of them this process is.

    addresses: host:port of each, by their kind, `chief` or `worker`; kind, index: of this one.
    """

    addresses: Mapping[str, list[str]]
    kind: str
    index: int

    @property
    def address(self) -> str:
        """Where this process listens."""
        return self.addresses[self.kind][self.index]

    @property
    def count(self) -> int:
        """How many processes there are."""
        return sum(map(len, self.addresses.values()))

    @property
    def first(self) -> str:
        """The kind that has the first process, as its number 0."""
        return "chief" if "chief" in self.addresses else "worker"

    @property
    def is_first(self) -> bool:
        """Whether this process writes for all of them."""
        return (self.kind, self.index) == (self.first, 0)


def read_cluster(text: str | None) -> Cluster:
    """What TF_CONFIG says. UserError, with what came and what is allowed, where it cannot be."""
    if not text:
        raise _refused("missing")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _refused(f"no JSON ({error}): {text[:200]}") from None
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not cluster.get("worker", cluster.get("chief")):
        raise _refused(f"no workers in its cluster: {text[:200]}")
    for job, addresses in cluster.items():
        if job not in KINDS:
            raise _refused(f"{job!r} in its cluster; allowed there: {', '.join(KINDS)}")
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            raise _refused(f"{job}: {json.dumps(addresses)}; allowed: a list of host:port")
    all_addresses = [address for addresses in cluster.values() for address in addresses]
    if len(cluster.get("chief", [0])) != 1 or len(set(all_addresses)) != len(all_addresses):
        raise _refused("two chiefs, or one address twice")
    task = config.get("task")
    kind: Any = task.get("type") if isinstance(task, dict) else None
    if kind not in cluster:
        raise _refused(f"task {json.dumps(task)}; allowed as its type: {', '.join(cluster)}")
    index, most = task.get("index"), len(cluster[kind]) - 1
    if type(index) is not int or not 0 <= index <= most:
        raise _refused(f"task index {json.dumps(index)}; allowed for a {kind}: 0 to {most}")
    return Cluster(cluster, kind, index)


def _is_address(address: Any) -> bool:
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


def _refused(what: str) -> UserError:
    return UserError(
        f"TF_CONFIG: {what}; `strategy`=multi_worker needs who the workers are, such as {_EXAMPLE}"
    )


def meet(wait: float) -> tf.distribute.Strategy:
    """The strategy of the workers of TF_CONFIG, once all of them are there.

    To be called before the first operation of the process. wait: seconds for the others to come.
    UserError where TF_CONFIG cannot be, NotNowError where they do not come in time or this worker's
    port is not free.
    """
    cluster = read_cluster(os.environ.get("TF_CONFIG"))
    jobs = [
        coordination_config_pb2.CoordinatedJob(name=kind, num_tasks=len(addresses))
        for kind, addresses in cluster.addresses.items()
    ]
    # No public function sets these. Without them the first worker waits for ever, in a call that
    # lets no other thread of Python run.
    context.context().configure_coordination_service(
        "standalone",
        service_leader=f"/job:{cluster.first}/replica:0/task:0",
        cluster_register_timeout_in_ms=round(1000 * wait),
        coordinated_jobs=jobs,
    )
    context.context().coordination_service.cluster_register_with_barrier = True
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3":  # as `tfhash.cli.quiet` sets it
        tf.get_logger().setLevel("WARNING")  # else each collective operation has its line
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.UnknownError as error:
        raise NotNowError(
            f"TF_CONFIG: this worker cannot listen at {cluster.address} ({_first_line(error)}); "
            "allowed: a port of this machine that is free"
        ) from None
    except tf.errors.OpError as error:
        raise NotNowError(
            f"TF_CONFIG: not all {cluster.count} workers came within {wait:g} s "
            f"(`worker_wait`), seen from {cluster.kind} {cluster.index} ({_first_line(error)}); "
            "the same command on all of them goes on from the last checkpoint"
        ) from None
    if threading.current_thread() is threading.main_thread():
        # TensorFlow took SIGTERM, to tell of a machine that is soon to go, and nothing asks it.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
    return strategy


@contextlib.contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """NotNowError where another worker is gone meanwhile, and so what was asked of it."""
    try:
        yield
    except tf.errors.OpError as error:
        of_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        if not of_workers or not (isinstance(error, _GONE) or _OF_COLLECTIVES in str(error)):
            raise
        raise NotNowError(
            f"another worker is gone ({_first_line(error)}); "
            "the same command on all of them goes on from the last checkpoint"
        ) from None


def check_same(strategy: tf.distribute.Strategy, what: str, value: Any) -> None:
    """Waits for all workers of a strategy. UserError where they do not have the same value.

    what: it is, for the error; value: of which repr tells all. With one process there is nothing to
    wait for.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    digest = hashlib.sha256(repr(value).encode()).digest()
    own = tf.constant([int.from_bytes(digest[:7])], tf.int64)
    found = _gather(strategy)(own).numpy()
    if (found != found[0]).any():
        raise UserError(
            f"the workers differ in {what}; allowed: the same flags and data, and one `model_dir` "
            "in a folder that they share"
        )


@functools.cache
def _gather(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """What a tensor is on all workers, one after the other; only within a graph can they gather."""
    return tf.function(lambda own: strategy.gather(own, axis=0))


def _first_line(error: tf.errors.OpError) -> str:
    """Of what an operation says the words that tell most, without its place in a graph."""
    lines = [line.strip().rpartition("}} ")[2] for line in str(error.message).splitlines()]
    told = [line for line in lines if line and not line.startswith(("[[", "File ", "Additional"))]
    of_collectives = [line for line in told if _OF_COLLECTIVES in line]
    return (of_collectives or told or [type(error).__name__])[0][:200]
