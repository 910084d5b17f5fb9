"""footprint and image_headers: what rows become, from their headers, and chunks of them."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfhash import exports
from tfhash.serving.server import image_headers
from tfhash.serving.server.footprint import Footprint

SIZE = 16
OF = Footprint(SIZE, max_pixels=10_000)
NETWORK = 64 * 12 * SIZE**2
PIXELS = np.zeros((30, 40, 3), np.uint8)


def written(**options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (written(format="PNG"), 1200),
        (written(format="JPEG"), 1200),
        (written(format="JPEG", progressive=True), 1200),
        (written(format="JPEG", exif=EXIF, comment=b"\xff\xc0 no frame"), 1200),
        (tf.io.encode_jpeg(PIXELS).numpy(), 1200),
        (b"", 0),
        (b"GIF89a", 0),
        (b"\xff\xd8", 0),
        (written(format="JPEG")[:100], 0),  # cut off before its frame
        # What a forgiving decoder may read all the same is not taken to be small.
        (b"\xff\xd8" + b"junk" + written(format="JPEG")[2:], None),
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2000 + written(format="JPEG")[2:], None),
        (b"\xff\xd8\xff\xff\xff" + written(format="JPEG")[3:], 1200),  # padding
    ],
)
def test_the_size_of_a_file(content, pixels):
    assert image_headers.size(content).pixels == pixels


def array_of(*files: bytes) -> np.ndarray:
    array = np.empty(len(files), object)
    array[:] = files
    return array


def png_of(width: int, height: int) -> bytes:
    png = written(format="PNG")
    return png[:16] + struct.pack(">II", width, height) + png[24:]


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (np.zeros((1, 30, 40, 3), np.uint8), 16 * 1200 + 12 * SIZE * 40 + NETWORK),
        # Resized in one direction first: a long row becomes SIZE long rows of float32.
        (np.zeros((1, 1, 5000, 3), np.uint8), 16 * 5000 + 12 * SIZE * 5000 + NETWORK),
        (np.zeros((1, 5000, 1, 3), np.uint8), 16 * 5000 + 12 * SIZE * 5000 + NETWORK),
        (array_of(b"no image"), 6 * 8 + NETWORK),
        (array_of(png_of(25, 100)), 6 * len(png_of(1, 1)) + 32 * 2500 + 12 * SIZE * 100 + NETWORK),
        (array_of(png_of(101, 100)), 6 * len(png_of(1, 1)) + NETWORK),  # the graph refuses it
    ],
)
def test_the_bytes_of_a_row(array, size):
    assert OF.plan(array, 2**40) == (size, range(1) if array.dtype == np.uint8 else [0])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((0,), object),
        array_of(b"a", b"b").reshape(1, 2),
    ],
)
def test_what_is_no_batch_of_images(array):
    assert OF.plan(array, 2**40) is None


def test_chunks_of_pixels():
    array = np.zeros((1000, 2, 2, 3), np.uint8)
    row = OF.plan(array[:1], 2**40).chunk_size
    assert OF.plan(array, 2**40) == (256 * row, range(0, 1000, 256))
    assert OF.plan(array, 10 * row) == (10 * row, range(0, 1000, 10))
    assert OF.plan(array, 1) == (row, range(0, 1000, 1))
    assert OF.plan(array[:3], 2**40) == (3 * row, range(0, 3, 3))


def test_chunks_of_files():
    """A large one is alone; small ones stand together."""
    small, large = b"no image", png_of(100, 100)
    of_small, of_large = (OF.plan(array_of(one), 2**40).chunk_size for one in (small, large))
    assert of_large > 2 * of_small
    array = array_of(small, small, large, small, small, small)
    assert OF.plan(array, 2 * of_small) == (of_large, [0, 2, 3, 5])
    many = OF.plan(array_of(*[small] * 600), 2**40)
    assert many == (256 * of_small, [0, 256, 512])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps({"image_size": 32}), Footprint(32)),
        (
            json.dumps({"image_size": 32, "limits": {"max_pixels": 2_000_000}}),
            Footprint(32, 2_000_000),
        ),
        ("{", Footprint()),
        ("[]", Footprint()),
        (json.dumps({"image_size": None}), Footprint()),
        (None, Footprint()),
    ],
)
def test_what_an_export_tells(tmp_path, text, expected):
    if text is not None:
        (tmp_path / exports.METADATA).parent.mkdir()
        (tmp_path / exports.METADATA).write_text(text)
    assert Footprint.of(tmp_path) == expected
