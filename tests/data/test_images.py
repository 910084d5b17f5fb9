"""images: pixels worked out by hand; every refusal in eager mode and in a graph."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfhash import files
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


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("colours", [2, 4, 8, 16, 200])
def test_decode_turns_a_palette_into_rgb(colours):
    """Of 1, 2, 4 and 8 bits a pixel, opaque."""
    palette = Image.fromarray(NOISE).quantize(colours)
    np.testing.assert_array_equal(images.decode(saved(palette, "PNG")), palette.convert("RGB"))


@EITHER_MODE
def test_decode_puts_transparent_parts_on_white(decode):
    """c * a + 255 * (1 - a), rounded: 100 at 51 / 255 = 1/5 gives 20 + 204 = 224; at 0 255."""
    rgba = np.uint8([[[100, 0, 255, 51], [9, 9, 9, 0], [1, 2, 3, 255]]])
    np.testing.assert_array_equal(
        decode(encode(rgba, "PNG")), [[[224, 204, 255], [255, 255, 255], [1, 2, 3]]]
    )
    every = np.stack(np.meshgrid(range(256), range(256)), -1).astype(np.uint8)
    rgba = every[..., [0, 0, 0, 1]]
    colour, opacity = every[..., :1] / 1.0, every[..., 1:] / 255
    expected = np.floor(colour * opacity + 255 * (1 - opacity) + 0.5).repeat(3, -1)
    np.testing.assert_array_equal(decode(encode(rgba, "PNG")), expected)


def test_decode_puts_a_transparent_colour_of_a_palette_on_white():
    """A black circle and a black square on nothing are two images, not one."""
    black = Image.new("P", (4, 4), 1)
    black.putpalette([0, 0, 0, 0, 0, 0])
    black.putpixel((0, 0), 0)
    for image in (black, black.convert("L"), black.convert("RGB").convert("P")):
        image.putpixel((0, 0), 0 if image is black else 7)
        decoded = images.decode(saved(image, "PNG", transparency=image.getpixel((0, 0)))).numpy()
        assert decoded[0, 0].tolist() == [255, 255, 255] and decoded[1:].max() == 0


@EITHER_MODE
@pytest.mark.parametrize("megapixels", [1, 4])
def test_decode_reduces_a_large_jpeg_and_refuses_a_large_png(decode, megapixels):
    """1,600 x 1,000 px: above 1 megapixel, so every second pixel each way; not above 4."""
    photo = Image.fromarray(NOISE[:2, :2]).resize((1600, 1000), Image.Resampling.NEAREST)
    function = (
        tf.function(lambda x: images.decode(x, megapixels))
        if decode is GRAPH_DECODE
        else (lambda x: images.decode(x, megapixels))
    )
    ratio = 2 if megapixels == 1 else 1
    jpeg = saved(photo, "JPEG")
    expected = tf.io.decode_jpeg(jpeg, 3, ratio=ratio, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(function(tf.constant(jpeg)), expected)
    assert expected.shape == (1000 // ratio, 1600 // ratio, 3)
    if megapixels == 1:
        message = "1600 x 1000 px; allowed: 1000000 px in all, by `max_image_megapixels`"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            function(tf.constant(saved(photo, "PNG")))
    else:
        assert function(tf.constant(saved(photo, "PNG"))).shape == (1000, 1600, 3)


def test_decode_reduces_to_a_quarter_up_to_five_times_the_pixels():
    """2,200 x 2,200 is 4.84 times a megapixel, 2,300 x 2,200 is 5.06 times."""
    photo = Image.fromarray(NOISE).resize((2200, 2200))
    assert images.decode(saved(photo, "JPEG"), 1).shape == (550, 550, 3)
    wider = saved(photo.resize((2300, 2200)), "JPEG")
    with pytest.raises(tf.errors.InvalidArgumentError, match="2300 x 2200 px; allowed: 5000000 px"):
        images.decode(wider, 1)


def test_decode_takes_a_phone_photo_and_a_panorama():
    """What the former limits refused: 50 megapixels, and a side over 8,192."""
    for width, height in [(8160, 6120), (12_000, 2000)]:
        jpeg = saved(Image.new("RGB", (width, height), (10, 200, 30)), "JPEG", quality=50)
        decoded = images.decode(jpeg).numpy()
        assert decoded.shape[1] in (width, width // 2)
        assert np.abs(decoded[::100, ::100].astype(int) - [10, 200, 30]).max() <= 3


@EITHER_MODE
def test_decode_bounds_the_scans_of_a_jpeg(decode):
    """A progressive file has some 10; each scan more costs a pass over the image."""
    jpeg = saved(Image.fromarray(NOISE), "JPEG", progressive=True)
    first = jpeg.index(b"\xff\xda")
    assert decode(jpeg).shape == (24, 16, 3)
    scan = jpeg[first : jpeg.index(b"\xff", first + 20)]
    with pytest.raises(tf.errors.InvalidArgumentError, match="scans out of range: 1.. of 384 pix"):
        decode(jpeg[:first] + scan * 100 + jpeg[first:])


def test_decode_bounds_the_pixels_of_all_scans():
    """1,000 x 1,000 px in 10 scans are ten megapixels of work; 16 are allowed to one megapixel."""
    photo = saved(Image.new("RGB", (1000, 1000)), "JPEG", progressive=True)
    assert photo.count(b"\xff\xda") == 10
    assert images.decode(photo, 1).shape == (1000, 1000, 3)
    larger = saved(Image.new("RGB", (1001, 1000)), "JPEG", progressive=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="scans out of range: 10 of 1001000 p"):
        images.decode(larger, 1)
    many = photo.replace(b"\xff\xd9", photo[photo.index(b"\xff\xda") : -2] + b"\xff\xd9")
    with pytest.raises(tf.errors.InvalidArgumentError, match="scans out of range: 20 of 1000000 p"):
        images.decode(many, 1)


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
    "image_bytes", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff" + bytes(files.MAX_BYTES - 2)]
)
def test_decode_bounds_the_length(decode, image_bytes):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes: length out of range"):
        decode(image_bytes)


@EITHER_MODE
@pytest.mark.parametrize("claim", [png_that_claims, jpeg_that_claims])
@pytest.mark.parametrize(
    ("size", "allowed"),
    [
        ((32_769, 1000), "sides of 1 to 32768 px"),
        ((1000, 32_769), "sides of 1 to 32768 px"),
        ((801, 8), "one at most 100 times the other"),
        ((14_143, 14_142), "px in all, by `max_image_megapixels`"),
        ((65_500, 65_500), "sides of 1 to 32768 px"),
    ],
)
def test_decode_bounds_the_size_in_the_header(decode, claim, size, allowed):
    """14,143 * 14,142 = 200.01 million pixels; libjpeg itself stops at 65,500 a side."""
    message = f"image dimensions out of range: {size[0]} x {size[1]} px; allowed: .*{allowed}"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(claim(*size))


def test_decode_bounds_a_png_in_full():
    """6,400 * 6,400 = 40.96 million pixels, of which nothing can be left out."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="6400 x 6400 px; allowed: 40000000"):
        images.decode(png_that_claims(6400, 6400))


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
