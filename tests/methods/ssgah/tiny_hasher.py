"""SSGAH as a Hasher, small enough to learn in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tfhash.hashers.deep_settings import DeepSettings
from tfhash.methods.ssgah import SSGAH, SSGAHConfig

SETTINGS = DeepSettings(steps=2, batch_size=12, unlabelled_batch_size=6, checkpoint_every=2)
CONFIG = SSGAHConfig(
    gan_steps=2, gan_size=16, gan_width=4, condition_size=4, noise_size=4, hash_learning_rate=0.1
)


def make(config=CONFIG, settings=SETTINGS, bits=12, seed=0, image_size=16):
    return SSGAH.of(config, settings, code_length=bits, image_size=image_size, seed=seed)


class Learned(NamedTuple):
    """One that has learned, what it said, and where it keeps its stages before the last."""

    hasher: SSGAH
    facts: dict[str, Any]
    stage1: Path
    stage0: Path | None = None
