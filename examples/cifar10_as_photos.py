"""A folder of photos as a user has one, cut from CIFAR-10: few classes, odd sizes, JPEG.

    python examples/cifar10_as_photos.py TFDS_DIR photos

photos/CLASS has 120 images of each of five classes, photos/unlabelled 300 of all of them. CIFAR-10
must lie in TFDS_DIR as tensorflow-datasets prepares it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from tfhash.data import sources

CLASSES = ("airplane", "automobile", "cat", "horse", "ship")
LABELLED, UNLABELLED = 120, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", help="where tensorflow-datasets has CIFAR-10")
    parser.add_argument("folder", help="to be made")
    given = parser.parse_args()
    image_set = sources.load("cifar10", data_dir=given.data_dir)
    rng = np.random.default_rng(0)
    folder = Path(given.folder)
    rest = []
    for name in CLASSES:
        of_class = np.flatnonzero(image_set.labels[:, image_set.class_names.index(name)])
        chosen = rng.permutation(of_class)[: LABELLED + UNLABELLED // len(CLASSES)]
        rest.extend(chosen[LABELLED:])
        for number, position in enumerate(chosen[:LABELLED]):
            write(image_set.images[position], folder / name / f"{number:03d}.jpg", rng)
    for number, position in enumerate(rng.permutation(rest)):
        write(image_set.images[position], folder / "unlabelled" / f"{number:03d}.jpg", rng)
    print(
        f"wrote {LABELLED} images of each of {', '.join(CLASSES)} and {len(rest)} without a label"
    )


def write(pixels: np.ndarray, path: Path, rng: np.random.Generator) -> None:
    """One image, of 40 to 300 px a side, as wide as two thirds to one and a half of its height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height = int(rng.integers(40, 201))
    width = int(height * rng.uniform(2 / 3, 3 / 2))
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    image.save(path, quality=int(rng.integers(75, 96)))


if __name__ == "__main__":
    main()
