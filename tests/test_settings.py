"""Configurations from plain values, and as the lines of a flagfile."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import pytest

from tfhash import settings as config_values
from tfhash.errors import UserError
from tfhash.hashers.deep import DeepSettings
from tfhash.methods.ssgah import SSGAHConfig
from tfhash.runs.experiment import Experiment
from tfhash.settings import setting


@dataclass(frozen=True)
class Toy:
    count: int = setting(3, "how many")
    rate: float | None = setting(None, "how fast")
    ready: bool = setting(False, "whether")
    name: str | None = setting("a", "which")
    depths: tuple[int, ...] = setting((1, 2), "how deep")
    folder: str = setting("here", "where", decides=False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("count", (int, None)),
        ("rate", (float, None)),
        ("ready", (bool, None)),
        ("name", (str, None)),
        ("depths", (tuple, int)),
    ],
)
def test_kind_of_looks_through_none_and_tuples(name, kind):
    assert config_values.kind_of(Toy, name) == kind


def test_lines_by_hand():
    """None has no line, an empty tuple has an empty one, a bool is in lower case."""
    toy = Toy(rate=1e-4, ready=True, name=None, depths=())
    assert config_values.lines(toy, "toy.") == [
        "--toy.count=3", "--toy.rate=0.0001", "--toy.ready=true", "--toy.depths=",
        "--toy.folder=here",
    ]  # fmt: skip
    assert config_values.lines(Toy())[-2:] == ["--depths=1,2", "--folder=here"]


def test_deciding_leaves_out_what_cannot_change_a_result():
    assert config_values.deciding(Toy(), "toy.") == {
        "toy.count": 3, "toy.rate": None, "toy.ready": False, "toy.name": "a",
        "toy.depths": (1, 2),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "left_out"),
    [
        (Experiment(), {"data_dir", "name"}),
        (DeepSettings(), {"cache_dir"}),
        (SSGAHConfig(), {"stage1_dir"}),
    ],
)
def test_folders_and_labels_decide_nothing(config, left_out):
    assert set(asdict(config)) - set(config_values.deciding(config)) == left_out


def test_build_passes_over_other_names_and_keeps_defaults():
    built = config_values.build(Toy, {"count": 5, "depths": ["7"], "margin": 2})
    assert built == Toy(count=5, depths=(7,))


@pytest.mark.parametrize(
    "config",
    [
        Experiment(map_at=(5, 10), precision_at=(), split_seed=3, validation_fraction=0.25),
        DeepSettings(feature_layers=("fire8", "fire9"), flip=True, weights="w.npy"),
        SSGAHConfig(margin_sr=12.0, gate=True, variant="w_ssr"),
    ],
)
def test_build_takes_what_json_gives_back(config):
    """A tuple comes back as a list."""
    values = json.loads(json.dumps(asdict(config)))
    assert config_values.build(type(config), values) == config


@pytest.mark.parametrize(
    ("toy", "message"),
    [
        (Toy(name="c"), "--x.name: 'c'; allowed: a, b"),
        (Toy(count=1), "--x.count: 1; at least 2 is allowed"),
        (Toy(depths=(5, -1, 7)), "--x.depths: -1; at least 0 is allowed"),
        (Toy(rate=0.5), "--x.rate: 0.5; at least 1 is allowed"),
    ],
)
def test_check_names_the_first_field_that_is_not_allowed(toy, message):
    """The fields of Toy() itself are allowed: a rate of None is a default."""
    bounds = {"choices": {"name": ("a", "b")}, "least": {"count": 2, "depths": 0, "rate": 1}}
    config_values.check(Toy(), "x.", **bounds)
    with pytest.raises(UserError) as error:
        config_values.check(toy, "x.", **bounds)
    assert str(error.value) == message
