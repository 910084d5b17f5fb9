"""What holds for every method that `import tfhash` offers, as scikit-learn's check_estimator does.

A new method is found by its module; where its defaults are too slow for a test, it gets smaller
settings in SMALL.
"""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import tfhash
from tfhash import methods
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.hashers.gan import GANHasher

NAMES = [methods.get(name).__name__ for name in methods.names()]
BITS = 12
DEEP = {"steps": 3, "batch_size": 12, "unlabelled_batch_size": 8, "checkpoint_every": 1}
# What a run that goes on has to have again: momentum, the masks of a step, a rate that falls.
DEEP |= {"dropout": 0.5, "hash_learning_rate": 0.01, "hash_schedule": "cosine"}
GAN = {"gan_steps": 2, "gan_size": 16, "gan_width": 4, "noise_size": 4}
SMALL = {
    "AGH": {"anchors": 20},
    "BGDH": {"anchors": 20},
    "CCAITQ": {"regularisation": 10.0},
    "DSDH": {"codes_every": 2},
    "MLH": {"updates": 20},
    "RBM": {"epochs": 2, "finetune_epochs": 1, "hidden_units": (16,)},
    "SSDH": {"graph_ramp": 4, "weight_graph": 1.0, "weight_pseudo": 1.0},
}


def class_of(name: str) -> type:
    return getattr(tfhash, name)


def make(name: str, **settings):
    cls = class_of(name)
    small = dict(SMALL.get(name, {}))
    if issubclass(cls, HashNetworkHasher):
        small |= DEEP
    if issubclass(cls, GANHasher):
        small |= GAN
    return cls(**{"code_length": BITS, **small, **settings})


@functools.cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """Real digits 0 to 2 at 8 px, uint8 [90, 8, 8, 3], and their classes, -1 of the last 30.

    They cannot be written to, so whoever changed what it was given would fail.
    """
    digits = load_digits(n_class=3)
    images = np.repeat(np.uint8(np.rint(digits.images[:90] * 15))[..., None], 3, axis=-1)
    labels = digits.target[:90].copy()
    labels[60:] = -1
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


@functools.cache
def fitted(name: str):
    images, labels = data()
    return make(name).fit(images, labels)


pytestmark = pytest.mark.usefixtures("eagerly")
each_method = pytest.mark.parametrize("name", NAMES)
# Those that train a network; tests/integration/test_resume.py has those with a GAN.
WITHOUT_GAN = [
    name
    for name in NAMES
    if issubclass(class_of(name), HashNetworkHasher) and not issubclass(class_of(name), GANHasher)
]


def test_every_method_has_its_class():
    assert {"SSGAH", "DSHGAN", "ITQ", "LSH", "SDH"} <= set(NAMES)
    for name in NAMES:
        assert class_of(name) is methods.get(class_of(name).method())
        assert name in dir(tfhash)


@each_method
def test_the_signature_has_a_keyword_for_every_flag(name):
    cls = class_of(name)
    keywords = inspect.signature(cls).parameters
    fields = {*cls.Settings.__dataclass_fields__, *cls.Config.__dataclass_fields__}
    assert set(keywords) == {"code_length", "image_size", "seed", *fields}
    assert not set(cls.Settings.__dataclass_fields__) & set(cls.Config.__dataclass_fields__)
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in keywords.values())


