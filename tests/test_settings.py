"""Configurations: what a field may be, plain values, and the lines of a flagfile."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import asdict, dataclass

import numpy as np
import pytest

from tfhash import methods, settings
from tfhash.errors import UserError
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.methods.ssgah import SSGAHConfig
from tfhash.runs.configurations import Configurations
from tfhash.runs.experiment_settings import Experiment
from tfhash.settings import Configuration, setting, with_default


@dataclass(frozen=True)
class Toy(Configuration):
    count: int = setting(3, "how many", least=2)
    rate: float | None = setting(None, "how fast", above=0, most=1)
    ready: bool = setting(False, "whether")
    name: str | None = setting("a", "which", choices=("a", "b"))
    depths: tuple[int, ...] = setting((1, 2), "how deep", least=0)
    share: float = setting(0.5, "how much of it", least=0, below=1)
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
    assert settings.kind_of(Toy, name) == kind


def test_optional_is_what_may_be_none():
    optional = {name for name in settings.fields_of(Toy) if settings.is_optional(Toy, name)}
    assert optional == {"rate", "name"}


def test_lines_by_hand():
    """None has no line, an empty tuple has an empty one, a bool is in lower case."""
    toy = Toy(rate=1e-4, ready=True, name=None, depths=())
    assert settings.lines(toy, "toy.") == [
        "--toy.count=3", "--toy.rate=0.0001", "--toy.ready=true", "--toy.depths=",
        "--toy.share=0.5", "--toy.folder=here",
    ]  # fmt: skip
    assert settings.lines(Toy())[2:4] == ["--name=a", "--depths=1,2"]


def test_deciding_leaves_out_what_cannot_change_a_result():
    assert settings.deciding(Toy(), "toy.") == {
        "toy.count": 3, "toy.rate": None, "toy.ready": False, "toy.name": "a",
        "toy.depths": (1, 2), "toy.share": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "left_out"),
    [
        (Experiment(), {"data_dir", "name"}),
        (DeepSettings(), {"cache_dir", "images_in", "worker_wait"}),
        (SSGAHConfig(), {"stage0_dir", "stage1_dir"}),
    ],
)
def test_folders_and_labels_decide_nothing(config, left_out):
    assert set(asdict(config)) - set(settings.deciding(config)) == left_out


def test_build_passes_over_other_names_and_keeps_defaults():
    built = settings.build(Toy, {"count": 5, "depths": [7], "margin": 2})
    assert built == Toy(count=5, depths=(7,))


def test_build_checks_too():
    with pytest.raises(UserError, match="`count`: 1; allowed: at least 2"):
        settings.build(Toy, {"count": 1})


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
    assert settings.build(type(config), values) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "c"}, "`name`: 'c'; allowed: a, b"),
        ({"count": 1}, "`count`: 1; allowed: at least 2"),
        ({"depths": (5, -1, 7)}, "`depths`: -1; allowed: at least 0"),
        ({"rate": 0.0}, "`rate`: 0.0; allowed: above 0 and at most 1"),
        ({"rate": 1.5}, "`rate`: 1.5; allowed: above 0 and at most 1"),
        ({"share": 1}, "`share`: 1; allowed: at least 0 and below 1"),
        ({"share": -0.1}, "`share`: -0.1; allowed: at least 0 and below 1"),
        ({"count": 1, "share": 2.0}, "`count`: 1; allowed: at least 2"),
        ({"share": math.nan}, "`share`: nan; allowed: at least 0 and below 1"),
        ({"share": math.inf}, "`share`: inf; allowed: at least 0 and below 1"),
    ],
    ids=str,
)
def test_the_first_field_that_is_out_of_its_range_is_named(values, message):
    with pytest.raises(UserError) as error:
        Toy(**values)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 2.5}, "`count`: 2.5; allowed: whole numbers"),
        ({"count": 3.0}, "`count`: 3.0; allowed: whole numbers"),
        ({"count": "3"}, "`count`: '3'; allowed: whole numbers"),
        ({"count": True}, "`count`: True; allowed: whole numbers"),
        ({"count": None}, "`count`: None; allowed: whole numbers"),
        ({"rate": "fast"}, "`rate`: 'fast'; allowed: numbers"),
        ({"rate": False}, "`rate`: False; allowed: numbers"),
        ({"ready": 1}, "`ready`: 1; allowed: True or False"),
        ({"ready": "yes"}, "`ready`: 'yes'; allowed: True or False"),
        ({"folder": 7}, "`folder`: 7; allowed: text"),
        ({"folder": None}, "`folder`: None; allowed: text"),
        ({"depths": 5}, "`depths`: 5; allowed: a tuple of ints"),
        ({"depths": [1, 2]}, "`depths`: [1, 2]; allowed: a tuple of ints"),
        ({"depths": (1, 2.5)}, "`depths`: 2.5; allowed: whole numbers"),
        ({"depths": (1, None)}, "`depths`: None; allowed: whole numbers"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_named(values, message):
    with pytest.raises(UserError) as error:
        Toy(**values)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "values",
    [
        {"count": 2},
        {"count": np.int64(2)},
        {"rate": 1},
        {"rate": np.float32(0.5)},
        {"rate": None},
        {"name": None},
        {"name": "b"},
        {"depths": ()},
        {"depths": (0,)},
        {"share": 0},
        {"share": 0.999},
    ],
    ids=str,
)
def test_what_is_allowed_is_taken(values):
    """A whole number stands for a number; an end of a range is in it or not; None is a default."""
    ((name, value),) = values.items()
    assert getattr(Toy(**values), name) == value
    assert dataclasses.replace(Toy(), **values) == Toy(**values)


def test_replace_checks_too():
    with pytest.raises(UserError, match="`count`: 1; allowed: at least 2"):
        dataclasses.replace(Toy(), count=1)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"least": 2}, "allowed: at least 2"),
        ({"above": 0}, "allowed: above 0"),
        ({"most": 0.5}, "allowed: at most 0.5"),
        ({"below": 1}, "allowed: below 1"),
        ({"least": 0, "most": 1}, "allowed: 0 to 1"),
        ({"least": 0, "below": 1}, "allowed: at least 0 and below 1"),
        ({"above": 0, "below": 1}, "allowed: above 0 and below 1"),
        ({"below": 1, "above": 0}, "allowed: above 0 and below 1"),
        ({"above": 1e-7}, "allowed: above 1e-07"),
    ],
    ids=str,
)
def test_ranges_in_words(limits, words):
    assert settings.in_words(limits) == words


@dataclass(frozen=True)
class Derived(Toy):
    """Other defaults, and a field more."""

    count: int = with_default(Toy, "count", 7)
    extra: int = setting(0, "what else")


def test_a_field_with_another_default_keeps_all_else():
    assert (Toy().count, Derived().count) == (3, 7)
    assert list(settings.fields_of(Derived)) == [*settings.fields_of(Toy), "extra"]
    assert settings.fields_of(Derived)["count"].metadata["help"] == "how many"
    with pytest.raises(UserError, match="`count`: 1; allowed: at least 2"):
        Derived(count=1)


def test_explanations_say_what_is_allowed():
    """Choices stand there once: a text that names them all needs no list of them."""

    @dataclass(frozen=True)
    class Told(Configuration):
        kind: str = setting("new", "new or old", choices=("new", "old"))

    texts = {name: text for name, _, text in settings.explanations(Toy)}
    assert texts["count"] == "how many; allowed: at least 2"
    assert texts["rate"] == "how fast; allowed: above 0 and at most 1"
    assert texts["name"] == "which; one of a, b"
    assert texts["ready"] == "whether"
    assert [text for *_, text in settings.explanations(Told)] == ["new or old"]


def test_every_setting_of_every_method_is_allowed_by_default_and_in_a_group():
    for method in map(methods.get, methods.names()):
        for config_class in (method.Config, method.Settings):
            settings.check(config_class())
            for name, field in settings.fields_of(config_class).items():
                assert field.metadata["help"] and field.metadata["group"] in settings.GROUPS, name


def test_what_differs_from_the_paper_is_what_it_fixes_and_is_not_the_default():
    @dataclass(frozen=True)
    class Of(Configuration):
        margin: float = setting(1.0, "fixed by the paper")
        width: int = setting(64, "left open", open=True)
        folder: str = setting("a", "decides nothing", decides=False)
        betas: tuple[float, ...] = setting((1.0,), "fixed, a tuple")

    assert settings.not_as_published(Of()) == {}
    assert settings.not_as_published(Of(width=3, folder="b")) == {}
    changed = settings.not_as_published(Of(margin=2.0, betas=(1.0, 2.0)))
    assert changed == {"margin": 2.0, "betas": (1.0, 2.0)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"method": "ssgah", "backbone": "alexnet", "weights": "w.npy"}, {}),
        ({"method": "ssgah", "backbone": "alexnet"}, {"weights": None}),
        (
            {"method": "ssgah", "backbone": "squeezenet", "ssgah.weight_ar": 0.02},
            {"backbone": "squeezenet", "weight_ar": 0.02},
        ),
        ({"method": "dpsh", "backbone": "alexnet", "weights": "w.npy"}, {"backbone": "alexnet"}),
        (
            {"method": "dpsh", "backbone": "cnn_f", "dpsh.balanced_pairs": True},
            {"weights": None, "balanced_pairs": True},
        ),
        ({"method": "lsh", "features": "gist", "backbone": "squeezenet"}, {}),
        (
            {
                "method": "lsh",
                "features": "backbone",
                "backbone": "squeezenet",
                "weights": "w.npz",
            },
            {"backbone": "squeezenet"},
        ),
        ({"method": "dsh_gan", "backbone": "vgg19", "weights": "imagenet"}, {}),
    ],
)
def test_a_run_tells_its_network_where_it_is_not_the_paper_s(values, expected):
    assert Configurations.of(values).not_as_published == expected
