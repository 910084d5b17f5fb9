"""The weights that training starts from: a seed gives the same ones in every release.

Kept results and users' run folders rest on it. The numbers are sums of squares of all weights of a
network as this library made them when the test was written; they change where a seed, an
initializer, a width or the order of layers does.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfhash.hashers.deep_settings import DeepSettings
from tfhash.methods.dsh_gan import DSHGAN, DSHGANConfig
from tfhash.methods.ssgah import SSGAH, SSGAHConfig


def energy(network: keras.Model) -> float:
    return float(sum(np.square(np.asarray(w), dtype=np.float64).sum() for w in network.weights))


def ssgah(**options) -> dict[str, keras.Model]:
    config = SSGAHConfig(gan_width=8, noise_size=5, condition_size=6, **options)
    hasher = SSGAH.of(config, DeepSettings(), code_length=12, image_size=16, seed=3)
    hasher._build_gan()
    return hasher.networks


def dsh_gan(**options) -> dict[str, keras.Model]:
    config = DSHGANConfig(gan_width=8, noise_size=5, **options)
    hasher = DSHGAN.of(config, DeepSettings(), code_length=12, image_size=16, seed=3)
    hasher._build(10)
    return hasher.networks


@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (
            ssgah,
            {},
            {
                "hash_network": 600.488579,
                "condition": 10.888844,
                "generator_p": 118.404781,
                "generator_n": 118.494655,
                "discriminator": 100.71832,
            },
        ),
        (
            ssgah,
            {
                "gan_size": 16,
                "discriminator": "siamese",
                "discriminator_batch_norm": False,
                "hidden_units": 7,
            },
            {
                "hash_network": 600.609175,
                "condition": 4.41346837,
                "generator_p": 50.0346552,
                "generator_n": 50.1165774,
                "discriminator": 122.353164,
            },
        ),
        (
            dsh_gan,
            {},
            {
                "hash_network": 600.488579,
                "streams": 601.57769,
                "generator": 119.189115,
                "discriminator": 102.447367,
            },
        ),
        (
            dsh_gan,
            {"gan_size": 64},
            {
                "hash_network": 600.488579,
                "streams": 601.57769,
                "generator": 263.535259,
                "discriminator": 245.731119,
            },
        ),
    ],
)
def test_a_seed_gives_the_same_start(make, options, expected):
    found = {name: energy(network) for name, network in make(**options).items()}
    assert found == pytest.approx(expected, rel=1e-5)


def test_another_seed_gives_another_start():
    """All networks of a method draw from seeds of their own, too: no two start alike."""
    found = [energy(network) for network in ssgah().values()]
    assert len({round(value, 3) for value in found}) == len(found)
