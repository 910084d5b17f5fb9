"""headers: orientation and scans beside Pillow and by hand, in eager mode and in a graph."""

import io
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfhash.data import headers, images

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)).resize(
    (40, 60), Image.Resampling.BICUBIC
)
ORIENTATION = tf.function(
    lambda image_bytes: headers.jpeg_orientation(headers.octets(image_bytes)),
    input_signature=[tf.TensorSpec([], tf.string)],
)


def file(orientation: int | None = None, endian: str = "<", **options) -> bytes:
    buffer = io.BytesIO()
    if orientation is not None:
        exif = Image.Exif()
        exif.endian = endian
        exif[0x010F] = "a maker, before the orientation"
        exif[0x0112] = orientation
        options["exif"] = exif.tobytes()
    PHOTO.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_pillow_turns_it(orientation, endian):
    image_bytes = file(orientation, endian)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(image_bytes))).convert("RGB")
    for decode in (images.decode, tf.function(images.decode)):
        decoded = decode(tf.constant(image_bytes)).numpy()
        assert decoded.shape == np.shape(turned)
        # Decoders differ by a few grey levels, turned and unturned photos by a hundred.
        assert np.abs(decoded.astype(int) - np.asarray(turned)).max() <= 5


def test_the_same_photo_upright_and_turned_is_one_image():
    """A camera held sideways: the pixels lie, and orientation 6 says so. Lossless, so exact."""
    grey = np.uint8([[10, 200], [90, 30], [150, 60]]).repeat(8, 0).repeat(8, 1)
    upright, lying = io.BytesIO(), io.BytesIO()
    Image.fromarray(grey).save(upright, "JPEG", quality=100)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(grey)).save(lying, "JPEG", quality=100, exif=exif.tobytes())
    np.testing.assert_array_equal(
        images.decode(lying.getvalue()), images.decode(upright.getvalue())
    )


@pytest.mark.parametrize("orientation", [None, 0, 9, 65535])
def test_no_orientation_and_one_that_is_none_turn_nothing(orientation):
    assert int(ORIENTATION(file(orientation))) == 1


def test_exif_is_found_after_other_segments():
    """A comment of 40,000 bytes, in which the name of an Exif segment stands, comes first."""
    image_bytes = file(8)
    comment = b"\xff\xe1Exif\0\0" + bytes(40_000)
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    assert int(ORIENTATION(image_bytes[:2] + segment + image_bytes[2:])) == 8


def test_exif_behind_the_start_of_a_scan_is_no_exif():
    image_bytes = file(8)
    start = image_bytes.index(b"\xff\xe1")
    end = start + 2 + int.from_bytes(image_bytes[start + 2 : start + 4], "big")
    assert int(ORIENTATION(image_bytes[:start] + image_bytes[end:] + image_bytes[start:end])) == 1


def test_whatever_stands_in_exif_nothing_fails():
    """Random bytes in the segment, offsets beyond the file and beyond 31 bits among them."""
    image_bytes = file(6)
    start = image_bytes.index(b"Exif")
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(image_bytes)
        for at in rng.integers(start + 6, start + 60, 4):
            damaged[at] = rng.integers(256)
        assert 1 <= int(ORIENTATION(bytes(damaged))) <= 8
    far = image_bytes[: start + 10] + b"\xff\xff\xff\xff" + image_bytes[start + 14 :]
    assert int(ORIENTATION(far)) == 1
    for length in range(2, 200, 7):
        assert int(ORIENTATION(image_bytes[:length])) in (1, 6)


@pytest.mark.parametrize("progressive", [False, True])
def test_scans_are_counted_as_pillow_writes_them(progressive):
    """Baseline JPEG has one scan; libjpeg's progressive script for colour has ten."""
    scans = headers.jpeg_scans(headers.octets(tf.constant(file(progressive=progressive))))
    assert int(scans) == (10 if progressive else 1)


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + check


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_png_without_opacity_has_none_whatever_its_text_says(mode):
    """The words tRNS in a text before the pixels, and in the pixels' own data, are no chunk."""
    buffer = io.BytesIO()
    Image.new("L" if mode == "I;16" else mode, (4, 4)).convert(mode).save(buffer, "PNG")
    png = buffer.getvalue()
    png = png[:33] + chunk(b"tEXt", b"about\0tRNS") + png[33:] + chunk(b"tRNS", b"\0\0")
    assert not headers.png_has_opacity(headers.octets(png))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_png_has_opacity_by_its_type(mode):
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, "PNG")
    assert headers.png_has_opacity(headers.octets(buffer.getvalue()))


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_png_has_opacity_by_a_chunk(mode):
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(
        buffer, "PNG", transparency=(1, 2, 3) if mode == "RGB" else 0, icc_profile=bytes(3000)
    )
    png = buffer.getvalue()
    assert headers.png_has_opacity(headers.octets(png))
    for length in range(24, len(png), 5):  # whatever is cut off, nothing fails
        headers.png_has_opacity(headers.octets(png[:length]))
