"""Times ways to encode a folder of JPEGs, one after the other, on one machine.

    python benchmarks/bulk.py --export_dir=runs/quickstart/export [--images=20000]

The images are noise with some form, 640 x 480 at JPEG's quality of 90, made in --folder and kept
there. Rows: what TensorFlow's decoder alone does (nothing that reads JPEGs is faster); a bare loop
over the SavedModel with batches of 32; `tfhash.serving.encode` and the embedded server; `encode`
with the export in its own process, by each engine; and `tfhash.serving.bulk` in one process, by
each engine, and in two, by the Python of --beam (`make beam`). An engine has a row where its file
is beside the versions of the export (`python -m tfhash.export --format=onnx`, `--format=tflite`).
Below a row stands what the command says of the parts of its work. In the end the codes of each
command are compared with those of the bare loop.
Seconds are of the wall clock, for commands with all that they start; each worker has one thread for
the network, as the loops here have, and one that decodes ahead.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

# Before TensorFlow is there.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from tfhash import npz, shards
from tfhash.serving import engines

HEIGHT, WIDTH, BATCH = 480, 640, 32
Codes = dict[str, bytes]  # packed, by the name of a file
PROFILE = "ms an image:"  # begins the line of a command that tells it
Timed = tuple[float, str]  # seconds, and that line or ""
Rows = dict[str, Callable[[], Timed]]


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


def bare_loop(version: Path, codes: Codes) -> Callable[[list[Path]], None]:
    """What it answers goes into codes, by the names of the files."""
    loaded = tf.saved_model.load(str(version))

    def loop(paths: list[Path]) -> None:
        answers = []
        for batch in contents(paths):
            answer = loaded.signatures["encode_bytes_partial"](image_bytes=tf.constant(batch))
            answers += answer["code"].numpy().tolist()
        codes.update((path.name, bytes(code)) for path, code in zip(paths, answers, strict=True))

    return loop


def written_codes(scratch: Path) -> Iterator[tuple[str, Codes]]:
    """What each command has written, by the names of its outputs."""
    for path in sorted(scratch.glob("*.npz")):
        output = npz.read(path)
        names = [Path(name).name for name in output["paths"].tolist()]
        yield path.stem, dict(zip(names, map(bytes, output["codes"].tolist()), strict=True))
    of_bulk: dict[str, Codes] = {}
    for path in sorted(scratch.glob("*.parquet")):
        with path.open("rb") as file:
            rows = shards.rows_of(shards.read(file)[1])
        codes = {Path(row.id).name: row.code for row in rows}
        of_bulk.setdefault(path.name.partition("-")[0], {}).update(codes)
    yield from of_bulk.items()


def differing(codes: Codes, expected: Codes) -> int:
    """Bits that differ; ValueError where codes are not of the same files."""
    if codes.keys() != expected.keys():
        raise ValueError(f"{len(codes)} codes, expected {len(expected)} of other files")
    pairs = [np.frombuffer(codes[name] + expected[name], np.uint8) for name in codes]
    of_two = np.stack(pairs).reshape(len(pairs), 2, -1)
    return int(np.bitwise_count(of_two[:, 0] ^ of_two[:, 1]).sum())


def encode(folder: Path, scratch: Path, export_dir: Path) -> Timed:
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


def encode_here(engine: str, folder: Path, scratch: Path, export_dir: Path) -> Timed:
    return seconds_of(
        [sys.executable, "-m", "tfhash.serving.encode", f"--model={export_dir}", "--tf_threads=1",
         f"--engine={engine}", f"--images={folder}/**", f"--output={scratch}/{engine}.npz"]
    )  # fmt: skip


def bulk(
    python: str, folder: Path, scratch: Path, export_dir: Path, processes: int, engine: str
) -> Timed:
    more = ["--direct_running_mode=multi_processing", f"--direct_num_workers={processes}"]
    return seconds_of(
        [python, "-m", "tfhash.serving.bulk", f"--model={export_dir}", f"--input={folder}/**",
         f"--engine={engine}", f"--output={scratch}/bulk{processes}{engine}@16.parquet",
         *(more if processes > 1 else [])]
    )  # fmt: skip


def seconds_of(command: list[str]) -> Timed:
    start = time.perf_counter()
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    seconds = time.perf_counter() - start
    told = [line for line in ended.stdout.splitlines() if line.startswith(PROFILE)]
    return seconds, "".join(told)


def timed(function: Callable[[list[Path]], None], paths: list[Path]) -> Timed:
    function(paths[:BATCH])  # what the first call costs is not of the images
    start = time.perf_counter()
    function(paths)
    return time.perf_counter() - start, ""


def rows_of(
    given: argparse.Namespace, folder: Path, scratch: Path, paths: list[Path], codes: Codes
) -> Rows:
    """What to time, by the names of the rows, in their order; codes: of the bare loop."""
    export_dir, beam = given.export_dir, given.beam
    version = max(
        (path for path in export_dir.iterdir() if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )
    rows: Rows = {
        "decoding alone, 1 thread": lambda: timed(decode_all, paths),
        "bare loop, 1 thread": lambda: timed(bare_loop(version, codes), paths),
        "tfhash.serving.encode": lambda: encode(folder, scratch, export_dir),
    }
    there = [
        engine
        for engine in engines.NAMES
        if Path(engines.file_of(engine, str(version)) or version).exists()
    ]
    for engine in there:
        rows[f"encode in one process, {engine}"] = partial(
            encode_here, engine, folder, scratch, export_dir
        )
    for processes in (1, 2):
        name = f"tfhash.serving.bulk, {processes} process{'es' * (processes > 1)}"
        for engine in there if processes == 1 else [engines.TENSORFLOW]:
            full = name if engine == engines.TENSORFLOW else f"{name}, {engine}"
            rows[full] = partial(bulk, beam, folder, scratch, export_dir, processes, engine)
    return rows


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
    size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
    print(f"{len(paths):,} JPEGs of {WIDTH} x {HEIGHT}, {size:.0f} kB each, {os.cpu_count()} cores")
    expected: Codes = {}
    for name, run in rows_of(given, folder, scratch, paths, expected).items():
        seconds, profile = run()
        print(f"{name:<46}{seconds:9.1f} s{len(paths) / seconds:10,.0f} images/s", flush=True)
        if profile:
            print(f"    {profile}", flush=True)
    for name, codes in written_codes(scratch):
        bits = sum(map(len, codes.values())) * 8
        found = differing(codes, expected)
        print(f"{name}: {found:,} of {bits:,} bits differ from those of the bare loop")


if __name__ == "__main__":
    main()
