"""The cache of features: computed once, resumed, and never taken for those of something else."""

from __future__ import annotations

import errno
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.decomposition import PCA

from tfhash.errors import NotNowError, UserError
from tfhash.networks import backbones, features
from tfhash.storage.place import Storage

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


def make_network(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return backbones.build("small_cnn", **options)


class Unusable:
    """A network in all but that it computes nothing."""

    def __init__(self, network):
        self.name, self.layers, self.weights = network.name, network.layers, network.weights
        self.to_json, self.dtype_policy = network.to_json, network.dtype_policy
        self.output_shape = network.output_shape

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


@pytest.mark.parametrize("cache", [True, False])
def test_those_of_mirror_images_are_of_the_images_turned_around(tmp_path, cache):
    network = make_network()
    turned = np.ascontiguousarray(IMAGES[:, :, ::-1])
    expected = features.cached_features(network, turned, None)
    folder = tmp_path if cache else None
    found = features.cached_features(network, IMAGES, folder, mirrored=True)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, features.cached_features(network, IMAGES, folder))


def test_they_are_read_from_the_file_and_cannot_be_changed_by_mistake(tmp_path):
    found = features.cached_features(make_network(), IMAGES, tmp_path)
    assert isinstance(found, np.memmap) and not found.flags.writeable


def test_an_interrupted_computation_goes_on_with_the_missing_chunk(tmp_path, monkeypatch):
    """Two of three chunks are recorded; only the third is computed, of a network of zeros here."""
    network = make_network()
    first = np.array(features.cached_features(network, IMAGES, tmp_path))
    (directory,) = tmp_path.iterdir()
    record = directory / "record.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    record.write_bytes(b"".join(lines[:2]) + lines[2][:5])  # half of a line
    zeros = lambda batch: tf.zeros([len(batch), 256])  # noqa: E731
    monkeypatch.setattr(features, "_forward", lambda network: zeros)
    second = features.cached_features(network, IMAGES, tmp_path)
    np.testing.assert_array_equal(second[:8], first[:8])
    assert not second[8:].any() and first[8:].any()


def flip_a_bit(path):
    """Of a number in the second chunk: rows of 256 numbers of 4 bytes, 4 a chunk."""
    content = bytearray(path.read_bytes())
    content[5 * 256 * 4 + 7] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": (flip_a_bit, [4]),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:5000]), [4, 8]),
    "empty": (lambda path: path.write_bytes(b""), [0, 4, 8]),
}


@pytest.mark.parametrize(("damage", "rows"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_named_and_computed_anew(tmp_path, capsys, damage, rows):
    network = make_network()
    first = np.array(features.cached_features(network, IMAGES, tmp_path))
    (directory,) = tmp_path.iterdir()
    damage(directory / "rows")
    capsys.readouterr()
    second = features.cached_features(network, IMAGES, tmp_path)
    np.testing.assert_array_equal(first, second)
    expected = [f"{directory}/rows is damaged (row {row} on): made anew" for row in rows]
    assert capsys.readouterr().err.splitlines() == expected
    features.cached_features(Unusable(network), IMAGES, tmp_path)  # it is mended


def test_a_full_disk_is_one_line_and_what_was_computed_is_kept(tmp_path, monkeypatch):
    """The disk is full at the second of three chunks; then there is room."""
    network = make_network()
    expected = features.cached_features(network, IMAGES, None)
    plain, calls = os.pwrite, []

    def refuse(descriptor, data, offset):
        calls.append(offset)
        if offset == 4 * 256 * 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        with pytest.raises(NotNowError, match="`cache_dir`: cannot write to .*No space left"):
            features.cached_features(network, IMAGES, tmp_path)
    assert len(calls) == 3  # a chunk, its line, the next chunk
    computed = []
    forward = features._forward(network)

    def counted(batch):
        computed.append(len(batch))
        return forward(batch)

    monkeypatch.setattr(features, "_forward", lambda network: counted)
    found = features.cached_features(network, IMAGES, tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert sum(computed) == 6


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


@pytest.mark.parametrize("components", [None, 3])
def test_statistics_taken_part_by_part_are_those_of_all(components, tmp_path):
    """To the last bit what NumPy and PCA say of one array, in memory and on disk."""
    rng = np.random.default_rng(1)
    values = (rng.normal(3, 1, (50, 7)) * rng.random(7)).astype(np.float32)
    values[:, 2] = 1  # never varies
    positions = rng.permutation(50)[:41]
    some = values[positions]
    for storage in (None, Storage("disk", tmp_path)):
        layer = features.Standardise(7, components)
        layer.adapt(values, positions, storage)
        deviation = some.std(axis=0, dtype=np.float64)
        deviation[2] = 1
        mean = some.mean(axis=0, dtype=np.float64)
        np.testing.assert_array_equal(layer.mean, mean.astype(np.float32))
        np.testing.assert_array_equal(layer.deviation, deviation.astype(np.float32))
        scaled = (some - layer.mean.numpy()) / layer.deviation.numpy()
        expected = scaled
        if components:
            pca = PCA(components, svd_solver="covariance_eigh").fit(scaled.astype(np.float64))
            axes = pca.components_.T / np.sqrt(pca.explained_variance_.mean())
            np.testing.assert_array_equal(layer.axes, axes.astype(np.float32))
            expected = scaled @ layer.axes.numpy()
        found = np.zeros((41, components or 7), np.float32)
        layer.of(values, positions, found)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
