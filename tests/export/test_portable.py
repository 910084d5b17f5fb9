"""tfhash.export.portable: one float32 graph for other runtimes, and the count of differing bits."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.data import sources
from tfhash.export import portable


def linear_encoder(code_length: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Flatten(),
            keras.layers.Dense(code_length, activation="sigmoid"),
        ]
    )


def test_difference_counts_bits(encoder, published):
    images = sources.load("digits").images[:1000]
    codes = np.packbits(encoder.predict(images.astype(np.float32), verbose=0) > 0.5, axis=-1)
    assert len(np.unique(codes, axis=0)) > 100  # else equal codes would show nothing
    none = portable.difference(codes, images, published)
    assert none == portable.Difference(bits=0, total=13_000, images=1_000)
    codes[3, 0] ^= 0b1010_0001
    codes[999, 1] ^= 0b1000_0000
    four = portable.difference(codes, images, published)
    assert str(four) == "4 of 13,000 bits differ, on 1,000 images"
    with pytest.raises(ValueError, match=r"codes: expected \[1000, 2\], received \[999, 2\]"):
        portable.difference(codes[1:], images, published)


@pytest.mark.parametrize("code_length", [1, 7, 8, 9, 64])
def test_the_graph_packs_as_numpy_does(code_length):
    encoder = linear_encoder(code_length)
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), np.uint8)
    answer = portable.trace(encoder, code_length, 4)(tf.constant(images))
    bits = encoder(images.astype(np.float32)).numpy() > 0.5
    np.testing.assert_array_equal(answer["bits"], bits)
    np.testing.assert_array_equal(answer["code"], np.packbits(bits, axis=-1))
    assert answer["code"].dtype == answer["bits"].dtype == tf.uint8


def test_low_precision_stays_out_of_the_graph_and_is_back_afterwards(tiny, encoder):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        low = tiny.encoder()
    finally:
        keras.config.set_dtype_policy("float32")
    policies = [layer.dtype_policy.name for layer in low.layers]
    assert "mixed_bfloat16" in policies
    function = portable.trace(low, 13, 16)
    operations = function.get_concrete_function().graph.get_operations()
    assert tf.bfloat16 not in {output.dtype for op in operations for output in op.outputs}
    assert [layer.dtype_policy.name for layer in low.layers] == policies
    # Both have the same seed, hence the same weights.
    images = tf.constant(tiny.images(20))
    expected = encoder(tf.cast(images, tf.float32), training=False)
    np.testing.assert_allclose(function(images)["embedding"], expected, atol=1e-6)


def test_a_wrong_code_length_is_named(encoder):
    with pytest.raises(ValueError, match=r"code_length: received 12, .* \[None, 13\]"):
        portable.trace(encoder, 12, 16)


def test_a_file_is_written_whole_or_not_at_all(monkeypatch, tmp_path):
    path = tmp_path / "new" / "encoder"
    assert portable.write(path, b"first") == path

    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(portable.os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        portable.write(path, b"second")
    assert [file.read_bytes() for file in path.parent.iterdir()] == [b"first"]


def test_quiet_drops_stderr_and_gives_it_back(capfd):
    with portable.quiet():
        portable.os.write(2, b"from C++\n")
        sys.__stderr__.write("from Python")  # no line yet, so still in Python's buffer
    print("afterwards", file=sys.__stderr__, flush=True)
    assert capfd.readouterr().err == "afterwards\n"
