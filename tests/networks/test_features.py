"""The cache of features: computed once, resumed, and never taken for those of something else."""

from __future__ import annotations

import errno
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import NotNowError, UserError
from tfhash.networks import backbones, features

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


def make_network(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return backbones.build("small_cnn", **options)


class Unusable:
    """A network in all but that it computes nothing."""

    def __init__(self, network):
        self.name, self.layers, self.weights = network.name, network.layers, network.weights
        self.to_json, self.dtype_policy = network.to_json, network.dtype_policy

    def __call__(self, images, training):
        raise AssertionError("computed again")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Ten images are chunks of 4, 4 and 2, and batches of 3, 1, 3, 1 and 2."""
    monkeypatch.setattr(features, "CHUNK", 4)
    monkeypatch.setattr(features, "BATCH", 3)


def test_they_are_what_the_network_answers(tmp_path):
    network = make_network()
    found = features.cached_features(network, IMAGES, tmp_path)
    expected = network(tf.cast(IMAGES, tf.float32), training=False)
    assert (found.shape, found.dtype) == ((10, 256), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_second_call_only_reads(tmp_path, capsys):
    network = make_network()
    first = features.cached_features(network, IMAGES, tmp_path)
    assert "3/3" in capsys.readouterr().out
    second = features.cached_features(Unusable(network), IMAGES, tmp_path)
    np.testing.assert_array_equal(first, second)
    assert capsys.readouterr().out == ""


def test_an_interrupted_computation_goes_on_with_the_missing_chunk(tmp_path):
    """A chunk that is there is taken as it is, here one of zeros; a missing one is computed."""
    network = make_network()
    first = features.cached_features(network, IMAGES, tmp_path)
    (directory,) = tmp_path.iterdir()
    chunks = sorted(directory.iterdir())
    assert [chunk.name for chunk in chunks] == [f"{start:09d}.npz" for start in (0, 4, 8)]
    np.savez(chunks[0], features=np.zeros_like(first[:4]))
    chunks[1].unlink()
    (directory / ".000000004.tmp-1.npz").write_bytes(b"half of a file")
    second = features.cached_features(network, IMAGES, tmp_path)
    assert not second[:4].any()
    np.testing.assert_array_equal(second[4:], first[4:])


def flip_a_bit(path):
    """Of a number, far from the file's structure."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": flip_a_bit,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path: path.write_bytes(b""),
    "rows of another chunk": lambda path: np.savez(path, features=np.zeros([3, 256], np.float32)),
    "another dtype": lambda path: np.savez(path, features=np.zeros([4, 256])),
    "other arrays": lambda path: np.savez(path, codes=np.zeros([4, 256], np.float32)),
    "objects": lambda path: np.savez(path, features=np.array([None])),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_chunk_is_named_and_computed_anew(tmp_path, capsys, damage):
    network = make_network()
    first = features.cached_features(network, IMAGES, tmp_path)
    (directory,) = tmp_path.iterdir()
    damage(directory / "000000004.npz")
    capsys.readouterr()
    second = features.cached_features(network, IMAGES, tmp_path)
    np.testing.assert_array_equal(first, second)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{directory}/000000004.npz is damaged (") and line.endswith("anew")
    features.cached_features(Unusable(network), IMAGES, tmp_path)  # it is mended


def test_a_full_disk_is_one_line_that_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(NotNowError, match="`cache_dir`: cannot write to .*No space left"):
        features.cached_features(make_network(), IMAGES, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="`cache_dir`: cannot write to .*cache"):
        features.cached_features(make_network(), IMAGES, tmp_path / "cache")


def test_two_builds_of_one_backbone_have_one_fingerprint():
    """Keras numbers the layers of the second build on, and the names must not matter."""
    first, second = make_network(), make_network()
    assert first.to_json() != second.to_json()
    assert features.fingerprint(first, IMAGES) == features.fingerprint(second, IMAGES)


def different(case):
    """The fingerprint of something else than the network and the images of the others."""
    network, images = make_network(), IMAGES
    if case == "images":
        images = IMAGES.copy()
        images[9, 7, 7, 2] ^= 1
    elif case == "shape of the images":
        images = IMAGES.reshape(10, 4, 16, 3)
    elif case == "order of the images":
        images = IMAGES[::-1]
    elif case == "weights":
        network = make_network(seed=1)
    elif case == "one weight":
        kernel = network.weights[0].numpy()
        kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], 2)
        network.weights[0].assign(kernel)
    elif case == "input size":
        network = make_network(input_size=16)
    elif case == "feature layers":
        network = make_network(feature_layers=("conv3",))
    elif case == "other feature layers":
        network = make_network(feature_layers=("norm3",))
    elif case == "order of the feature layers":
        network = make_network(feature_layers=("norm3", "conv3"))
    elif case == "the other order of them":
        network = make_network(feature_layers=("conv3", "norm3"))
    return features.fingerprint(network, images)


def test_anything_that_can_change_features_changes_the_fingerprint():
    cases = (
        "none", "images", "shape of the images", "order of the images", "weights", "one weight",
        "input size", "feature layers", "other feature layers", "order of the feature layers",
        "the other order of them",
    )  # fmt: skip
    fingerprints = {case: different(case) for case in cases}
    assert len(set(fingerprints.values())) == len(cases), fingerprints
    assert all(len(value) == 32 for value in fingerprints.values())


def test_the_precision_changes_the_fingerprint():
    """What was computed in bfloat16 is not what float32 gives."""
    expected = features.fingerprint(make_network(), IMAGES)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert features.fingerprint(make_network(), IMAGES) != expected
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_folder_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    features.cached_features(make_network(), IMAGES, "~/cache/tfhash")
    assert len(list((tmp_path / "cache" / "tfhash").iterdir())) == 1
