"""libjpeg: its real complaints, caught and given to the file that they are about."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfhash.data import image_files, libjpeg

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG")
    return buffer.getvalue()


def content_with_a_warning() -> bytes:
    """Bytes that mean nothing before the end: what many cameras write."""
    content = jpeg()
    return content[:-2] + bytes(200) + content[-2:]


def test_complaints_are_caught_and_nothing_else(capfd):
    tf.io.decode_jpeg(jpeg())  # TensorFlow itself says something at its first operation
    capfd.readouterr()
    with libjpeg.complaints() as lines:
        os.write(2, b"somebody else's line\n")
        tf.io.decode_jpeg(content_with_a_warning())
    assert len(lines) == 1 and "JPEG" in lines[0]
    assert capfd.readouterr().err == "somebody else's line\n"
    with libjpeg.complaints() as lines:
        tf.io.decode_jpeg(jpeg())
    assert lines == []


def test_stderr_is_back_after_an_error(capfd):
    with pytest.raises(KeyError), libjpeg.complaints():
        raise KeyError("within")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_a_jpeg_that_is_damaged_in_part_is_named(tmp_path, caplog, capfd):
    contents = {"a.jpg": jpeg(), "b.jpg": content_with_a_warning(), "c.jpg": jpeg()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    pixels, ids, notes = image_files.read(tmp_path, [*contents], image_files.Reading(8))
    assert ids == ["a.jpg", "b.jpg", "c.jpg"]
    np.testing.assert_array_equal(pixels[0], pixels[2])
    assert "1 JPEG files are damaged in part and used as they are" in notes
    logged = [record.getMessage() for record in caplog.records]
    assert any(f"{tmp_path}/b.jpg is damaged in part: " in line for line in logged)
    assert not any("a.jpg" in line or "c.jpg" in line for line in logged)
    assert "JPEG" not in capfd.readouterr().err
