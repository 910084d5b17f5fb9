"""Times ways to encode a folder of JPEGs, one after the other, on one machine.

    python benchmarks/bulk.py --export_dir=runs/quickstart/export [--images=20000]

The images are noise with some form, 640 x 480 at JPEG's quality of 90, made in --folder and kept
there. Rows: what TensorFlow's decoder alone does (nothing that reads JPEGs is faster); a bare loop
over the SavedModel with batches of 32; `tfhash.serving.encode` and the embedded server; and
`tfhash.serving.bulk` in one and in two processes, by the Python of --beam (`make beam`).
Seconds are of the wall clock, for commands with all that they start; each worker has one thread of
TensorFlow, as the loops here have.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Before TensorFlow is there.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

HEIGHT, WIDTH, BATCH = 480, 640, 32


def make_images(folder: Path, count: int) -> list[Path]:
    """count files below folder, made where they are not there yet."""
    paths = [folder / f"{number // 1000:03}" / f"{number:06}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(number)
        form = generator.integers(0, 256, (12, 16, 3), np.uint8)
        pixels = tf.image.resize(form, [HEIGHT, WIDTH]).numpy()
        pixels = np.clip(pixels + generator.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        path.write_bytes(tf.io.encode_jpeg(pixels, quality=90).numpy())
    return paths


def contents(paths: list[Path]) -> Iterator[list[bytes]]:
    for start in range(0, len(paths), BATCH):
        yield [path.read_bytes() for path in paths[start : start + BATCH]]


def decode_all(paths: list[Path]) -> None:
    for batch in contents(paths):
        for content in batch:
            tf.io.decode_jpeg(content, channels=3)


def bare_loop(version: Path) -> Callable[[list[Path]], None]:
    loaded = tf.saved_model.load(str(version))

    def loop(paths: list[Path]) -> None:
        for batch in contents(paths):
            loaded.signatures["encode_bytes_partial"](image_bytes=tf.constant(batch))

    return loop


def encode(folder: Path, scratch: Path, export_dir: Path) -> float:
    """Seconds of the command, once the server serves."""
    server = [sys.executable, "-m", "tfhash.serving.server", "--port=0"]
    server += [f"--model_base_path={export_dir}"]
    with subprocess.Popen(
        server, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout
            lines = (line for line in process.stdout if line.startswith("gRPC on "))
            target = next(lines).split()[2]
            return seconds_of(
                [sys.executable, "-m", "tfhash.serving.encode", f"--target={target}",
                 f"--images={folder}/**", f"--output={scratch}/codes.npz"]
            )  # fmt: skip
        finally:
            process.terminate()
            process.communicate()


def bulk(python: str, folder: Path, scratch: Path, export_dir: Path, processes: int) -> float:
    more = ["--direct_running_mode=multi_processing", f"--direct_num_workers={processes}"]
    return seconds_of(
        [python, "-m", "tfhash.serving.bulk", f"--model={export_dir}", f"--input={folder}/**",
         f"--output={scratch}/bulk{processes}@16.parquet", *(more if processes > 1 else [])]
    )  # fmt: skip


def seconds_of(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def timed(function: Callable[[list[Path]], None], paths: list[Path]) -> float:
    function(paths[:BATCH])  # what the first call costs is not of the images
    start = time.perf_counter()
    function(paths)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export_dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path("build/bulk"))
    parser.add_argument("--beam", default=".venv-beam/bin/python")
    given = parser.parse_args()
    folder, scratch = given.folder / f"jpegs{given.images}", given.folder / "out"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    paths = make_images(folder, given.images)
    version = max(
        (path for path in given.export_dir.iterdir() if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )
    size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
    print(f"{len(paths):,} JPEGs of {WIDTH} x {HEIGHT}, {size:.0f} kB each, {os.cpu_count()} cores")
    rows: dict[str, Callable[[], float]] = {
        "decoding alone, 1 thread": lambda: timed(decode_all, paths),
        "bare loop, 1 thread": lambda: timed(bare_loop(version), paths),
        "tfhash.serving.encode": lambda: encode(folder, scratch, given.export_dir),
        "tfhash.serving.bulk, 1 process": lambda: bulk(
            given.beam, folder, scratch, given.export_dir, 1
        ),
        "tfhash.serving.bulk, 2 processes": lambda: bulk(
            given.beam, folder, scratch, given.export_dir, 2
        ),
    }
    for name, run in rows.items():
        seconds = run()
        print(f"{name:<34}{seconds:9.1f} s{len(paths) / seconds:10,.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
