"""Tiny runs on a user's folder of images, and with the options that change how H is trained."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfhash import train

pytestmark = pytest.mark.usefixtures("eagerly")  # tests/integration/test_resume.py has the graphs

COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}
FLAGS = """
--dataset=folder
--image_size=16
--queries_per_class=2
--labelled_per_class=4
--code_length=12
--steps=2
--batch_size=6
--unlabelled_batch_size=4
--ssgah.gan_steps=2
--ssgah.gan_size=16
--ssgah.gan_width=2
--ssgah.condition_size=4
--ssgah.noise_size=4
""".split()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Three classes of eight images, and four of no class: noise on a colour, of uneven sizes."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, colour, count in (
        *((name, colour, 8) for name, colour in COLOURS.items()),
        ("unlabelled", (100, 100, 100), 4),
    ):
        (root / name).mkdir()
        for index in range(count):
            pixels = rng.integers(0, 56, (20 + index, 24, 3)) + np.array(colour)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def trained(command, images, tmp_path_factory):
    """The run folder of SSGAH as it is, and what the command printed."""
    directory = tmp_path_factory.mktemp("runs") / "plain"
    ended = command(train, *FLAGS, f"--data_dir={images}", f"--model_dir={directory}")
    assert ended.status == 0, ended
    return directory, ended.output


def part(directory: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(directory / "codes" / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def test_a_folder_of_images_is_learned_encoded_and_judged(trained):
    """6 of 24 images with a label are queries; those without one are learned from, no more."""
    directory, output = trained
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["dataset"] == "folder" and metrics["class_count"] == 3
    assert metrics["data_notes"] == ["4 images without a label"]
    assert "6 query, 18 database, 9 labelled, 3 validation, 10 unlabelled" in output
    assert 0 < metrics["map"] <= 1
    query, database = part(directory, "query"), part(directory, "database")
    every = [f"{name}/{index}.png" for name in COLOURS for index in range(8)]
    assert sorted([*query["ids"], *database["ids"]]) == every
    for of_part in (query, database):
        classes = [sorted(COLOURS)[row.argmax()] for row in of_part["labels"]]
        assert classes == [id_.split("/")[0] for id_ in of_part["ids"]]


def test_triplets_of_a_csv_are_learned_from(command, images, trained, tmp_path):
    """That a triplet holds a query image is said, and it is not learned from."""
    query_image = str(part(trained[0], "query")["ids"][0])
    blue, green, red = (
        [id_ for id_ in part(trained[0], "database")["ids"] if id_.startswith(name)]
        for name in COLOURS
    )
    rows = [
        "query,positive,negative",
        f"{blue[0]},{blue[1]},{red[0]}",
        f"{green[0]},{green[1]},{blue[2]}",
        f"{query_image},{red[1]},{red[2]}",
    ]
    csv = tmp_path / "triplets.csv"
    csv.write_text("\n".join(rows) + "\n")
    directory = tmp_path / "run"
    ended = command(
        train, *FLAGS, f"--data_dir={images}", f"--model_dir={directory}", f"--triplets_csv={csv}"
    )
    assert ended.status == 0, ended
    assert "1 of 3 triplets hold a query image: left out" in ended.output
    assert (directory / "metrics.json").is_file()


def test_sampled_triplets_and_bfloat16_finish(command, images, tmp_path):
    options = ("--triplets=sampled", "--mixed_bfloat16")
    ended = command(train, *FLAGS, f"--data_dir={images}", f"--model_dir={tmp_path}", *options)
    assert ended.status == 0, ended
    codes = part(tmp_path, "database")["codes"]
    assert codes.shape == (18, 2) and codes.dtype == np.uint8


@pytest.mark.parametrize("option", ["--strategy=mirrored", "--xla"])
def test_what_needs_a_process_of_its_own_finishes_on_one_processor(
    python, images, tmp_path, option
):
    """A second MirroredStrategy in a process can fail, and what other runs set turns XLA off."""
    options = (f"--data_dir={images}", f"--model_dir={tmp_path}", "--ssgah.variant=baseline")
    process = subprocess.run(
        [python, "-m", "tfhash.train", *FLAGS, *options, option],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert "jit_compile" not in process.stderr  # Keras warns where it goes on without XLA
    assert "mAP" in process.stdout and (tmp_path / "metrics.json").is_file()
