"""Width and height of JPEG and PNG files, read from their first bytes without decoding."""

from __future__ import annotations

from typing import NamedTuple

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_BARE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length
_MOST_SEGMENTS = 1000


class Size(NamedTuple):
    """Pixels, and those of the longer side; None where the file may have any number of them."""

    pixels: int | None
    side: int | None
    is_png: bool = False


NOTHING = Size(0, 0)
UNKNOWN = Size(None, None)


def size(content: bytes) -> Size:
    """What a decoder would find: of a file that is no JPEG or PNG, nothing."""
    if content.startswith(_PNG):
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
        return Size(width * height, max(width, height), is_png=True)
    return _of_jpeg(content) if content.startswith(_JPEG) else NOTHING


def _of_jpeg(content: bytes) -> Size:
    """Decoders forgive much: whatever is not as the standard has it may be of any size."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if at + 4 > len(content):
            return NOTHING  # cut off before its frame
        if content[at] != 0xFF:
            return UNKNOWN
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            height, width = (int.from_bytes(content[at + i : at + i + 2], "big") for i in (5, 7))
            return Size(height * width, max(height, width))
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return UNKNOWN
