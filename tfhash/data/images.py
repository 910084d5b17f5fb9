"""Bytes to pixels and pixels to size: the one place for it, in training and in the SavedModel."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfhash import files
from tfhash.data import headers

MEGAPIXELS = files.MEGAPIXELS
MAX_SIDE = 32_768
MAX_RATIO = 100
MAX_SCANS = 100
# Of larger JPEG files every second or fourth pixel is decoded: the limit is on what becomes of one.
_REDUCED = 5
# What an export tells of it: one without these words is older, and does neither.
DECODING = {"orientation": "Exif, applied", "transparency": "on white"}
SIDES = f"1 to {MAX_SIDE} px, one at most {MAX_RATIO} times the other"
_SCANNED_PIXELS = 16  # pixels times scans, in units of the pixels that are allowed

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


class Limits(NamedTuple):
    """What decoding one image may cost; `megapixels` is the one that a user sets."""

    megapixels: int = MEGAPIXELS

    @property
    def pixels(self) -> int:
        """Pixels of a PNG file, and what is decoded of a JPEG file."""
        return self.megapixels * 10**6

    @property
    def bytes(self) -> int:
        """Bytes of a file: 32 MiB for the default."""
        return files.max_bytes(self.megapixels)


def decode(image_bytes: tf.Tensor, megapixels: int = MEGAPIXELS) -> tf.Tensor:
    """RGB pixels of one JPEG or PNG image as a person sees it; works eagerly and in a graph.

    image_bytes: scalar string. Returns uint8 [H, W, 3]: turned as the Exif orientation of a JPEG
    says, transparent parts on white; grey, palette and CMYK become RGB, 16 bits become 8. A JPEG of
    up to 5 * megapixels is decoded at 1/2 or 1/4 of its sides where it has more than `megapixels`.
    Raises tf.errors.InvalidArgumentError for other formats, for damaged data, and, before decoding,
    beyond `Limits`, MAX_SIDE, MAX_RATIO between the sides, and MAX_SCANS.
    """
    limits = Limits(megapixels)
    image_bytes = tf.convert_to_tensor(image_bytes, tf.string)
    length = tf.strings.length(image_bytes)
    image_bytes = _require(
        image_bytes,
        (length >= _MIN_BYTES) & (length <= limits.bytes),
        f"length out of range: {{}} bytes; allowed: {_MIN_BYTES} to {limits.bytes}, by"
        " `max_image_megapixels`",
        length,
    )
    is_jpeg = tf.strings.substr(image_bytes, 0, len(_JPEG_START)) == _JPEG_START
    is_png = (tf.strings.substr(image_bytes, 0, len(_PNG_START)) == _PNG_START) & (
        tf.strings.substr(image_bytes, _PNG_SIZE_OFFSET - 4, 4) == b"IHDR"
    )
    image_bytes = _require(image_bytes, is_jpeg | is_png, "not a JPEG or PNG image")
    return tf.cond(
        is_jpeg, lambda: _decode_jpeg(image_bytes, limits), lambda: _decode_png(image_bytes, limits)
    )


def are_sides(height_width: tf.Tensor) -> tf.Tensor:
    """Whether height and width, integers [2], are those of an image: see SIDES."""
    shorter, longer = tf.reduce_min(height_width), tf.reduce_max(height_width)
    return (shorter >= 1) & (longer <= MAX_SIDE) & (longer <= MAX_RATIO * shorter)


def _decode_jpeg(image_bytes: tf.Tensor, limits: Limits) -> tf.Tensor:
    height_width = tf.cast(tf.image.extract_jpeg_shape(image_bytes)[:2], tf.int64)
    image_bytes = _sized(image_bytes, height_width, _REDUCED * limits.pixels)
    data = headers.octets(image_bytes)
    scans, pixels = headers.jpeg_scans(data), tf.reduce_prod(height_width)
    # All scans but a single one need the coefficients of the whole image in memory.
    costs = tf.where(scans > 1, scans * pixels, 0)
    image_bytes = _require(
        image_bytes,
        (scans <= MAX_SCANS)
        & (costs <= _SCANNED_PIXELS * limits.pixels)
        & ((scans <= 1) | (pixels <= limits.pixels)),
        f"scans out of range: {{}} of {{}} pixels; allowed: {MAX_SCANS}, 1 over {limits.pixels}"
        f" pixels, and {_SCANNED_PIXELS * limits.pixels} pixels in all of them",
        scans,
        pixels,
    )

    def at(ratio: int) -> tf.Tensor:
        # TensorFlow documents the default DCT as system-specific: pixels could differ by machine.
        return tf.io.decode_jpeg(
            image_bytes, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    image = tf.cond(
        pixels <= limits.pixels,
        lambda: at(1),
        lambda: tf.cond(pixels <= 4 * limits.pixels, lambda: at(2), lambda: at(4)),
    )
    return headers.upright(image, headers.jpeg_orientation(data))


def _decode_png(image_bytes: tf.Tensor, limits: Limits) -> tf.Tensor:
    width_height = tf.io.decode_raw(
        tf.strings.substr(image_bytes, _PNG_SIZE_OFFSET, 8), tf.int32, little_endian=False
    )
    image_bytes = _sized(image_bytes, tf.cast(width_height[::-1], tf.int64), limits.pixels)
    # Asked for 4 channels, TensorFlow makes palettes of up to 16 opaque colours transparent.
    return tf.cond(
        headers.png_has_opacity(headers.octets(image_bytes)),
        lambda: _on_white(tf.io.decode_png(image_bytes, channels=4)),
        lambda: tf.io.decode_png(image_bytes, channels=3),
    )


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Composites on white, rounded. image: uint8 [H, W, 4] of RGB and opacity, not premultiplied.

    Returns uint8 [H, W, 3].
    """
    image = tf.cast(image, tf.uint16)  # 255 * 255 and half a divisor still fit
    colour, opacity = image[..., :3], image[..., 3:]
    return tf.cast((colour * opacity + 255 * (255 - opacity) + 127) // 255, tf.uint8)


def _sized(image_bytes: tf.Tensor, height_width: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """image_bytes, available only where the size, int64 [2], is within the limits."""
    height, width = height_width[0], height_width[1]
    out_of_range = "image dimensions out of range: {} x {} px"
    image_bytes = _require(
        image_bytes,
        are_sides(height_width),
        f"{out_of_range}; allowed: sides of {SIDES}",
        width,
        height,
    )
    return _require(
        image_bytes,
        width * height <= max_pixels,
        f"{out_of_range}; allowed: {max_pixels} px in all, by `max_image_megapixels`",
        width,
        height,
    )


def _require(
    image_bytes: tf.Tensor, condition: tf.Tensor, message: str, *values: tf.Tensor
) -> tf.Tensor:
    """image_bytes, available only once `condition` holds: ops on bytes are stateless, so nothing
    but such a dependency keeps them from running before the assert. message: with {} for values."""
    words = message.split("{}")
    parts = [words[0]]
    for value, word in zip(values, words[1:], strict=True):
        parts += [tf.strings.as_string(value), word]
    text = tf.strings.join(["image_bytes: ", *parts])
    with tf.control_dependencies([tf.debugging.Assert(condition, [text])]):
        return tf.identity(image_bytes)
