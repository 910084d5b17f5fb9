"""Images that do not fit in memory: what a run takes of it, and the seconds until it learns.

    python benchmarks/memory.py FOLDER [--images=200000] [--size=64] [--limit=2.0]

Makes JPEG files of ten classes in FOLDER/photos, where they are not there yet. A shallow and a deep
method are trained on them twice, each in a process of its own with `--images_in=disk`: the first
start decodes the images, the second one finds them. Pages of files count as memory of a process but
are dropped where the system needs room, so it is anonymous memory that is told and limited: a
process that has more than --limit GB (10^9 bytes) is ended, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10
METHODS = {
    "itq": ["--method=itq"],
    "dpsh": ["--method=dpsh", "--backbone=small_cnn", "--steps=50", "--checkpoint_every=50"],
}
_EVERY = 0.05  # seconds between two looks at a process


def form_of(class_: int) -> np.ndarray:
    """The form of a class, int [8, 8, 3] in [0, 255]."""
    of_class = np.random.default_rng(class_).integers(0, 256, (4, 4, 3))
    return np.kron(of_class, np.ones((2, 2, 1), int))


def write_photo(path: Path, form: np.ndarray, number: int, size: int) -> None:
    """A smooth image of a form [8, 8, 3], with noise of its own."""
    noise = np.random.default_rng(number).integers(-40, 41, (8, 8, 3))
    image = Image.fromarray(np.clip(form + noise, 0, 255).astype(np.uint8))
    image.resize((size, size), Image.Resampling.BILINEAR).save(path, "JPEG", quality=90)


def make_photos(folder: Path, count: int, size: int) -> Path:
    """A folder of `count` images; one that was made before is taken as it is."""
    photos = folder / f"photos_{count}_{size}"
    if photos.is_dir():
        return photos
    making = folder / f"making_{photos.name}"
    shutil.rmtree(making, ignore_errors=True)
    for class_ in range(CLASSES):
        (making / str(class_)).mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        paths = [making / str(number % CLASSES) / f"{number:07d}.jpg" for number in range(count)]
        forms = [form_of(class_) for class_ in range(CLASSES)]
        of_photos = (forms[number % CLASSES] for number in range(count))
        list(threads.map(write_photo, paths, of_photos, range(count), [size] * count))
    making.rename(photos)
    return photos


@dataclass
class Seen:
    """What was seen of a process: seconds until it had its images, and in all; the most anonymous
    memory, and the most with the pages of files, in bytes; how it ended."""

    images: float = float("nan")
    whole: float = 0.0
    anonymous: int = 0
    resident: int = 0
    output: list[str] = field(default_factory=list)
    status: int | None = None


def memory_of(process: int) -> dict[str, int]:
    """The sizes in /proc/PROCESS/status, in bytes; none once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    words = [line.replace(":", " ").split() for line in lines]
    return {word[0]: int(word[1]) * 1024 for word in words if word[2:] == ["kB"]}


def lines_of(path: Path, done: int) -> Iterator[str]:
    """The whole lines of a log after the first `done` ones."""
    text = path.read_text(encoding="utf-8", errors="replace")
    yield from text[: text.rfind("\n") + 1].splitlines()[done:]


def watch(arguments: list[str], log: Path, limit: float, module: str = "tfhash.train") -> Seen:
    """Runs a command of tfhash, and looks at it again and again."""
    seen, began = Seen(), time.monotonic()
    with log.open("w") as file:
        command = [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    while seen.status is None:
        seen.status = process.poll()
        memory = memory_of(process.pid)
        seen.anonymous = max(seen.anonymous, memory.get("RssAnon", 0) + memory.get("RssShmem", 0))
        seen.resident = max(seen.resident, memory.get("VmRSS", 0))
        seen.output += lines_of(log, len(seen.output))
        if seen.images != seen.images and any("; split " in line for line in seen.output):
            seen.images = time.monotonic() - began
        if seen.anonymous > limit:
            process.kill()
        time.sleep(_EVERY)
    seen.whole = time.monotonic() - began
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where images, caches and runs go, on a disk")
    parser.add_argument("--images", type=int, default=200_000, help="how many; by default 200000")
    parser.add_argument("--size", type=int, default=64, help="their side in px; by default 64")
    parser.add_argument("--limit", type=float, default=2.0, help="of anonymous memory, in GB")
    parser.add_argument("--images_in", default="disk", help="disk, memory or auto")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    photos = make_photos(options.folder, options.images, options.size)
    pixels = options.images * options.size**2 * 3
    print(f"{options.images:,} images of {options.size} px are {pixels / 1e9:.2f} GB of pixels\n")
    print(
        "| method | start | s until it has its images | s in all | GB anonymous | GB with files |"
    )
    print("| :-- | :-- | --: | --: | --: | --: |", flush=True)
    failed = False
    for method, flags in METHODS.items():
        work = options.folder / method
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for start in ("first", "second"):
            arguments = [
                *flags, "--dataset=folder", f"--data_dir={photos}", f"--image_size={options.size}",
                "--queries_per_class=10", "--labelled_per_class=50", "--code_length=24",
                f"--images_in={options.images_in}", f"--cache_dir={work}/cache",
                f"--model_dir={work}/{start}",
            ]  # fmt: skip
            seen = watch(arguments, work / f"{start}.log", options.limit * 1e9)
            failed = failed or bool(seen.status)
            sizes = f"{seen.anonymous / 1e9:.2f} | {seen.resident / 1e9:.2f}"
            end = f" ended with {seen.status}: {work}/{start}.log" if seen.status else ""
            times = f"{seen.images:.1f} | {seen.whole:.1f}"
            print(f"| {method} | {start} | {times} | {sizes} |{end}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
