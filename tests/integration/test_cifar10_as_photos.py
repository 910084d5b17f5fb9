"""The example that cuts a folder of photos from CIFAR-10, on images made up."""

from __future__ import annotations

import collections
import runpy
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tfhash.data import sources

EXAMPLE = Path(__file__).parents[2] / "examples" / "cifar10_as_photos.py"
NAMES = ("airplane", "automobile", "bird", "cat", "horse", "ship")


def test_a_folder_of_photos_has_five_classes_of_odd_sizes(monkeypatch, tmp_path):
    """Each image is of one grey, by which it is known again: none is there twice."""
    greys = np.arange(6 * 200) % 251
    images = np.broadcast_to(np.uint8(greys)[:, None, None, None], (1200, 32, 32, 3))
    labels = np.eye(6, dtype=np.uint8).repeat(200, axis=0)
    image_set = sources.ImageSet(
        "cifar10", images, labels, NAMES, tuple(str(i) for i in range(1200))
    )
    monkeypatch.setattr(sources, "load", lambda name, data_dir: image_set)
    folder = tmp_path / "photos"
    monkeypatch.setattr(sys, "argv", ["cifar10_as_photos.py", "DIR", str(folder)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    counts = collections.Counter(path.parent.name for path in folder.glob("*/*.jpg"))
    of_class = {name: 120 for name in NAMES if name != "bird"}
    assert counts == of_class | {"unlabelled": 300}
    sizes, seen = set(), collections.defaultdict(list)
    for path in folder.glob("*/*.jpg"):
        with Image.open(path) as image:
            sizes.add(image.size)
            seen[path.parent.name].append(round(np.asarray(image).mean()))
    assert len(sizes) > 500 and 26 < min(min(size) for size in sizes)
    assert max(max(size) for size in sizes) <= 300
    for position, name in enumerate(NAMES):
        if name != "bird":
            assert set(seen[name]) <= {int(grey) for grey in greys[200 * position :][:200]}
            assert len(set(seen[name])) == 120
