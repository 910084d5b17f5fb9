"""A run goes on with the data that it began with, and with no others."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfhash import train
from tfhash.training import run

pytestmark = pytest.mark.usefixtures("eagerly")

ARGUMENTS = """--method=dhn --dataset=folder --image_size=16 --code_length=8 --steps=2
    --checkpoint_every=2 --batch_size=6 --labelled_per_class=4 --queries_per_class=2""".split()


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            write(tmp_path / "photos" / name / f"{number}.png", number)
    return tmp_path / "photos"


def write(path: Path, seed: int) -> None:
    rng = np.random.default_rng([seed, *path.parent.name.encode()])
    pixels = rng.integers(0, 256, (16, 16, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def test_more_images_need_another_folder(command, photos, tmp_path):
    """Of the new split queries were learned from in the old one, by a network that is kept."""
    arguments = [*ARGUMENTS, f"--data_dir={photos}", f"--model_dir={tmp_path / 'run'}"]
    assert command(train, *arguments).status == 0
    assert command(train, *arguments).status == 0
    before = (tmp_path / "run" / "metrics.json").read_bytes()
    write(photos / "cat" / "new.png", 99)
    line = command(train, *arguments).line(train.NAME)
    assert "--dataset: images, labels or triplets are others than those" in line
    assert line.endswith("allowed: the data as they were, or another --model_dir")
    assert (tmp_path / "run" / "metrics.json").read_bytes() == before
    assert command(train, *arguments[:-1], f"--model_dir={tmp_path / 'other'}").status == 0


def test_other_triplets_do_too(command, photos, tmp_path):
    """With a protocol of labels the split does not tell of them."""
    listed = tmp_path / "triplets.csv"
    rows = [f"cat/{i}.png,cat/{j}.png,dog/{i}.png" for i in range(8) for j in range(8) if i != j]
    listed.write_text("\n".join(rows) + "\n")
    arguments = """--method=ssgah --ssgah.variant=baseline --dataset=folder --image_size=16
        --code_length=8 --steps=2 --checkpoint_every=2 --batch_size=6 --labelled_per_class=4
        --queries_per_class=2""".split()
    arguments += [f"--data_dir={photos}", f"--triplets_csv={listed}"]
    arguments += [f"--model_dir={tmp_path / 'run'}"]
    assert command(train, *arguments).status == 0
    listed.write_text("\n".join(rows[1:]) + "\n")
    line = command(train, *arguments).line(train.NAME)
    assert "--dataset: images, labels or triplets are others" in line


def test_a_folder_of_before_is_taken(command, photos, tmp_path):
    arguments = [*ARGUMENTS, f"--data_dir={photos}", f"--model_dir={tmp_path / 'run'}"]
    assert command(train, *arguments).status == 0
    kept = tmp_path / "run" / "data.json"
    content = json.loads(kept.read_text())
    kept.unlink()
    assert command(train, *arguments).status == 0
    assert json.loads(kept.read_text()) == content


def test_a_full_disk_is_no_change_of_data(command, photos, tmp_path, monkeypatch):
    """Exit status 1: the same command works later."""
    write_text = run.write_text

    def full(path, text):
        if path.name == "data.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_text(path, text)

    monkeypatch.setattr(run, "write_text", full)
    arguments = [*ARGUMENTS, f"--data_dir={photos}", f"--model_dir={tmp_path / 'run'}"]
    line = command(train, *arguments).line(train.NAME, status=1)
    assert "--model_dir: cannot write to" in line and "--dataset" not in line
