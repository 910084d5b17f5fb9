"""docs/own-data.md: every line of it, run from top to bottom as a reader would."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tfhash.data import table, triplets
from tfhash.export import __main__ as export

REPOSITORY = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLASSES = 4  # the digits 0 to 3
MODULES = {"tfhash.export": export}  # of the others the name is that of the module

# What the output of each block holds, in the order of the page.
EXPECTED = [
    ("sh", ["folder: 9 images without a label", "80 queries", "mAP@50"]),
    ("csv", ["'beach/0001.jpg': ['sea', 'sky']", "'street.jpg': []"]),
    ("csv", ["'beach/0001.jpg': ['sea', 'sky']", "'street.jpg': []"]),
    ("sh", ["csv: 30 images without a label, 30 of them not in the CSV", "40 query", "mAP"]),
    ("python", [""]),
    ("sh", ["csv: labels alone, no images", "40 query", "mAP@5000"]),
    ("csv", ["[0, 2, 1]"]),
    ("sh", ["triplets(held_out=0.2)", "triplet accuracy", "stage 1 of 1 (hash network)"]),
    ("python", ["1,497 unlabelled", "0.", "(5, 4) uint8"]),
    ("sh", ["32 bits, mine", "ties worst", "verified on 256 images", "published runs/mine"]),
]


def save(path: Path, grey: np.ndarray) -> None:
    """A JPEG file of four times the size, digits being 8 px high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.uint8(grey * 15).repeat(4, axis=0).repeat(4, axis=1)
    Image.fromarray(pixels).convert("RGB").save(path)


def write_csv(path: Path, *rows: tuple[str, ...]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the page starts: photos, pictures and scans of digits, and what is known of them."""
    root = tmp_path_factory.mktemp("reader")
    (root / "configs").symlink_to(REPOSITORY / "configs")
    digits = load_digits()
    rng = np.random.default_rng(0)
    of_class = [digits.images[digits.target == number] for number in range(CLASSES)]
    for number, images in enumerate(of_class):
        for index in range(32):
            save(root / "photos" / f"digit_{number}" / f"{index}.jpg", images[index])
    for index in range(9):
        save(root / "photos" / "unlabelled" / f"{index}.jpg", digits.images[-index])

    labels = []
    for index in range(150):
        pair = rng.integers(0, CLASSES, 2)
        save(root / "pictures" / f"{index}.jpg", np.hstack([rng.choice(of_class[n]) for n in pair]))
        labels.append((f"{index}.jpg", ";".join(f"digit_{number}" for number in set(pair))))
    write_csv(root / "labels.csv", ("path", "labels"), *labels[:120])
    words = rng.multinomial(60, np.full(30, 1 / 30), size=len(labels))
    np.savetxt(root / "BoW_int.dat", words, fmt="%d")
    (root / "image_list.txt").write_text("\n".join(path for path, _ in labels))

    classes = rng.integers(0, CLASSES, 80)
    for index, number in enumerate(classes):
        save(root / "scans" / f"{index}.jpg", rng.choice(of_class[number]))
    rows = []
    for query, number in enumerate(classes):
        same, other = (np.flatnonzero(found) for found in (classes == number, classes != number))
        for _ in range(4):
            positive = rng.choice(same[same != query])
            rows.append([f"{index}.jpg" for index in (query, positive, rng.choice(other))])
    write_csv(root / "triplets.csv", ("query", "positive", "negative"), *rows)
    return root


def read_example(text: str, path: Path) -> str:
    """What the library reads from a CSV on the page."""
    path.write_text(text)
    if text.startswith("path"):
        labels = table.read_table(path).labels
        return str({name: sorted(names) for name, names in labels.items()})
    return str(triplets.read_csv(path, ["0001.jpg", "0002.jpg", "0007.jpg", "0004.jpg"]).tolist())


def test_every_line_of_the_page_works(command, folder, monkeypatch, tmp_path):
    """Its commands in this process, which has TensorFlow already."""
    page = BLOCK.findall((REPOSITORY / "docs" / "own-data.md").read_text(encoding="utf-8"))
    assert [kind for kind, _ in page] == [kind for kind, _ in EXPECTED]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))  # where features are kept
    for (kind, text), (_, expected) in zip(page, EXPECTED, strict=True):
        output = ""
        match kind:
            case "sh":
                for line in text.replace("\\\n", " ").splitlines():
                    python, option, name, *arguments = shlex.split(line)
                    assert (python, option) == ("python", "-m")
                    module = MODULES.get(name) or importlib.import_module(name)
                    ended = command(module, *arguments)
                    assert ended.status == 0, f"{line}\n{ended.errors}"
                    output += ended.output
            case "csv":
                output = read_example(text, tmp_path / "example.csv")
            case "python":
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile(text, "docs/own-data.md", "exec"), {"__name__": "__main__"})
                output = printed.getvalue()
        assert [part for part in expected if part not in output] == [], f"{text}\n{output}"

    plain, learned = (
        json.loads((folder / "runs" / run / "metrics.json").read_text())
        for run in ("scans_itq", "scans")
    )
    assert plain["split_fingerprint"] == learned["split_fingerprint"]
    assert plain["map"] is None and "pr_curve" not in learned
    assert 0.5 < plain["triplet_accuracy"] < learned["triplet_accuracy"]
