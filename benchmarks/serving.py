"""Times a served encoder over gRPC beside the bare session call, in one run on one machine.

    python benchmarks/serving.py --export_dir=runs/quickstart/export [--size=64] [--seconds=2]
    python benchmarks/serving.py --export_dir=... --target=localhost:8500     # a server that runs

Without --target it starts the embedded server in a process of its own. For each number of images a
request and of requests in flight, the client and the bare call take turns, three each; images/s is
the median turn, the latencies are of all. The images are random, --size pixels a side.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfhash.serving import HashClient

BATCHES, IN_FLIGHT, TURNS = (1, 8, 32, 128), (1, 4, 16), 3
Encode = Callable[[np.ndarray], object]


class Timing(NamedTuple):
    """Images a second, and the seconds that each call took."""

    rate: float
    latencies: np.ndarray


def newest_version(export_dir: Path) -> Path:
    return max(
        (path for path in export_dir.iterdir() if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )


@contextlib.contextmanager
def embedded_server(export_dir: Path) -> Iterator[str]:
    """Its target, once it serves."""
    command = [sys.executable, "-m", "tfhash.serving.server", "--port=0"]
    command += [f"--model_base_path={export_dir}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if line.startswith("gRPC on "):
                    break
            else:
                sys.exit("the embedded server did not start")
            yield line.split()[2]
        finally:
            process.terminate()
            process.communicate()  # it has a last line to write


def bare_call(folder: Path) -> Encode:
    """The call that a server makes: a v1 Session, no network, nothing packed or checked."""
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        model = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
    signature = model.signature_def["encode_images"]
    return session.make_callable(
        signature.outputs["code"].name, feed_list=[signature.inputs["images"].name]
    )


def measure(encode: Encode, images: np.ndarray, in_flight: int, seconds: float) -> Timing:
    """Calls from `in_flight` threads, each as fast as it can."""
    latencies: list[list[float]] = [[] for _ in range(in_flight)]
    start = time.perf_counter()

    def work(own: list[float]) -> None:
        while (before := time.perf_counter()) < start + seconds:
            encode(images)
            own.append(time.perf_counter() - before)

    threads = [threading.Thread(target=work, args=(own,)) for own in latencies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = np.concatenate(latencies)
    return Timing(len(images) * len(took) / (time.perf_counter() - start), took)


def compare(
    client: Encode, bare: Encode, images: np.ndarray, in_flight: int, seconds: float
) -> list[Timing]:
    """Of the client and of the bare call, in turns after one call each."""
    turns = {client: [], bare: []}
    for encode in turns:
        encode(images)
    for _ in range(TURNS):
        for encode, timings in turns.items():
            timings.append(measure(encode, images, in_flight, seconds))
    return [
        Timing(
            statistics.median(timing.rate for timing in timings),
            np.concatenate([timing.latencies for timing in timings]),
        )
        for timings in turns.values()
    ]


def report(target: str, folder: Path, size: int, seconds: float) -> None:
    client = HashClient(target, max_batch=max(BATCHES))
    client.wait_until_ready()
    bare = bare_call(folder)
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), size, size, 3), np.uint8)
    print(f"{size} x {size} px; ms a request, p50 and p99")
    print("                 served over gRPC           bare session call")
    print("batch in flight  images/s    p50    p99     images/s    p50    p99   served/bare")
    for batch in BATCHES:
        for in_flight in IN_FLIGHT:
            timings = compare(client.encode_images, bare, images[:batch], in_flight, seconds)
            cells = [f"{batch:>5}{in_flight:>10}"]
            for timing in timings:
                p50, p99 = 1e3 * np.quantile(timing.latencies, [0.5, 0.99])
                cells.append(f"{timing.rate:>10,.0f}{p50:>7.1f}{p99:>7.1f}")
            print("   ".join([*cells, f"{timings[0].rate / timings[1].rate:>8.2f}"]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export_dir", type=Path, required=True, help="DIR/export of a run")
    parser.add_argument("--target", help="a server of the same export; by default one is started")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    options = parser.parse_args()
    server = (
        contextlib.nullcontext(options.target)
        if options.target
        else embedded_server(options.export_dir)
    )
    with server as target:
        report(target, newest_version(options.export_dir), options.size, options.seconds)


if __name__ == "__main__":
    main()
