"""NUS-WIDE as large as it is, without its images: stand-ins go through the real commands.

    python benchmarks/nus_wide.py FOLDER --lists=LISTS [--parts=lists,owners] [--images=195834]
        [--size=64] [--bow]

LISTS has train.txt and test.txt of a paper (DeepHash-pytorch's nuswide_21: 10,500 + 2,100 images).
A stand-in is a JPEG of some 2 KB whose form is the mean of the forms of its concepts, with noise.

    lists     the images of LISTS, by --config=lists and --protocol=lists
    owners    --images of them, in the layout of the owners: 81 concepts, of which label sets drawn
              from those of LISTS make up the 21 most frequent; the list has others too, as that of
              the owners has 269,648 images for 195,834

Each is prepared, and ITQ learns twice from --images_in=disk: the first start decodes the images,
the second one finds them. With --bow the owners' bags of words are made too, and are what ITQ
learns from. Each command runs in a process of its own, whose memory is measured as by memory.py.
The exit status is 1 where a process fails, or the concepts of the images are not those asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import memory
import numpy as np

from tfhash.data.nus_wide import listed, words

IMAGES, LISTED, CONCEPTS = 195_834, 269_648, 81
FOLDERS = 704  # of images, of the owners
HEADER = "| part | process | s until it has its images | s in all | GB anonymous | GB with files |"
FLAGS = ("--dataset=nus_wide", "--method=itq", "--code_length=24", "--images_in=disk")
TEMPLATES = 1000  # different bags of words


@dataclass(frozen=True)
class Part:
    """What is prepared: its name, the folder of its files, labels [n, 21] and names of its images,
    and the flags by which it is split."""

    name: str
    source: Path
    labels: np.ndarray
    paths: Sequence[str]
    split: tuple[str, ...]


def write_images(part: Part, size: int) -> None:
    """The stand-ins, where they are not there yet."""
    folder = part.source
    done = folder / "images"
    if done.is_dir():
        return
    making = folder / "making"
    shutil.rmtree(making, ignore_errors=True)
    files = [making / path for path in part.paths]
    for parent in {file.parent for file in files}:
        parent.mkdir(parents=True, exist_ok=True)
    forms = np.stack([memory.form_of(concept) for concept in range(part.labels.shape[1])])
    of_images = (forms[row > 0].mean(axis=0).astype(np.int16) for row in part.labels)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(
            threads.map(
                memory.write_photo, files, of_images, range(len(files)), [size] * len(files)
            )
        )
    making.rename(done)


def of_lists(folder: Path, lists: Path) -> Part:
    """The images of the lists of a paper."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in lists.glob("*.txt"):
        if file.stem in listed.LISTS:
            shutil.copyfile(file, folder / file.name)
    parts = listed.lists(folder).values()
    labels = np.concatenate([part.labels for part in parts])
    paths = [path for part in parts for path in part.paths]
    return Part("lists", folder, labels, paths, ("--protocol=lists",))


