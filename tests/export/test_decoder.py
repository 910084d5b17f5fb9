"""tfhash.export.decoder: what stands before the network, as a SavedModel of its own."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfhash import exports
from tfhash.export import decoder
from tfhash.export.verify import VerificationError


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """JPEG and PNG of many sizes; the third is none."""
    generator = np.random.default_rng(0)
    contents = []
    for number in range(9):
        pixels = generator.integers(0, 256, (10 + 7 * number, 50, 3), np.uint8)
        write = tf.io.encode_png if number % 2 else tf.io.encode_jpeg
        contents.append(write(pixels).numpy())
    return [*contents[:2], b"\xff\xd8\xff no image", *contents[2:]]


@pytest.fixture(scope="module")
def decode(published):
    return tf.saved_model.load(str(published / exports.DECODER)).signatures


def test_its_pixels_give_the_codes_of_the_files(published, decode, files):
    whole = tf.saved_model.load(str(published))
    expected = whole.signatures["encode_bytes_partial"](image_bytes=tf.constant(files))
    decoded = decode["decode_bytes_partial"](image_bytes=tf.constant(files))
    valid = decoded["valid"].numpy()
    assert valid.tolist() == expected["valid"].numpy().tolist() == [True] * 2 + [False] + [True] * 7
    got = whole.signatures["encode_images"](images=decoded["images"])
    for output in ("code", "embedding"):
        np.testing.assert_array_equal(got[output][valid], expected[output][valid])
    assert len(np.unique(got["code"], axis=0)) > 3


def test_a_file_that_cannot_be_decoded_fails_decode_bytes(decode, files):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode["decode_bytes"](image_bytes=tf.constant(files))
    good = tf.constant(files[:2])
    images = decode["decode_bytes"](image_bytes=good)["images"]
    partial = decode["decode_bytes_partial"](image_bytes=good)["images"]
    np.testing.assert_array_equal(images, partial)
    assert images.shape == (2, 16, 16, 3)


def test_other_pixels_are_not_published(encoder, tiny, tmp_path, monkeypatch, in_this_process):
    write = decoder.write
    monkeypatch.setattr(decoder, "write", lambda folder, size, most: write(folder, size // 2, most))
    with pytest.raises(VerificationError, match="decode_bytes.*: other pixels than those of a PNG"):
        tiny.save(encoder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_has_the_limit_of_the_export(encoder, tiny, tmp_path):
    large = tf.io.encode_png(np.zeros([1001, 1000, 3], np.uint8)).numpy()
    for most, valid in ((1, False), (2, True)):
        path = tiny.save(encoder, tmp_path, images=None, max_image_megapixels=most)
        loaded = tf.saved_model.load(str(path / exports.DECODER))
        told = loaded.signatures["decode_bytes_partial"](image_bytes=tf.constant([large]))
        assert told["valid"].numpy().tolist() == [valid]
