"""--mirrored_codes for a run that was trained without: judged and exported, H as it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

import tfhash
import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import train
from tfhash.export import __main__ as export_command
from tfhash.runs import experiment, folder

pytestmark = pytest.mark.usefixtures("eagerly")

SPLIT = "--queries_per_class=3 --labelled_per_class=4 --code_length=12".split()
TINY = (*SPLIT, "--method=dhn", "--flip", "--steps=2", "--batch_size=6")


@pytest.fixture(scope="module")
def run(command, tmp_path_factory):
    """A finished run with mirror images among its views, and codes as H gives them."""
    directory = tmp_path_factory.mktemp("runs") / "plain"
    ended = command(train, f"--model_dir={directory}", *TINY)
    assert ended.status == 0, ended
    return directory


@pytest.fixture(scope="module")
def images(run) -> np.ndarray:
    """Such that an image and its mirror image differ; not to be scaled, for that rounds."""
    size = tfhash.load(run).image_size
    return np.random.default_rng(0).integers(0, 256, (40, size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(run, images) -> np.ndarray:
    """The mean of what H says of an image and of its mirror image."""
    plain = tfhash.load(run)
    of_image, of_mirror = plain.embed(images), plain.embed(images[:, :, ::-1])
    assert np.abs(of_image - of_mirror).max() > 1e-4
    return (of_image + of_mirror) / 2


def test_load_gives_them_on_demand(run, images, expected):
    mirrored = tfhash.load(run, mirrored_codes=True)
    np.testing.assert_allclose(mirrored.embed(images), expected, atol=1e-6)


def test_a_saved_folder_too_and_back_again(run, images, expected, tmp_path):
    tfhash.load(run).save(tmp_path / "plain")
    tfhash.load(tmp_path / "plain", mirrored_codes=True).save(tmp_path / "mirrored")
    again = tfhash.load(tmp_path / "mirrored")
    np.testing.assert_allclose(again.embed(images), expected, atol=1e-6)
    plain = tfhash.load(tmp_path / "mirrored", mirrored_codes=False)
    np.testing.assert_array_equal(plain.embed(images), tfhash.load(run).embed(images))


def test_evaluate_judges_them(command, run, tmp_path):
    path = tmp_path / "judged.json"
    given = (f"--model_dir={run}", "--encode", "--mirrored_codes", f"--output={path}")
    ended = command(evaluate, *given)
    assert ended.status == 0, ended
    assert "each code is of an image and its mirror image" in ended.output
    judged = json.loads(path.read_text())
    image_set, parts = experiment.load_data(folder.read(run)[0].experiment)
    hasher, rows = tfhash.load(run, mirrored_codes=True), (parts.query, parts.database)
    codes = [hasher.encode(image_set.images[some]) for some in rows]
    labels = [image_set.labels[some] for some in rows]
    by_hand = tfhash.evaluate(*codes, *labels, code_length=12)
    assert judged["map"] == pytest.approx(by_hand.map[None], abs=1e-12)
    assert judged["mirrored_codes"] is True
    assert judged["map"] != json.loads((run / "metrics.json").read_text())["map"]


def test_export_publishes_them_without_the_map_of_others(command, run, images, expected, tmp_path):
    given = (f"--model_dir={run}", "--noverify", f"--export_dir={tmp_path}", "--mirrored_codes")
    ended = command(export_command, *given)
    assert ended.status == 0, ended
    encode = tf.saved_model.load(str(tmp_path / "1")).signatures["encode_images"]
    embedding = encode(images=tf.constant(images))["embedding"]
    np.testing.assert_allclose(embedding, expected, atol=1e-5)
    metadata = json.loads((tmp_path / "1" / "assets.extra" / "tfhash.json").read_text())
    assert metadata["mirrored_codes"] is True and "map" not in metadata
    as_trained = export_command._read(run, tmp_path, {"mirrored_codes": False})[1]["metadata"]
    assert "mirrored_codes" not in as_trained and "map" in as_trained


def test_they_need_what_is_encoded_again(command, run):
    line = command(evaluate, f"--model_dir={run}", "--mirrored_codes").line("tfhash.evaluate")
    assert "--mirrored_codes: without --encode; allowed: with --encode" in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--method=itq"], "--mirrored_codes: True; ITQ encodes no mirror images; allowed: with"),
        (
            ["--method=dhn", "--steps=1", "--batch_size=6"],
            "--mirrored_codes: True; allowed with --flip",
        ),
    ],
    ids=["shallow", "no flips"],
)
def test_a_run_that_has_none(command, tmp_path, flags, words):
    given = f"--model_dir={tmp_path / 'run'}"
    assert command(train, given, *SPLIT, *flags).status == 0
    for module, more in ((evaluate, ["--encode"]), (export_command, ["--noverify"])):
        line = command(module, given, "--mirrored_codes", *more).line(module.NAME)
        assert words in line
    without = export_command._read(tmp_path / "run", tmp_path, {"mirrored_codes": False})
    assert "map" in without[1]["metadata"]
