"""GIST against the formulas computed slowly, what it must see and overlook, and where it must run.

The slow version shares nothing with the fast one: float64, loops over frequencies and cells, the
Fourier transforms as sums (products with matrices of exponentials), mirroring by indices.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.export import operations
from tfhash.features.gist import DIMENSION, gist

SIDE = 32
FREQUENCIES = [0.3, 0.3 / 1.85, 0.3 / 1.85**2, 0.3 / 1.85**3]  # cycles a pixel


def photos(count: int, height: int = SIDE, width: int = SIDE, seed: int = 0) -> np.ndarray:
    """uint8: noise, smooth enough to have energy at every scale."""
    noise = np.random.default_rng(seed).normal(size=(count, height + 6, width + 6, 3))
    for axis in (1, 2):
        noise = np.cumsum(noise, axis=axis)
        stop = noise.shape[axis]
        noise = np.take(noise, range(6, stop), axis) - np.take(noise, range(stop - 6), axis)
    return np.clip(128 + 12 * noise, 0, 255).astype(np.uint8)


def mirrored(image: np.ndarray, padding: int) -> np.ndarray:
    """... c b a | a b c ... : position -1 is 0, position n is n - 1."""
    count = len(image)
    positions = []
    for position in range(-padding, count + padding):
        if position < 0:
            position = -1 - position
        positions.append(position if position < count else 2 * count - 1 - position)
    return image[positions][:, positions]


def filtered(image: np.ndarray, transfer: np.ndarray, centred: np.ndarray) -> np.ndarray:
    """The sums of the discrete Fourier transform, over the centred frequencies -n/2 ... n/2 - 1."""
    waves = np.exp(2j * np.pi * np.outer(np.arange(len(image)), centred) / len(image))
    spectrum = waves.conj().T @ image @ waves.conj()
    return waves @ (spectrum * transfer) @ waves.T / len(image) ** 2


def slow_gist(image: np.ndarray) -> np.ndarray:
    """One image [32, 32, 3] -> [4, 8, 4, 4]."""
    grey = image.astype(np.float64).mean(axis=-1)
    grey = (grey - grey.min()) / (grey.max() - grey.min()) * 255

    padded = mirrored(np.log(grey + 1), 5)
    centred = np.arange(-len(padded) // 2, len(padded) // 2)
    deviation = 4 / math.sqrt(math.log(2))
    gaussian = np.exp(-(centred**2) / deviation**2)
    low_pass = np.outer(gaussian, gaussian)
    detail = padded - filtered(padded, low_pass, centred).real
    contrast = np.sqrt(np.abs(filtered(detail**2, low_pass, centred)))
    flat = (detail / (0.2 + contrast))[5:-5, 5:-5]

    padded = mirrored(flat, 32)
    side = len(padded)
    centred = np.arange(-side // 2, side // 2)
    result = np.empty((4, 8, 4, 4))
    for scale, frequency in enumerate(FREQUENCIES):
        for orientation in range(8):
            transfer = np.empty((side, side))
            for row, down in enumerate(centred):
                for column, right in enumerate(centred):
                    radius = math.hypot(right, down) / side
                    angle = math.atan2(down, right) + math.pi * orientation / 8
                    if angle > math.pi:
                        angle -= 2 * math.pi
                    transfer[row, column] = math.exp(
                        -10 * 0.35 * (radius / frequency - 1) ** 2 - 2 * math.pi * angle**2
                    )
            modulus = np.abs(filtered(padded, transfer, centred))[32:-32, 32:-32]
            for row in range(4):
                for column in range(4):
                    cell = modulus[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                    result[scale, orientation, row, column] = cell.mean()
    return result


def test_it_is_what_the_formulas_say():
    images = photos(3)
    expected = np.stack([slow_gist(image).ravel() for image in images])
    assert expected.std(axis=0).min() > 1e-4  # no number that is the same for every image
    np.testing.assert_allclose(gist(images), expected, rtol=1e-4, atol=1e-6)


def triangle_weights(source: int, target: int) -> np.ndarray:
    """[target, source]: linear interpolation, as wide as the step where it shrinks."""
    step = source / target
    centres = (np.arange(target)[:, None] + 0.5) * step - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(source) - centres) / max(step, 1))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("height", "width"), [(48, 80), (20, 32)])
def test_other_sizes_are_brought_to_size(height, width):
    images = photos(2, height, width)
    rows, columns = triangle_weights(height, SIDE), triangle_weights(width, SIDE)
    resized = np.einsum("ih,nhwc,jw->nijc", rows, images, columns)
    np.testing.assert_allclose(gist(images, size=SIDE), gist(resized), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", range(4))
def test_a_grating_excites_its_own_filter_most(scale):
    """The wave vector at 22.5 degrees * orientation, anticlockwise; rows count downwards."""
    size = 64
    down, right = np.mgrid[:size, :size]
    for orientation in range(8):
        angle = np.pi * orientation / 8
        phase = 2 * np.pi * FREQUENCIES[scale] * (right * np.cos(angle) - down * np.sin(angle))
        grating = np.repeat((128 + 100 * np.cos(phase))[None, ..., None], 3, axis=-1)
        energies = gist(grating, size=size).numpy().reshape(32, 16).mean(axis=-1)
        assert energies.argmax() == 8 * scale + orientation


def test_a_constant_image_gives_zeros():
    images = np.stack([np.full((SIDE, SIDE, 3), value, np.uint8) for value in (0, 77, 255)])
    np.testing.assert_array_equal(gist(images), np.zeros((3, DIMENSION)))


def test_brightness_and_contrast_are_overlooked():
    image = photos(1).astype(np.float32)
    np.testing.assert_allclose(gist(image / 255 * 0.3 + 0.5), gist(image), rtol=1e-3, atol=1e-5)


def test_colour_is_overlooked():
    """Only the mean of the three channels counts."""
    image = photos(1)
    np.testing.assert_allclose(gist(image[..., ::-1]), gist(image), rtol=1e-5, atol=1e-6)


def test_a_shift_within_a_cell_changes_little_and_one_to_another_cell_much():
    """A spot in a cell of 16 pixels, moved by 3 pixels and by a whole cell."""

    def spot(row: int, column: int) -> np.ndarray:
        down, right = np.mgrid[:64, :64]
        bump = np.exp(-((down - row) ** 2 + (right - column) ** 2) / (2 * 2**2))
        return np.repeat(255 * bump[None, ..., None], 3, axis=-1)

    here, near, far = (
        gist(spot(*centre), size=64).numpy() for centre in [(22, 24), (25, 24), (38, 24)]
    )
    assert np.linalg.norm(near - here) < 0.25 * np.linalg.norm(far - here)


def test_a_batch_is_its_images_one_by_one_every_time():
    images = photos(5)
    together = gist(images).numpy()
    assert together.shape == (5, 512) and together.dtype == np.float32
    one_by_one = np.concatenate([gist(images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(together, gist(images))
    assert gist(images[:0]).shape == (0, 512)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_images_give_what_uint8_gives(dtype):
    images = photos(2)
    np.testing.assert_array_equal(gist(images.astype(dtype)), gist(images))


@pytest.mark.parametrize(
    ("shape", "dtype", "size", "message"),
    [
        ((32, 32, 3), np.uint8, 32, r"images: shape \(32, 32, 3\); \[n, H, W, 3\] is needed"),
        ((1, 32, 32, 1), np.uint8, 32, r"images: shape \(1, 32, 32, 1\); \[n, H, W, 3\] is needed"),
        ((1, 32, 32, 3), np.int32, 32, "images: dtype int32; uint8 or floating is needed"),
        ((1, 32, 32, 3), np.uint8, 28, "size: 28; a multiple of 4 from 32 is needed"),
        ((1, 32, 32, 3), np.uint8, 50, "size: 50; a multiple of 4 from 32 is needed"),
    ],
)
def test_a_mistake_is_refused_in_one_line(shape, dtype, size, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        gist(np.zeros(shape, dtype), size=size)


def test_it_runs_in_a_tf_data_pipeline():
    images = photos(5)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(2).map(gist)
    assert batches.element_spec.shape.as_list() == [None, 512]
    found = np.concatenate([batch.numpy() for batch in batches])
    np.testing.assert_allclose(found, gist(images), rtol=1e-5, atol=1e-6)


def test_it_runs_in_a_saved_model_of_any_image_size(tmp_path):
    """Loaded as TF Serving loads it: a graph and a session, operations of TensorFlow 2.18 only."""
    module = tf.Module()
    module.serve = tf.function(
        lambda images: {"gist": gist(images)},
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    operations.check(tmp_path)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        signature = loaded.signature_def["serving_default"]
        served = [
            session.run(signature.outputs["gist"].name, {signature.inputs["images"].name: images})
            for images in (photos(3), photos(2, 40, 56))
        ]
    np.testing.assert_allclose(served[0], gist(photos(3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(served[1], gist(photos(2, 40, 56)), rtol=1e-5, atol=1e-6)
