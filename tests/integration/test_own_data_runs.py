"""Runs on images with several labels, with triplets alone, and of an ImageSet made in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import figures, train
from tfhash.data.sources import ImageSet
from tfhash.errors import UserError
from tfhash.export import __main__ as export
from tfhash.hashers.shallow import ShallowSettings
from tfhash.methods.lsh import LSHConfig
from tfhash.runs import experiment, finished
from tfhash.runs.configurations import Configurations
from tfhash.training.run import Run

IMAGES = 24
COUNTS = ["--queries_per_class=3", "--labelled_per_class=2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Image i is of noise; its name is its number."""
    root = tmp_path_factory.mktemp("own")
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{index:02d}.png")
    return root


@pytest.fixture
def lsh(command, photos, tmp_path):
    """lsh(*flags): trains LSH on the photos in tmp_path / "run"; what the command left."""

    def run(*flags: str):
        return command(
            train,
            "--method=lsh",
            "--code_length=16",
            "--image_size=16",
            f"--data_dir={photos}/photos",
            f"--cache_dir={tmp_path}/cache",
            f"--model_dir={tmp_path}/run",
            *flags,
        )

    return run


def metrics_of(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_several_labels_are_split_judged_and_drawn(lsh, tmp_path, monkeypatch):
    """Image i has `two`, `three`, both or none by whether these divide i: 12 + 8 - 4 = 16 have
    one, and 3 queries a class, no image for both, are 6 of them."""
    rows = [(f"{i:02d}.png", [n for n, d in (("two", 2), ("three", 3)) if i % d == 0])
            for i in range(IMAGES)]  # fmt: skip
    table = tmp_path / "labels.csv"
    table.write_text("path,labels\n" + "".join(f"{i},{';'.join(names)}\n" for i, names in rows))
    drawn = {}
    monkeypatch.setattr(figures, "top_results", lambda *_, **given: drawn.update(given))
    ended = lsh("--dataset=csv", f"--labels_csv={table}", *COUNTS)
    assert ended.status == 0, ended
    assert "csv: 8 images without a label, 0 of them not in the CSV" in ended.output
    assert "6 query, 10 database, 4 labelled, 0 validation, 14 unlabelled" in ended.output
    with np.load(tmp_path / "run" / "codes" / "query.npz") as query:
        expected = [sorted(dict(rows)[id_]) for id_ in query["ids"]]
    first = [next(row for row in expected if name in row) for name in ("three", "two")]
    assert drawn["query_names"] == ["\n".join(names) for names in first]
    assert 0 < metrics_of(tmp_path)["map"] <= 1


@pytest.fixture
def triplets(tmp_path) -> Path:
    """Six triplets (i, i + 1, i + 12); none of their queries stands in another of them."""
    path = tmp_path / "triplets.csv"
    rows = [(i, i + 1, i + 12) for i in (0, 2, 4, 6, 8, 10)]
    path.write_text("".join(",".join(f"{i:02d}.png" for i in row) + "\n" for row in rows))
    return path


def test_triplets_alone_are_split_and_judged(lsh, command, triplets, tmp_path):
    """round(.5 * 6) = 3 queries. The figure again, from the codes that the run left, by brute
    force; no image is known to be relevant, so there is neither mAP nor a curve to draw."""
    ended = lsh(
        "--dataset=images",
        "--protocol=triplets",
        "--held_out_fraction=.5",
        f"--triplets_csv={triplets}",
    )
    assert ended.status == 0, ended
    assert "3 query, 21 database, 9 labelled, 0 validation, 12 unlabelled" in ended.output
    metrics = metrics_of(tmp_path)
    assert metrics["map"] is None and metrics["triplet_count"] == 3
    assert not list((tmp_path / "run").glob("figures/*"))

    bits, ids = {}, {}
    for part in ("query", "database"):
        with np.load(tmp_path / "run" / "codes" / f"{part}.npz") as file:
            ids[part] = file["ids"]
            bits |= dict(zip(file["ids"], np.unpackbits(file["codes"], axis=1), strict=True))
    points = []
    for query in (int(id_[:2]) for id_ in ids["query"]):
        q, p, n = (bits[f"{i:02d}.png"] for i in (query, query + 1, query + 12))
        nearer, farther = (q != p).sum(), (q != n).sum()
        points.append(1 if nearer < farther else 0.5 if nearer == farther else 0)
    assert metrics["triplet_accuracy"] == pytest.approx(np.mean(points))

    figure = f"triplet accuracy, chance .5 {metrics['triplet_accuracy']:.4f}"
    for option in ("--noencode", "--encode"):
        again = command(evaluate, f"--model_dir={tmp_path}/run", option)
        assert again.status == 0, again
        assert figure in again.output and "mAP" not in again.output


@pytest.fixture
def made_in_python(tmp_path) -> Path:
    """The folder of a run on an ImageSet that no flag can name."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 16, 16, 3), np.uint8)
    labels = np.eye(2, dtype=np.uint8)[np.arange(IMAGES) % 2]
    mine = ImageSet("mine", images, labels, ("even", "odd"), tuple(map(str, range(IMAGES))))
    config = experiment.Experiment(method="lsh", queries_per_class=2, labelled_per_class=2)
    directory = tmp_path / "run"
    settings = ShallowSettings(cache_dir=str(tmp_path / "cache"))
    given = Configurations(config, settings, LSHConfig())
    experiment.run(given, Run(directory), image_set=mine)
    np.testing.assert_array_equal(finished.sample_images(directory, 3), images[[0, 11, 23]])
    return directory


def test_a_run_of_python_tells_its_classes(capfd, made_in_python):
    told = f"mine: {IMAGES} images: 2 classes (even 12, odd 12), 0 without a label"
    assert told in capfd.readouterr().out


def test_a_run_of_python_is_judged_again_and_not_encoded_again(command, made_in_python):
    assert json.loads((made_in_python / "metrics.json").read_text())["dataset"] == "mine"
    assert command(evaluate, f"--model_dir={made_in_python}").status == 0
    refused = command(evaluate, f"--model_dir={made_in_python}", "--encode")
    assert refused.status == 2 and "--encode: the images of the run, 'mine'" in refused.errors


def test_a_run_of_python_is_exported_on_samples_that_it_kept(command, made_in_python):
    """In one line where they are gone, and then without verification."""
    (made_in_python / "samples.npz").unlink()
    refused = command(export, f"--model_dir={made_in_python}")
    assert refused.status == 2 and "samples.npz" in refused.errors
    assert "--noverify" in refused.errors and len(refused.errors.splitlines()) == 1
    with pytest.raises(UserError, match="cannot read images of the run from .*samples.npz"):
        finished.sample_images(made_in_python, 3)
