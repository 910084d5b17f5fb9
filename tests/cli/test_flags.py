"""Flags from configurations, on flag values of their own: absl's global ones stay as they are."""

from __future__ import annotations

import dataclasses

import pytest
from absl import flags

from tfhash import settings
from tfhash.cli import flags as config_flags
from tfhash.errors import UserError
from tfhash.hashers.deep import DeepSettings
from tfhash.methods.ssgah import SSGAHConfig
from tfhash.runs.experiment_settings import Experiment


def parse(config_class, arguments, prefix=""):
    flag_values = flags.FlagValues()
    config_flags.define(config_class, prefix, flag_values)
    flag_values(["program", *arguments])
    return config_flags.parsed(config_class, prefix, flag_values)


@pytest.mark.parametrize("prefix", ["", "ssgah."])
@pytest.mark.parametrize(
    "config",
    [
        Experiment(),
        Experiment(map_at=(5, 10), precision_at=(), split_seed=3, validation_fraction=0.1 + 0.2),
        DeepSettings(),
        DeepSettings(feature_layers=("fire8", "fire9"), flip=True, weights="a b.npy", shift=0),
        SSGAHConfig(),
        SSGAHConfig(margin_sr=12.0, ar_updates_generator=False, gan_learning_rate=1e-5),
    ],
)
def test_lines_give_the_same_configuration_again(config, prefix, tmp_path):
    lines = settings.lines(config, prefix)
    assert parse(type(config), lines, prefix) == config
    flagfile = tmp_path / "flags.txt"
    flagfile.write_text("\n".join(lines) + "\n")
    assert parse(type(config), [f"--flagfile={flagfile}"], prefix) == config


@pytest.mark.parametrize("config_class", [Experiment, DeepSettings, SSGAHConfig])
def test_no_flag_is_the_default_and_each_field_has_a_flag_with_help(config_class):
    flag_values = flags.FlagValues()
    config_flags.define(config_class, "x.", flag_values)
    for field in dataclasses.fields(config_class):
        assert flag_values[f"x.{field.name}"].help.startswith(field.metadata["help"][:20])
    assert parse(config_class, []) == config_class()


def test_values_have_the_types_of_their_fields():
    """A float that was given as an integer, a tuple of int, a string that looks like a number."""
    experiment = parse(Experiment, ["--map_at=50,5000", "--validation_fraction=0", "--name=7"])
    assert experiment.map_at == (50, 5000)
    assert isinstance(experiment.validation_fraction, float)
    assert experiment.name == "7"
    settings = parse(DeepSettings, ["--flip", "--noxla"])
    assert (settings.flip, settings.xla) == (True, False)


def test_a_wrong_item_of_a_list_is_refused_in_one_line():
    with pytest.raises(UserError) as error:
        parse(Experiment, ["--map_at=50,all"])
    expected = "--map_at: 50,all; allowed: ints with commas between them"
    assert str(error.value) == expected


def test_a_wrong_number_is_refused_by_absl():
    with pytest.raises(flags.IllegalFlagValueError, match="ssgah.margin_ar"):
        parse(SSGAHConfig, ["--ssgah.margin_ar=wide"], "ssgah.")


def test_the_configuration_itself_refuses_what_its_type_allows():
    with pytest.raises(UserError, match="`strategy`: 'parallel'; allowed: one_device"):
        parse(DeepSettings, ["--strategy=parallel"])
