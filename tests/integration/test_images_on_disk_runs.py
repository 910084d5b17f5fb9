"""A run whose images and features are in files is the run that has them in memory, to the bit."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits

import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import train
from tfhash.data import image_files
from tfhash.hashers import deep, spaces
from tfhash.networks import backbones, features
from tfhash.runs import experiment
from tfhash.runs.configurations import Configurations
from tfhash.training.run import Run

# Where the images are is a thing of datasets, which are graphs all the same.
pytestmark = pytest.mark.usefixtures("eagerly")

COUNT = 150
DEEP = {"steps": 3, "checkpoint_every": 1, "batch_size": 16, "backbone": "small_cnn"}
GAN = {"gan_steps": 2, "gan_width": 4, "noise_size": 3, "gan_size": 16, "stage0_steps": 2}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten classes of digits, at 16 px."""
    root = tmp_path_factory.mktemp("photos")
    digits = load_digits()
    for number in range(COUNT):
        path = root / f"{digits.target[number]}" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.uint8(digits.images[number] * 15)).resize((16, 16)).save(path)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small_cnn.weights.h5"
    backbones.build("small_cnn").get_layer("small_cnn").save_weights(path)
    return str(path)


@pytest.fixture(autouse=True)
def many_parts(monkeypatch):
    """150 images are many parts of everything that has parts."""
    monkeypatch.setattr(image_files, "_BLOCK", 40)
    monkeypatch.setattr(features, "CHUNK", 64)
    monkeypatch.setattr(features, "BATCH", 16)
    monkeypatch.setattr(deep, "_BATCH", 16)
    monkeypatch.setattr(deep, "_AT_ONCE", 2)
    monkeypatch.setattr(spaces, "_AT_ONCE", 2**16)


def learned(kind, folder, photos, values):
    """Codes, history and inputs of a training with images in memory or on disk."""
    given = Configurations.of(
        {"dataset": "folder", "data_dir": str(photos), "image_size": 16, "code_length": 12,
         "queries_per_class": 2, "labelled_per_class": 5, "cache_dir": str(folder / kind),
         "images_in": kind} | values
    )  # fmt: skip
    image_set, parts = experiment.load_data(given.experiment, given.settings.storage)
    assert isinstance(image_set.images, np.memmap) == (kind == "disk")
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    hasher = given.hasher(16)
    hasher.learn(image_set, parts, Run(folder / f"run_{kind}"))
    codes = hasher.encode_set(image_set)
    np.testing.assert_array_equal(codes, hasher.encode(np.array(image_set.images)))
    return codes, hasher.history


CASES = {
    "pixels": {"method": "itq"},
    "components": {"method": "itq", "features": "gist", "feature_components": 13},
    "backbone": {"method": "sh", "features": "backbone"},
    "dpsh": {"method": "dpsh", **DEEP},
    "features": {"method": "dpsh", "dpsh.space": "features", "flip": True, **DEEP},
    "graph": {"method": "bgdh", **DEEP},
    "trunk": {
        "method": "ssgah", "ssgah.gan_space": "trunk", "unlabelled_batch_size": 4, **DEEP,
        **{f"ssgah.{name}": value for name, value in GAN.items()},
    },
}  # fmt: skip


# "graph" learns from pixels too.
LONG = {"dpsh": pytest.mark.long}


@pytest.mark.parametrize(
    "values", [pytest.param(CASES[case], id=case, marks=LONG.get(case, ())) for case in CASES]
)
def test_codes_and_losses_are_the_same_both_ways(tmp_path, photos, weights, values):
    if "backbone" in values.get("features", "") or "dpsh.space" in values:
        values = values | {"weights": weights}
    expected, losses = learned("memory", tmp_path, photos, values)
    codes, of_disk = learned("disk", tmp_path, photos, values)
    np.testing.assert_array_equal(codes, expected)
    assert len(np.unique(codes, axis=0)) > 1
    assert of_disk == losses
    assert bool(losses) == ("steps" in values)


def test_commands_read_what_a_run_has_decoded(command, photos, tmp_path, monkeypatch):
    """`train --images_in=disk`, then `evaluate --encode` decodes nothing."""
    cache = [f"--cache_dir={tmp_path}/cache", "--images_in=disk"]
    command(
        train, "--method=itq", "--dataset=folder", f"--data_dir={photos}", "--image_size=16",
        "--code_length=12", "--queries_per_class=2", "--labelled_per_class=5",
        f"--model_dir={tmp_path}/run", *cache,
    )  # fmt: skip
    (folder,) = (tmp_path / "cache" / "images").iterdir()
    assert (folder / "rows").stat().st_size == COUNT * 16 * 16 * 3
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())

    def fill(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_files, "fill", fill)
    output = tmp_path / "again.json"
    command(evaluate, f"--model_dir={tmp_path}/run", "--encode", f"--output={output}", *cache)
    assert json.loads(output.read_text())["map"] == kept["map"]
