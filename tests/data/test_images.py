"""images: pixels worked out by hand; every refusal in eager mode and in a graph."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfhash.data import images

GRAPH_DECODE = tf.function(images.decode, input_signature=[tf.TensorSpec([], tf.string)])
EITHER_MODE = pytest.mark.parametrize(
    "decode", [images.decode, GRAPH_DECODE], ids=["eager", "graph"]
)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    png = encode(NOISE, "PNG")
    return png[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + png[24:]


def jpeg_that_claims(width: int, height: int) -> bytes:
    """The start of frame is FF C0, length (2 bytes), precision (1), height (2), width (2)."""
    jpeg = encode(NOISE, "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]


def test_resize_to_the_same_size_is_exact():
    """All 256 values survive, whether or not the size is known when the graph is traced."""
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    of_unknown_size = tf.function(
        lambda x: images.resize(x, 16),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    np.testing.assert_array_equal(images.resize(pixels, 16), pixels)
    np.testing.assert_array_equal(of_unknown_size(pixels), pixels)


def test_resize_enlarges_bilinearly_between_pixel_centres():
    """2 -> 4: the new centres lie at -1/4, 1/4, 3/4, 5/4 old pixels; beyond the ends is the end."""
    pixels = np.broadcast_to(np.uint8([0, 100])[None, :, None], (2, 2, 3))
    rows = np.asarray(images.resize(pixels, 4))[:, :, 0]
    np.testing.assert_array_equal(rows, [[0, 25, 75, 100]] * 4)


def test_resize_shrinks_with_antialiasing_and_rounds():
    """4 -> 1: a triangle of half-width 4 weighs the pixels 5:7:7:5; (5*0 + 7*0 + 7*0 + 5*255) / 24
    = 53.1 for columns 0 0 0 255. Without antialiasing it would be (0 + 0) / 2 = 0."""
    columns = np.broadcast_to(np.uint8([0, 0, 0, 255])[None, :, None], (4, 4, 3))
    np.testing.assert_array_equal(images.resize(columns, 1), np.full((1, 1, 3), 53))
    # 2 -> 1 weighs all four pixels alike: (0 + 10 + 20 + 33) / 4 = 15.75 is 16, not 15.
    four = np.repeat(np.uint8([[0, 10], [20, 33]])[..., None], 3, axis=-1)
    np.testing.assert_array_equal(images.resize(four, 1), np.full((1, 1, 3), 16))


def test_resize_of_one_image_equals_that_of_a_batch():
    np.testing.assert_array_equal(
        images.resize(NOISE, 10), images.resize(np.stack([NOISE, NOISE]), 10)[1]
    )
    assert images.resize(NOISE, 10).dtype == tf.uint8


def test_resize_refuses_other_dtypes():
    with pytest.raises(ValueError, match="images: expected uint8, received float32"):
        images.resize(NOISE.astype(np.float32), 10)


@EITHER_MODE
def test_decode_png_is_lossless(decode):
    np.testing.assert_array_equal(decode(encode(NOISE, "PNG")), NOISE)


@EITHER_MODE
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_decode_turns_grey_into_rgb(decode, form):
    """A constant block has only a DC coefficient, so JPEG keeps 128 (zero after centring)."""
    decoded = decode(encode(np.full((8, 8), 128, np.uint8), form))
    np.testing.assert_array_equal(decoded, np.full((8, 8, 3), 128))


def test_decode_has_a_static_rank_and_channels():
    assert GRAPH_DECODE.get_concrete_function().output_shapes.as_list() == [None, None, 3]


def test_decode_drops_alpha_and_the_palette():
    with_alpha = np.concatenate([NOISE, np.full((24, 16, 1), 7, np.uint8)], axis=-1)
    np.testing.assert_array_equal(images.decode(encode(with_alpha, "PNG")), NOISE)
    buffer = io.BytesIO()
    palette = Image.fromarray(NOISE).quantize(8)
    palette.save(buffer, "PNG")
    np.testing.assert_array_equal(images.decode(buffer.getvalue()), palette.convert("RGB"))


@EITHER_MODE
def test_decode_jpeg_uses_the_accurate_integer_dct(decode):
    jpeg = encode(NOISE, "JPEG")
    accurate, fast = (
        np.asarray(tf.io.decode_jpeg(jpeg, channels=3, dct_method=f"INTEGER_{method}"))
        for method in ("ACCURATE", "FAST")
    )
    np.testing.assert_array_equal(decode(jpeg), accurate)
    assert (accurate != fast).any()  # else the line above would prove nothing


@EITHER_MODE
@pytest.mark.parametrize("form", ["GIF", "BMP", "WEBP"])
def test_decode_refuses_other_formats(decode, form):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes: not a JPEG or PNG"):
        decode(encode(NOISE, form))


@EITHER_MODE
@pytest.mark.parametrize(
    "image_bytes", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff" + bytes(images.MAX_BYTES - 2)]
)
def test_decode_bounds_the_length(decode, image_bytes):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes: length out of range"):
        decode(image_bytes)


@EITHER_MODE
@pytest.mark.parametrize("claim", [png_that_claims, jpeg_that_claims])
@pytest.mark.parametrize("size", [(8193, 8), (8, 8193), (6400, 6400), (65500, 65500)])
def test_decode_bounds_the_size_in_the_header(decode, claim, size):
    """6400 * 6400 = 40.96 million pixels; libjpeg itself stops at 65,500 a side."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="image dimensions out of range"):
        decode(claim(*size))


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (2**32 - 1, 2**32 - 1)])
def test_decode_bounds_png_sizes_that_wrap_or_vanish(size):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image dimensions out of range"):
        images.decode(png_that_claims(*size))


def test_decode_lets_the_largest_sizes_pass_the_header_check():
    """8192 * 4882 is just below 40 million: what fails then is the made-up data."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid PNG"):
        images.decode(png_that_claims(8192, 4882))


@EITHER_MODE
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_decode_refuses_truncated_images(decode, form):
    image_bytes = encode(NOISE, form)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(image_bytes[: len(image_bytes) // 2 + 100])


def test_decode_of_a_bad_row_can_be_ignored_in_a_data_set():
    good = encode(NOISE, "PNG")
    rows = tf.data.Dataset.from_tensor_slices([good, b"not an image at all, just text", good])
    decoded = list(rows.map(images.decode).ignore_errors())
    assert [image.shape for image in decoded] == [(24, 16, 3)] * 2
