"""What the files of NUS-WIDE's owners, or the lists of hashing papers, say: images and labels."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from tfhash.errors import UserError

CONCEPTS = 21  # of 81: those of the papers
PUBLISHED = {
    193_734: "as many as papers count without images that Flickr has lost",
    195_834: "as many as papers count with every image",
}
LISTS = ("train", "test", "database")


@dataclass(frozen=True)
class Listed:
    """Images by their names with "/", uint8 multi-hot labels [n, C], the names of the C concepts.

    total: how many the files list, those without any of the concepts included.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    concepts: tuple[str, ...]
    total: int


def owners(root: Path, count: int = CONCEPTS) -> Listed:
    """The images of ImageList/Imagelist.txt with one of the most frequent concepts.

    root: the folder that has ImageList and Groundtruth/AllLabels, whose Labels_CONCEPT.txt say 0 or
    1 of each image. count: how many concepts; they are the most frequent ones of all that is
    listed, most frequent first, of equal ones the first by name. UserError for other files.
    """
    paths = image_list(root)
    files = sorted(_only(root, "Groundtruth/AllLabels").glob("Labels_*.txt"))
    if len(files) < count:
        raise _wrong(
            f"{len(files)} files Labels_*.txt in Groundtruth/AllLabels", f"{count} or more"
        )
    names = [file.stem.removeprefix("Labels_") for file in files]
    labels = np.stack([_column(file, len(paths)) for file in files], axis=1)
    order = np.argsort(-labels.sum(axis=0, dtype=int), kind="stable")[:count]
    labels = labels[:, order]
    rows = np.flatnonzero(labels.any(axis=1))
    concepts = tuple(names[place] for place in order)
    return Listed(tuple(paths[row] for row in rows), labels[rows], concepts, len(paths))


def image_list(root: Path) -> list[str]:
    """The images of ImageList/Imagelist.txt, in its order. UserError where it is not there."""
    file = _only(root, "ImageList/Imagelist.txt")
    lines = file.read_text(encoding="utf-8").split("\n")
    return [PureWindowsPath(line.strip()).as_posix() for line in lines if line.strip()]


def lists(root: Path) -> dict[str, Listed]:
    """What train.txt, test.txt and, where it is there, database.txt list: `path l1 … lC` a line.

    These files do not name their concepts: they are called concept01 and so on, by their columns.
    Of database.txt those images stay that train.txt and test.txt do not have.
    UserError for other files, and for an image that train.txt and test.txt both have.
    """
    found = {}
    for name in LISTS:
        if name != "database" or (root / "database.txt").is_file():
            found[name] = _list(_only(root, f"{name}.txt"))
    widths = {len(part.concepts) for part in found.values()}
    if len(widths) > 1:
        raise _wrong(f"lists of {sorted(widths)} labels an image", "as many in each")
    if common := set(found["train"].paths) & set(found["test"].paths):
        raise _wrong(f"{len(common)} images both in train.txt and test.txt", "each in one")
    if "database" in found:
        found["database"] = _without(
            found["database"], {*found["train"].paths, *found["test"].paths}
        )
    return found


def _without(part: Listed, paths: Collection[str]) -> Listed:
    rows = [row for row, path in enumerate(part.paths) if path not in paths]
    names = tuple(part.paths[row] for row in rows)
    return Listed(names, part.labels[rows], part.concepts, len(rows))


def _list(file: Path) -> Listed:
    paths: list[str] = []
    rows: list[list[int]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        path, *labels = line.split()
        if not labels or set(labels) - {"0", "1"} or (rows and len(labels) != len(rows[0])):
            raise _wrong(f"line {number} of {file.name}: {line[:40]!r}", "`path l1 … lC`, 0 or 1")
        paths.append(PurePosixPath(path).as_posix())
        rows.append([int(label) for label in labels])
    if not paths:
        raise _wrong(f"no line in {file.name}", "`path l1 … lC`")
    if repeated := len(paths) - len(set(paths)):
        raise _wrong(f"{repeated} lines of {file.name} that repeat an image", "one of each")
    concepts = tuple(f"concept{number + 1:02d}" for number in range(len(rows[0])))
    return Listed(tuple(paths), np.array(rows, np.uint8), concepts, len(paths))


def _column(file: Path, count: int) -> np.ndarray:
    """0 or 1 of each image."""
    values = file.read_text(encoding="utf-8").split()
    if len(values) != count or set(values) - {"0", "1"}:
        raise _wrong(f"{len(values)} values in {file.name}", f"0 or 1 of each of {count} images")
    return np.array(values, np.uint8)


def _only(root: Path, name: str) -> Path:
    """root/NAME, or the only one of that name below root: downloads have folders of their own."""
    if (root / name).exists():
        return root / name
    found = sorted(root.glob(f"*/{name}"))
    if len(found) != 1:
        raise _wrong(f"no {name} in {root}", "a folder with the files of NUS-WIDE")
    return found[0]


def _wrong(what: str, allowed: str) -> UserError:
    return UserError(f"`source`: {what}; allowed: {allowed}")


class Files:
    """The image files below a folder, found by the names that lists have for them.

    Lists call one image actor/0001_2124494179.jpg or images/0001_2124494179.jpg, and downloads have
    folders of their own. Its own name is a number and that of Flickr.
    """

    def __init__(self, root: Path):
        self.root = root
        self._by_name: dict[str, list[str]] = {}
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name).relative_to(root).as_posix()
                self._by_name.setdefault(name, []).append(path)

    def find(self, path: str) -> Path | None:
        """Where an image is; None where it is not, or which of several it is cannot be told."""
        found = self._by_name.get(PurePosixPath(path).name, [])
        alike = [one for one in found if f"/{one}".endswith(f"/{path}")]
        some = alike or found
        return self.root / some[0] if len(some) == 1 else None


def variant(count: int) -> str:
    """Which of the published counts a number of images is, in words."""
    return PUBLISHED.get(count, f"not {' or '.join(f'{n:,}' for n in PUBLISHED)}, as papers count")


def lost(paths: Sequence[str], files: Files) -> list[str]:
    """Those that no file is there of."""
    return [path for path in paths if files.find(path) is None]
