"""Names that are no UTF-8, no ASCII or look like markup, from a folder of images to an export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfhash.benchmark.__main__ as benchmark
import tfhash.export.__main__ as export
import tfhash.report.__main__ as report
from tfhash import evaluate, figures, top_results, train

REPOSITORY = Path(__file__).parents[2]
CLASSES = {
    b"caf\xe9": (0, 0, 200),
    "犬 \x1b[31m".encode(): (0, 200, 0),
    b"under_$5_and_$10": (200, 0, 0),
}
FLAGS = """
--dataset=folder
--method=lsh
--image_size=16
--queries_per_class=2
--labelled_per_class=4
--code_length=12
""".split()


def write_images(root: Path) -> None:
    """Eight files a class, whose names are no UTF-8 either: noise on a colour."""
    rng = np.random.default_rng(0)
    for name, colour in CLASSES.items():
        folder = root / os.fsdecode(name)
        folder.mkdir(parents=True)
        for index in range(8):
            pixels = rng.integers(0, 56, (20, 24, 3)) + np.array(colour)
            path = folder / os.fsdecode(b"%d\xff.png" % index)
            Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("names") / os.fsdecode(b"\xe4rger [1]")


@pytest.fixture(scope="module")
def trained(root) -> Path:
    """A run of such a folder in another, by a command whose output is strict ASCII."""
    write_images(root / os.fsdecode(b"d\xe9ta"))
    arguments = [*FLAGS, f"--data_dir={root}/d\udce9ta", f"--model_dir={root}/r\udcfcn"]
    strict = {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "ascii:strict", "LANG": "C"}
    ended = subprocess.run(
        [sys.executable, "-m", "tfhash.train", *arguments],
        env=os.environ | strict,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert rb"r\xfcn" in ended.stdout and b"\x1b[31m" not in ended.stdout
    return root / os.fsdecode(b"r\xfcn")


def test_the_run_has_every_name_as_it_is(trained, root):
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["flags"]["data_dir"] == f"{root}/d\udce9ta"
    with np.load(trained / "codes" / "database.npz", allow_pickle=False) as file:
        ids = file["ids"].tolist()
    assert len(ids) == 24 - 6
    assert {os.fsencode(id_.split("/")[0]) for id_ in ids} == set(CLASSES)
    assert all((root / os.fsdecode(b"d\xe9ta") / id_).is_file() for id_ in ids)
    pictures = sorted(path.name for path in (trained / "figures").iterdir())
    assert pictures == ["precision_at.png", "precision_recall.png", "top_results.png"]


def test_the_run_is_judged_drawn_reported_and_made_again(command, trained, root):
    again = command(train, f"--flagfile={trained}/flags.txt", f"--model_dir={trained}")
    assert again.status == 0, again
    judged = command(evaluate, f"--model_dir={trained}", "--encode", f"--output={root}/j.json")
    assert judged.status == 0, judged
    map_of_run = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))["map"]
    assert json.loads((root / "j.json").read_text(encoding="utf-8"))["map"] == map_of_run
    drawn = command(top_results, trained, trained, f"--output={root}/top\udcff.png")
    assert drawn.status == 0 and r"top\xff.png" in drawn.output, drawn
    assert matplotlib.image.imread(root / "top\udcff.png").size
    outputs = (f"--{flag}={root}/p\udcff.{flag}" for flag in ("output", "csv", "json"))
    reported = command(report, trained, *outputs, f"--figures_dir={root}/figures")
    assert reported.status == 0, reported
    page = (root / "p\udcff.output").read_text(encoding="utf-8")
    assert r"r\xfcn" in page
    records = json.loads((root / "p\udcff.json").read_text(encoding="utf-8"))
    assert f"{root}/r\udcfcn" in records[0]["command"]
    assert b"/r\xfcn" in (root / "p\udcff.csv").read_bytes()


def test_the_run_is_exported(command, trained):
    exported = command(export, f"--model_dir={trained}")
    assert exported.status == 0, exported
    assert "verified" in exported.output
    assert (trained / "export" / "1" / "saved_model.pb").is_file()


def test_a_run_is_finished_without_its_figures(command, root, trained, monkeypatch, caplog):
    """Whatever fails in a figure, the others are drawn, and metrics.json stands before them."""

    def fails(*_, **__):
        assert (root / "without" / "metrics.json").is_file()
        raise ValueError("no such font")

    fails.__name__ = "precision_at"
    monkeypatch.setattr(figures, "precision_at", fails)
    ended = command(train, *FLAGS, f"--data_dir={root}/d\udce9ta", f"--model_dir={root}/without")
    assert ended.status == 0, ended
    assert sum("precision_at.png (ValueError: no such font)" in m for m in caplog.messages) == 1
    pictures = sorted(path.name for path in (root / "without" / "figures").iterdir())
    assert pictures == ["precision_recall.png", "top_results.png"]


def test_a_benchmark_of_such_a_folder_finishes(command, root, trained, monkeypatch):
    """Its cells are trained in processes of their own, which print into a log of theirs."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii:strict")
    matrix = ["--methods=lsh", "--code_lengths=12", "--seeds=0", f"--out={root}/b\udcff"]
    options = [flag for flag in FLAGS if not flag.startswith(("--method", "--code_length"))]
    ended = command(benchmark, *matrix, *options, f"--data_dir={root}/d\udce9ta")
    assert ended.status == 0, ended
    (cell,) = (root / "b\udcff").glob("lsh_12*")
    assert (cell / "metrics.json").is_file()
    assert rb"d\xe9ta" in (cell / "log.txt").read_bytes()


def test_event_files_are_written_into_any_folder(tmp_path):
    from tfhash.training.callbacks import LogToTensorBoard

    log = LogToTensorBoard(tmp_path / "l\udcffgs")
    log.on_train_begin()
    with log.writer.as_default(step=0):
        tf.summary.scalar("loss", 1.0)
    log.on_train_end()
    assert list((tmp_path / "l\udcffgs").glob("events*"))
