"""Bytes to pixels and pixels to size: the one place for it, in training and in the SavedModel."""

from __future__ import annotations

import tensorflow as tf

MAX_BYTES = 32 * 2**20
MAX_SIDE = 8192
MAX_PIXELS = 40_000_000

_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_SIZE_OFFSET = 16  # signature 8, chunk length 4, "IHDR" 4; then width and height, 4 bytes each
_MIN_BYTES = _PNG_SIZE_OFFSET + 8


def resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """Images at size x size pixels: bilinear, antialiased, rounded; the aspect ratio is not kept.

    images: uint8 [H, W, 3] or [N, H, W, 3]. Returns uint8 [size, size, 3] or [N, size, size, 3];
    images of that size come back exactly as they were. Raises ValueError for another dtype.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8:
        raise ValueError(f"images: expected uint8, received {images.dtype.name}")
    if images.shape[-3:-1].as_list() == [size, size]:
        return images
    resized = tf.image.resize(
        tf.cast(images, tf.float32), (size, size), method="bilinear", antialias=True
    )
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def decode(image_bytes: tf.Tensor) -> tf.Tensor:
    """RGB pixels of one JPEG or PNG image; works eagerly and in a graph.

    image_bytes: scalar string. Returns uint8 [H, W, 3]; grey, palette and CMYK become RGB, alpha is
    dropped, 16 bits become 8, EXIF orientation is ignored. Raises tf.errors.InvalidArgumentError
    for other formats, for damaged data, and, before decoding, for more than MAX_BYTES bytes,
    MAX_SIDE pixels a side or MAX_PIXELS in all.
    """
    image_bytes = tf.convert_to_tensor(image_bytes, tf.string)
    length = tf.strings.length(image_bytes)
    image_bytes = _require(
        image_bytes,
        (length >= _MIN_BYTES) & (length <= MAX_BYTES),
        ["image_bytes: length out of range", length],
    )
    is_jpeg = tf.strings.substr(image_bytes, 0, len(_JPEG_START)) == _JPEG_START
    is_png = (tf.strings.substr(image_bytes, 0, len(_PNG_START)) == _PNG_START) & (
        tf.strings.substr(image_bytes, _PNG_SIZE_OFFSET - 4, 4) == b"IHDR"
    )
    image_bytes = _require(image_bytes, is_jpeg | is_png, ["image_bytes: not a JPEG or PNG image"])
    height_width = tf.cond(
        is_jpeg, lambda: _jpeg_height_width(image_bytes), lambda: _png_height_width(image_bytes)
    )
    image_bytes = _require(
        image_bytes,
        tf.reduce_all((height_width >= 1) & (height_width <= MAX_SIDE))
        & (tf.reduce_prod(height_width) <= MAX_PIXELS),
        ["image_bytes: image dimensions out of range", height_width],
    )
    return tf.cond(
        is_jpeg,
        # TensorFlow documents the default DCT as system-specific: pixels could differ by machine.
        lambda: tf.io.decode_jpeg(image_bytes, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(image_bytes, channels=3),
    )


def _require(image_bytes: tf.Tensor, condition: tf.Tensor, message: list) -> tf.Tensor:
    """image_bytes, available only once `condition` holds: ops on bytes are stateless, so nothing
    but such a dependency keeps them from running before the assert."""
    with tf.control_dependencies([tf.debugging.Assert(condition, message)]):
        return tf.identity(image_bytes)


def _jpeg_height_width(image_bytes: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.image.extract_jpeg_shape(image_bytes)[:2], tf.int64)


def _png_height_width(image_bytes: tf.Tensor) -> tf.Tensor:
    width_height = tf.io.decode_raw(
        tf.strings.substr(image_bytes, _PNG_SIZE_OFFSET, 8), tf.int32, little_endian=False
    )
    return tf.cast(width_height[::-1], tf.int64)
