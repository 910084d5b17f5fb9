"""TFRecord files: where each record lies, and the image in its tf.train.Example."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from google_crc32c import value as crc32c

from tfhash.errors import UserError
from tfhash.files import FileError
from tfhash.serving.bulk.places import checked, too_large

_HEAD = struct.Struct("<QI")  # the length of the data, and its checksum
_TAIL = struct.Struct("<I")  # the checksum of the data
_MARGIN = 2**20  # what an Example may have beside its image
_BLOCK = 2**20


class Record(NamedTuple):
    """Where the data of a record begin, and these; or else the reason why there are none."""

    offset: int
    length: int
    data: bytes | None
    error: str | None = None


def records(file: BinaryIO, limit: int) -> Iterator[Record]:
    """The records of a file, in its order. limit: bytes that an image may have.

    A damaged record costs itself; a damaged length, or an end within a record, all behind it, of
    which there is one Record then.
    """
    place = 0
    while head := file.read(_HEAD.size):
        offset = place + _HEAD.size
        if len(head) < _HEAD.size:
            yield Record(offset, 0, None, "the file ends within this record")
            return
        length, checksum = _HEAD.unpack(head)
        if _masked(head[:8]) != checksum:
            yield Record(offset, 0, None, "damaged from here on: no length of a record")
            return
        data = None
        if length <= limit + _MARGIN:
            data = file.read(length)
        else:
            _skip(file, length)
        tail = file.read(_TAIL.size)
        if len(tail) < _TAIL.size:
            yield Record(offset, length, None, "the file ends within this record")
            return
        if data is None:
            yield Record(offset, length, None, too_large(length, limit))
        elif _masked(data) != _TAIL.unpack(tail)[0]:
            yield Record(offset, length, None, "damaged: not what its checksum is of")
        else:
            yield Record(offset, length, data)
        place = offset + length + _TAIL.size


def image_of(data: bytes, image: str, name: str, limit: int) -> tuple[bytes, str | None]:
    """The image in the data of a record, and the id, None where it has none.

    image, name: features of bytes of a tf.train.Example. FileError where there is no image.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.example import example_pb2

    try:
        features = example_pb2.Example.FromString(data).features.feature
    except DecodeError:
        raise FileError("no tf.train.Example") from None
    found = [*features[image].bytes_list.value] if image in features else []
    if len(found) != 1:
        raise FileError(f"no image: {len(found)} values of bytes in its feature {image!r}")
    ids = [*features[name].bytes_list.value] if name in features else []
    try:
        own = ids[0].decode("utf-8") if len(ids) == 1 else None
    except UnicodeDecodeError:
        raise FileError(f"its feature {name!r} is no UTF-8") from None
    return checked(found[0], limit), own or None


def glob_of(pattern: str) -> str:
    """NAME@16 and NAME@* as patterns of file names, as TensorFlow's data sets are called."""
    name, sign, count = pattern.rpartition("@")
    if not sign or not (count == "*" or count.isdecimal()):
        return pattern
    if count != "*" and not int(count):
        raise UserError(f"--input: {pattern}; allowed: NAME@SHARDS with 1 or more shards")
    return f"{name}-*-of-{'*' if count == '*' else f'{int(count):05d}'}"


def _skip(file: BinaryIO, length: int) -> None:
    while length > 0:
        length -= len(file.read(min(length, _BLOCK))) or length


def _masked(data: bytes) -> int:
    """The checksum of TFRecord files."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