def of_owners(folder: Path, labels: np.ndarray, count: int) -> Part:
    """`count` images in the layout of the owners, their label sets drawn from labels [n, 21].

    Further images of the list have rarer concepts alone, and no file.
    """
    rng = np.random.default_rng(0)
    total = round(count * LISTED / IMAGES)
    hot = np.zeros((total, CONCEPTS), np.uint8)
    places = np.sort(rng.choice(total, count, replace=False))
    width = labels.shape[1]
    hot[places, :width] = labels[rng.integers(0, len(labels), count)]
    others = np.setdiff1d(np.arange(total), places)
    rare = np.arange(len(others)) % (CONCEPTS - width)
    hot[others, width + rare] = 1
    paths = [f"f{row % FOLDERS:03d}/{row // FOLDERS:04d}_{10**9 + row}.jpg" for row in range(total)]
    image_list = folder / "ImageList" / "Imagelist.txt"
    image_list.parent.mkdir(parents=True, exist_ok=True)
    image_list.write_text("".join(path.replace("/", "\\") + "\n" for path in paths))
    truth = folder / "Groundtruth" / "AllLabels"
    truth.mkdir(parents=True, exist_ok=True)
    for concept, column in enumerate(hot.T):
        lines = np.where(column, "1", "0").tolist()
        (truth / f"Labels_concept{concept:02d}.txt").write_text("\n".join(lines) + "\n")
    queries, labelled = max(1, min(100, count // 400)), max(2, min(500, count // 80))
    split = (f"--queries_per_class={queries}", f"--labelled_per_class={labelled}")
    return Part("owners", folder, hot[places, :width], [paths[row] for row in places], split)


def write_words(path: Path, count: int) -> None:
    """Bags of words as the owners have them, a line an image; some of them over and over."""
    bags = np.random.default_rng(1).poisson(0.8, (TEMPLATES, words.WORDS))
    lines = [" ".join(map(str, bag)) + " \n" for bag in bags.tolist()]
    with path.open("w") as file:
        file.writelines(lines[row % TEMPLATES] for row in range(count))


def concepts_of(run: Path, parts: Iterable[str] = ("query", "database")) -> np.ndarray:
    """How many images of a run have each concept."""
    files = [np.load(run / "codes" / f"{part}.npz") for part in parts]
    return np.concatenate([file["labels"] for file in files]).sum(axis=0, dtype=int)


def measure(part: Part, work: Path, size: int, bow: Path | None) -> bool:
    """Prepares a part and trains on it twice, a line of the table each; whether all went well."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    data, of_words = f"--data_dir={work / 'tfds'}", []
    commands = [("prepare", "tfhash.prepare_nus_wide", [f"--source={part.source}", data])]
    commands[0][2].append(f"--config={part.name}")
    if bow is not None:
        commands[0][2].append(f"--bow={bow}")
        of_words = ["--features=bow"]
    for start in ("first", "second"):
        flags = [*FLAGS, *part.split, *of_words, data, f"--image_size={size}"]
        flags += [f"--cache_dir={work / 'cache'}", f"--model_dir={work / start}"]
        commands.append((start, "tfhash.train", flags))
    for name, module, arguments in commands:
        log = work / f"{name}.log"
        seen = memory.watch(arguments, log, float("inf"), module)
        sizes = f"{seen.anonymous / 1e9:.2f} | {seen.resident / 1e9:.2f}"
        until = "" if seen.images != seen.images else f"{seen.images:.1f}"
        print(f"| {part.name} | {name} | {until} | {seen.whole:.1f} | {sizes} |", flush=True)
        if seen.status:
            print(f"ended with {seen.status}: {log}")
            return False
    return told(part, work)


def told(part: Part, work: Path) -> bool:
    """Prints what was prepared and how it was split; whether its concepts are those asked for."""
    prepared = (work / "prepare.log").read_text(encoding="utf-8")
    for line in prepared.splitlines():
        if line.startswith(("listed:", "images:", "lost:", "unreadable:")):
            print(f"{part.name}: {' '.join(line.split())}")
    metrics = json.loads((work / "first" / "metrics.json").read_text(encoding="utf-8"))
    print(f"{part.name}: {metrics['protocol']}, split {metrics['split_fingerprint']}")
    # The commands order the concepts of the owners by how frequent they are.
    found, asked = concepts_of(work / "first"), part.labels.sum(axis=0, dtype=int)
    print(f"{part.name}: images of each concept: {', '.join(f'{n:,}' for n in found)}")
    if sorted(found) != sorted(asked):
        print(f"{part.name}: asked for were {', '.join(f'{n:,}' for n in asked)}")
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where images, data sets and runs go, on a disk")
    parser.add_argument("--lists", type=Path, required=True, help="folder of train.txt, test.txt")
    parser.add_argument("--parts", default="lists,owners", help="lists, owners, or both")
    parser.add_argument("--images", type=int, default=IMAGES, help="of owners; by default 195834")
    parser.add_argument("--size", type=int, default=64, help="their side in px; by default 64")
    parser.add_argument("--bow", action="store_true", help="of owners, bags of words for features")
    options = parser.parse_args()
    folder = options.folder.resolve()
    # A folder for each size: an image that is there twice is not found.
    lists = of_lists(folder / f"lists_{options.size}px", options.lists)
    well = True
    for name in options.parts.split(","):
        part, bow = lists, None
        if name == "owners":
            source = folder / f"owners_{options.images}_{options.size}px"
            part = of_owners(source, lists.labels, options.images)
            if options.bow:
                bow = part.source / "BoW_int.dat"
                write_words(bow, len(listed.image_list(part.source)))
        write_images(part, options.size)
        print(f"\n{HEADER}\n| :-- | :-- | --: | --: | --: | --: |", flush=True)
        well &= measure(part, folder / f"work_{part.name}", options.size, bow)
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
