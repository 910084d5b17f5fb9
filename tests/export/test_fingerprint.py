"""The fingerprint of an export: the same for the same codes, another for any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.data import images as image_ops
from tfhash.export import fingerprint, signatures

SIZE, CODE_LENGTH = 16, 13


def digits_of(encoder, image_size=SIZE) -> str:
    return signatures.fingerprint_of(encoder, CODE_LENGTH, image_size)


def in_json(published: Path) -> str:
    return json.loads((published / "assets.extra" / "tfhash.json").read_text())["fingerprint"]


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("serving_default", np.zeros([2, 5, 7, 3], np.uint8)),
        ("encode_images", np.zeros([3, SIZE, SIZE, 3], np.uint8)),
        ("encode_images", np.zeros([0, SIZE, SIZE, 3], np.uint8)),
        ("encode_bytes", np.array([tf.io.encode_png(np.zeros([2, 2, 3], np.uint8)).numpy()] * 2)),
        ("encode_bytes_partial", np.array([b"no image"], object)),
    ],
)
def test_every_row_of_every_answer_has_the_digits_of_the_description(
    published, answer, signature, value
):
    digits = in_json(published)
    assert len(digits) == 32 and not set(digits) - set("0123456789abcdef")
    assert answer(signature, value)["fingerprint"].tolist() == [digits.encode()] * len(value)


def test_a_second_export_has_the_same(tiny, encoder, published, tmp_path):
    again = tiny.save(tiny.encoder(), tmp_path, images=None, metadata={"method": "another"})
    assert in_json(again) == in_json(published)  # though the names of its layers count on
    assert again.name == published.name == "1"


def test_another_process_finds_the_same(encoder, tmp_path):
    """Where sets have another order, and names of layers and functions other numbers."""
    weights = tmp_path / "weights.npz"
    np.savez(weights, *encoder.get_weights())
    script = f"""
import keras, numpy as np, tensorflow as tf
from tests.export.conftest import tiny_encoder
from tfhash.export import fingerprint, signatures
for i in range(12):
    keras.Sequential([keras.Input([4, 4, 3]), keras.layers.Conv2D(2, 3)])
    tf.function(lambda x: tf.map_fn(tf.abs, x)).get_concrete_function(tf.zeros([i]))
encoder = tiny_encoder()
with np.load({str(weights)!r}) as file:
    encoder.set_weights(list(file.values()))
print(signatures.fingerprint_of(encoder, {CODE_LENGTH}, {SIZE}))
"""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "7"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [digits_of(encoder)]


def test_the_smallest_change_of_a_weight_is_seen(tiny):
    encoder = tiny.encoder()
    before = digits_of(encoder)
    weights = encoder.get_weights()
    weights[0].flat[3] = np.nextafter(weights[0].flat[3], np.float32(9))
    encoder.set_weights(weights)
    assert digits_of(encoder) != before


def negated(function):
    return lambda *arguments: 255 - function(*arguments)


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(signatures, "THRESHOLD", 0.4),
        lambda patch: patch.setattr(image_ops, "MAX_SIDE", 100),
        lambda patch: patch.setattr(image_ops, "decode", negated(image_ops.decode)),
        lambda patch: patch.setattr(image_ops, "resize", negated(image_ops.resize)),
    ],
)
def test_another_way_from_a_file_to_a_code_is_seen(encoder, monkeypatch, change):
    before = digits_of(encoder)
    change(monkeypatch)
    assert digits_of(encoder) != before


def test_another_network_of_the_same_weights_is_seen(tiny):
    def of(*more, policy="float32"):
        keras.config.set_dtype_policy(policy)
        try:
            return digits_of(tiny.encoder(*more))
        finally:
            keras.config.set_dtype_policy("float32")

    layer = keras.layers
    found = [
        of(),
        of(policy="mixed_bfloat16"),
        of(layer.ReLU()),
        of(layer.Rescaling(2)),
        of(layer.Rescaling(3)),
    ]
    assert len(set(found)) == len(found)
    assert of(layer.ReLU()) == found[2]


def test_it_is_that_of_exports_from_before_what_decodes_was_a_function_of_its_own(encoder):
    digits = {}
    for inlined in (True, False):
        function = tf.function(
            signatures.build(encoder, CODE_LENGTH, SIZE, inlined=inlined)["encode_bytes"],
            input_signature=[signatures.INPUTS["encode_bytes"]],
            autograph=False,
        )
        digits[inlined] = fingerprint.of(function.get_concrete_function())
    assert digits_of(encoder) == digits[True] != digits[False]
