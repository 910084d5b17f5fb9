"""One small encoder, published once, and behind a v1 Session, TF Serving's kind of loader."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.export import save, verify

SIZE, CODE_LENGTH = 16, 13  # 13 bits take two bytes, three low bits unused
RUN = {
    "method": "ssgah",
    "dataset": "digits",
    "protocol": "digits",
    "split_fingerprint": "0123",
    "seed": 0,
    "ties": "expected",
    "map": 0.5,
}


def tiny_encoder(*more: keras.layers.Layer) -> keras.Model:
    """Untrained, with what an encoder may hold; its codes differ between the images below."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            *more,
            keras.layers.Flatten(),
            keras.layers.Dense(CODE_LENGTH, activation="sigmoid", dtype="float32"),
        ]
    )


def random_images(count: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, height, width, 3), np.uint8)


def save_tiny(encoder: keras.Model, export_dir: Path, **changes) -> Path:
    arguments = {
        "code_length": CODE_LENGTH,
        "image_size": SIZE,
        "metadata": RUN,
        "images": random_images(40),  # more than one batch of the verification
        "export_dir": export_dir,
    }
    return save(encoder, **(arguments | changes))


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    return SimpleNamespace(encoder=tiny_encoder, images=random_images, save=save_tiny, run=RUN)


@pytest.fixture(scope="session")
def encoder():
    return tiny_encoder()


@pytest.fixture(scope="session")
def published(encoder, tmp_path_factory):
    return save_tiny(encoder, tmp_path_factory.mktemp("run") / "export")


@pytest.fixture(scope="session")
def answer(published):
    """answer(signature, value): every output of a signature, through a v1 Session."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        model = tf.compat.v1.saved_model.load(session, ["serve"], str(published))

    def call(signature, value):
        signature_def = model.signature_def[signature]
        (tensor,) = signature_def.inputs.values()
        fetches = {name: output.name for name, output in signature_def.outputs.items()}
        return session.run(fetches, {tensor.name: value})

    yield call
    session.close()


@pytest.fixture
def in_this_process(monkeypatch):
    """Verification without its second process, which takes seconds to import TensorFlow.

    The fixture `published` has been through that process.
    """

    def answers(folder, cases):
        return verify._answers(str(folder), [case[:3] for case in cases])

    monkeypatch.setattr(verify, "_answers_of_new_process", answers)
