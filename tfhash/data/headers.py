"""What JPEG and PNG files say of themselves before they are decoded; eagerly and in a graph."""

from __future__ import annotations

import tensorflow as tf

_HEAD = 2**20  # bytes in which these facts are looked for

_MARKER, _START_OF_SCAN, _APP1 = 0xFF, 0xDA, 0xE1
_EXIF = b"Exif\0\0"
_ORIENTATION, _SHORT = 0x0112, 3  # the tag, and the type of its value
_ENTRY = 12  # bytes of an entry of a TIFF directory: tag 2, type 2, count 4, value 4
_SEGMENTS = 64  # Exif stands in the first or second

_PNG_SIGNATURE, _COLOUR_TYPE = 8, 25  # bytes before the first chunk; where the header has the type
_WITH_OPACITY = (4, 6)
_CHUNKS = 1000


def octets(image_bytes: tf.Tensor) -> tf.Tensor:
    """The bytes of a file, scalar string, as uint8 [n]."""
    return tf.io.decode_raw(image_bytes, tf.uint8)


def jpeg_scans(data: tf.Tensor) -> tf.Tensor:
    """How many scans a file has at most: each is decoded over the whole image. uint8 [n] to int64.

    Within the data of a scan a byte 0xFF is followed by 0, so only a thumbnail adds to the count.
    """
    starts = (data[:-1] == _MARKER) & (data[1:] == _START_OF_SCAN)
    return tf.shape(tf.where(starts), tf.int64)[0]  # a sum would make a number of each byte


def jpeg_orientation(data: tf.Tensor) -> tf.Tensor:
    """The orientation that the Exif segment gives, 1 to 8; 1 where there is none. int32."""
    data = data[:_HEAD]
    start = _exif_start(data)
    return tf.cond(start > 0, lambda: _of_tiff(data, start), lambda: tf.constant(1))


def png_has_opacity(data: tf.Tensor) -> tf.Tensor:
    """Whether pixels of a PNG file may be transparent: by their type, or by a chunk tRNS. bool."""
    data = data[:_HEAD]
    transparency, pixels = (int.from_bytes(name, "big") for name in (b"tRNS", b"IDAT"))

    def kind(at: tf.Tensor) -> tf.Tensor:
        return _whole(data, at + 4, 4, big=True)

    (at,) = tf.while_loop(
        lambda at: (at < tf.size(data)) & (kind(at) != transparency) & (kind(at) != pixels),
        # Length, kind and check of a chunk have 4 bytes each.
        lambda at: (at + 12 + tf.clip_by_value(_whole(data, at, 4, big=True), 0, tf.size(data)),),
        (tf.constant(_PNG_SIGNATURE),),
        maximum_iterations=_CHUNKS,
    )
    colour_type = _whole(data, tf.constant(_COLOUR_TYPE), 1, big=True)
    by_type = tf.reduce_any(colour_type == tf.constant(_WITH_OPACITY))
    return by_type | (kind(at) == transparency)


def upright(image: tf.Tensor, of: tf.Tensor) -> tf.Tensor:
    """The image as its camera was held. image: [H, W, C]; of: orientation, 1 to 8."""
    image = tf.cond(of >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    flipped_left_right = tf.reduce_any(of == tf.constant([2, 3, 6, 7]))
    flipped_up_down = tf.reduce_any(of == tf.constant([3, 4, 7, 8]))
    image = tf.cond(flipped_left_right, lambda: tf.reverse(image, [1]), lambda: image)
    return tf.cond(flipped_up_down, lambda: tf.reverse(image, [0]), lambda: image)


def _exif_start(data: tf.Tensor) -> tf.Tensor:
    """Where the TIFF header of the Exif segment stands, 0 for nowhere."""

    def is_segment(at: tf.Tensor) -> tf.Tensor:
        marker = _whole(data, at, 2, big=True)
        return (marker >= 0xFF01) & (marker != 0xFF00 | _START_OF_SCAN)

    def is_exif(at: tf.Tensor) -> tf.Tensor:
        name = tf.gather(_padded(data), tf.minimum(at + 4 + tf.range(len(_EXIF)), tf.size(data)))
        is_app1 = _whole(data, at, 2, big=True) == 0xFF00 | _APP1
        return is_app1 & tf.reduce_all(name == tf.constant(list(_EXIF), tf.uint8))

    (at,) = tf.while_loop(
        lambda at: is_segment(at) & ~is_exif(at),
        lambda at: (at + 2 + _whole(data, at + 2, 2, big=True),),
        (tf.constant(2),),
        maximum_iterations=_SEGMENTS,
    )
    return tf.where(is_segment(at) & is_exif(at), at + 4 + len(_EXIF), 0)


def _of_tiff(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    big = _whole(data, start, 2, big=True) == int.from_bytes(b"MM", "big")

    def whole(at: tf.Tensor, width: int) -> tf.Tensor:
        return _whole(data, at, width, big=big)

    # An offset beyond the file, 2**31 and more too, reads zeros.
    directory = start + tf.clip_by_value(whole(start + 4, 4), 0, tf.size(data))
    entries = directory + 2 + _ENTRY * tf.range(whole(directory, 2))
    is_orientation = (whole(entries, 2) == _ORIENTATION) & (whole(entries + 2, 2) == _SHORT)
    values = tf.boolean_mask(whole(entries + 8, 2), is_orientation)
    value = tf.concat([values, [1]], 0)[0]
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _whole(data: tf.Tensor, at: tf.Tensor, width: int, *, big: bool | tf.Tensor) -> tf.Tensor:
    """The whole numbers of `width` bytes at positions of any shape, int32; beyond the end 0.

    big: whether the first byte is the highest.
    """
    places = at[..., tf.newaxis] + tf.range(width)
    there = tf.gather(_padded(data), tf.clip_by_value(places, 0, tf.size(data)))
    there = tf.cast(tf.where(big, there[..., ::-1], there), tf.int32)
    return tf.reduce_sum(tf.bitwise.left_shift(there, 8 * tf.range(width)), -1)


def _padded(data: tf.Tensor) -> tf.Tensor:
    return tf.concat([data, tf.constant([0], tf.uint8)], 0)