@each_method
def test_codes_have_the_packed_form_and_embeddings_their_range(name):
    images, _ = data()
    hasher = fitted(name)
    codes, embedding = hasher.encode(images), hasher.embed(images)
    assert codes.shape == (90, 2) and codes.dtype == np.uint8
    assert embedding.shape == (90, BITS) and embedding.dtype == np.float32
    assert 0 <= embedding.min() and embedding.max() <= 1
    np.testing.assert_array_equal(codes, np.packbits(embedding > 0.5, axis=1))
    np.testing.assert_array_equal(hasher.encode(images[7:8]), codes[7:8])


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in WITHOUT_GAN or name == "DHN"]
)
def test_the_same_seed_gives_the_same_codes_and_nothing_is_written(name, tmp_path, monkeypatch):
    """Labels as multi-hot rows, and what one object learned before, change nothing.

    The next test has the networks of other methods than DHN.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    images, labels = data()
    hasher = make(name)
    if not issubclass(class_of(name), GANHasher):  # which takes long
        hasher.fit(images[::-1], labels[::-1])
    multi_hot = (labels[:, None] == np.arange(3)).astype(np.int64)
    assert hasher.fit(images, multi_hot) is hasher
    np.testing.assert_array_equal(hasher.encode(images), fitted(name).encode(images))
    assert list(Path(tmp_path).rglob("*")) == []


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C at the end of the second epoch, before its checkpoint."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", WITHOUT_GAN)
def test_an_interrupted_run_goes_on_bit_for_bit(name, tmp_path):
    """From step 1 of 3 on, with all that a method keeps beside its weights; multi-hot labels."""
    images, labels = data()
    labels = (labels[:, None] == np.arange(3)).astype(np.int64)
    with pytest.raises(KeyboardInterrupt):
        make(name).fit(images, labels, run_dir=tmp_path, callbacks=[Interrupt()])
    again = make(name).fit(images, labels, run_dir=tmp_path)
    terms, of_whole = (hasher.history["hash"] for hasher in (again, fitted(name)))
    assert terms == {term: values[1:] for term, values in of_whole.items()}
    np.testing.assert_array_equal(again.embed(images), fitted(name).embed(images))


@each_method
def test_the_encoder_is_a_keras_model_that_can_be_saved(name, tmp_path):
    images, _ = data()
    encoder = fitted(name).encoder
    assert isinstance(encoder, keras.Model)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    x = images[:16].astype(np.float32)
    np.testing.assert_array_equal(loaded(x), encoder(x))


@each_method
def test_save_and_load(name, tmp_path):
    images, _ = data()
    fitted(name).save(tmp_path / "saved")
    loaded = tfhash.load(tmp_path / "saved")
    assert type(loaded) is class_of(name) and repr(loaded) == repr(fitted(name))
    np.testing.assert_array_equal(loaded.encode(images), fitted(name).encode(images))
    assert (loaded.settings, loaded.config) == (fitted(name).settings, fitted(name).config)


@each_method
def test_nothing_works_before_fit(name, tmp_path):
    images, _ = data()
    hasher = make(name)
    for use in (
        lambda: hasher.encode(images),
        lambda: hasher.embed(images),
        lambda: hasher.save(tmp_path / "never"),
        lambda: hasher.encoder,
        lambda: hasher.image_size,
    ):
        with pytest.raises(tfhash.UserError, match=f"{name} has not learned yet; call fit first"):
            use()
    assert not (tmp_path / "never").exists()


@each_method
@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), "float32 .* allowed: uint8"),
        (np.full((4, 8, 8, 3), np.nan), "float64 .* allowed: uint8"),
        (np.zeros((4, 8, 8), np.uint8), r"uint8 \[4, 8, 8\]; allowed"),
        (np.zeros((4, 8, 8, 4), np.uint8), r"uint8 \[4, 8, 8, 4\]; allowed"),
        (np.zeros((4, 8, 8, 3), np.int64), "int64"),
        (["no such file.png"], "1 of 1 files are unreadable"),
    ],
)
def test_other_images_are_refused_by_fit_and_encode(name, images, reason):
    with pytest.raises(tfhash.UserError, match=reason):
        make(name).fit(images, np.zeros(len(images), int))
    with pytest.raises(tfhash.UserError, match=reason):
        fitted(name).encode(images)


@each_method
@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.zeros(89, int), "89 of them for 90 images"),
        (np.zeros(90), "float64"),
        (np.full(90, np.nan), "float64"),
        (np.full(90, -2), "-2; allowed"),
        (np.full((90, 3), 2), "allowed: 0 and 1"),
        (np.zeros((90, 3, 1), int), "allowed: integers"),
    ],
)
def test_other_labels_are_refused(name, labels, reason):
    with pytest.raises(tfhash.UserError, match=f"labels: .*{reason}"):
        make(name).fit(data()[0], labels)


@each_method
def test_one_class_is_enough_or_is_refused_in_one_line(name):
    images, _ = data()
    refuses = class_of(name).learns_from_labels
    assert_fits_or_refuses(name, images[:40], np.zeros(40, int), refuses=refuses)


@each_method
def test_no_labels_are_enough_or_are_refused_in_one_line(name):
    images, _ = data()
    assert_fits_or_refuses(name, images[:40], None, refuses=class_of(name).learns_from_labels)


@each_method
def test_scores_start_around_0_where_asked_for(name, monkeypatch):
    """Before the first step; without it the first hash layer is what its seed makes of it."""
    if not issubclass(class_of(name), HashNetworkHasher):
        pytest.skip("no hash network")
    images, labels = data()
    found = {}

    def stop(hasher, learning_data, *_, **__):
        positions = learning_data.splits.labelled
        found[hasher.config.centred_start] = hasher.scores_of(learning_data, positions)
        raise InterruptedError

    monkeypatch.setattr(HashNetworkHasher, "make_batches", stop)
    monkeypatch.setattr(class_of(name), "make_batches", stop, raising=False)
    for centred in (False, True):
        with pytest.raises(InterruptedError):
            make(name, centred_start=centred).fit(images, labels)
    np.testing.assert_allclose(found[True].mean(axis=0), 0, atol=1e-4)
    assert np.abs(found[False].mean(axis=0)).max() > 0.1
    differences = found[True] - found[False]
    np.testing.assert_allclose(differences, differences[:1].repeat(60, axis=0), atol=1e-4)


@each_method
def test_labels_have_no_say_where_they_are_not_learned_from(name):
    if class_of(name).learns_from_labels:
        pytest.skip("learns from labels")
    images, labels = data()
    others = make(name).fit(images, 2 - labels % 3)  # other ones, and of all images
    np.testing.assert_array_equal(others.encode(images), fitted(name).encode(images))


@each_method
def test_one_image_is_enough_or_is_refused_in_one_line(name):
    images, labels = data()
    assert_fits_or_refuses(name, images[:1], labels[:1], refuses=None)


def assert_fits_or_refuses(name, images, labels, refuses):
    hasher = make(name)
    try:
        hasher.fit(images, labels)
    except tfhash.UserError as error:
        assert refuses is not False, error
        assert "\n" not in str(error) and len(str(error)) < 300
    else:
        assert not refuses, "it learned of what it has no use for"
        assert hasher.encode(images).shape == (len(images), 2)


@each_method
def test_empty_input(name):
    none = np.zeros((0, 8, 8, 3), np.uint8)
    with pytest.raises(tfhash.UserError, match="images: none; at least one image"):
        make(name).fit(none, np.zeros(0, int))
    assert fitted(name).encode(none).shape == (0, 2)
    assert fitted(name).embed(none).shape == (0, BITS)


@each_method
def test_images_of_another_size_are_resized(name):
    images, _ = data()
    larger = images[:20].repeat(3, axis=1).repeat(2, axis=2)
    resized = tf.image.resize(larger, (8, 8), antialias=True).numpy()
    hasher = fitted(name)
    assert hasher.image_size == 8
    expected = hasher.encode(np.uint8(np.clip(np.rint(resized), 0, 255)))
    np.testing.assert_array_equal(hasher.encode(larger), expected)


@each_method
def test_it_cannot_be_pickled_and_says_what_to_do(name):
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"use save\(directory\) and tfhash.load"):
            copying(fitted(name))


@each_method
def test_an_unknown_keyword_and_a_value_out_of_range_are_refused(name):
    with pytest.raises(tfhash.UserError, match="`bits`: no setting of .*code_length"):
        make(name, bits=12)
    for wrong in ({"code_length": 0}, {"code_length": 12.5}, {"seed": -1}, {"image_size": 0}):
        with pytest.raises(tfhash.UserError, match=f"`{next(iter(wrong))}`: .*allowed"):
            make(name, **wrong)


@each_method
def test_no_global_state_of_keras_is_changed(name):
    before = keras.config.dtype_policy()
    low = {"mixed_bfloat16": True} if issubclass(class_of(name), HashNetworkHasher) else {}
    make(name, **low)
    assert keras.config.dtype_policy() is before or keras.config.dtype_policy() == before
    fitted(name)
    assert keras.config.dtype_policy() == before
