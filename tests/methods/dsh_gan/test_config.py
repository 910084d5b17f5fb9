"""The hyperparameters of DSH-GANs: the paper's defaults, and ranges."""

from __future__ import annotations

import math

import pytest

from tfhash.errors import UserError
from tfhash.methods.dsh_gan import DSHGANConfig


def test_the_defaults_are_those_of_section_4_2():
    """The learning rates, momentum 0.9 of Adam, weight decay, margin, and the step of CIFAR-10."""
    config = DSHGANConfig()
    assert (config.gan_learning_rate, config.gan_beta_1) == (2e-4, 0.9)
    assert (config.hash_optimizer, config.hash_learning_rate) == ("sgd", 1e-4)
    assert (config.hash_schedule, config.hash_decay_steps) == ("step", 10_000)
    assert (config.weight_decay, config.margin, config.real_fraction) == (5e-4, 1.0, 0.0)
    assert config.classification and config.train_generator


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("real_fraction", 1.5),
        ("real_fraction", -0.1),
        ("real_fraction", math.nan),
        ("margin", -1.0),
        ("weight_adversary", -1.0),
        ("weight_class", -1.0),
        ("hash_schedule", "x"),
        ("space", "x"),
        ("dropout", 1.0),
        ("gan_size", 20),
    ],
)
def test_a_wrong_value_names_the_setting(field, value):
    with pytest.raises(UserError, match=f"`{field}`: {value!r}".replace("'", ".?")):
        DSHGANConfig(**{field: value})


def test_a_wrong_size_of_synthetic_images_names_the_sizes_that_there_are():
    with pytest.raises(UserError) as error:
        DSHGANConfig(gan_size=20)
    assert str(error.value) == "`gan_size`: 20; allowed: 16, 32, 64"
