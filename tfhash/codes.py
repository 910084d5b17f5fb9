"""Binary codes: binarise, pack, unpack, Hamming distance.

A code is B(x) = [H(x) > 0.5], packed with `numpy.packbits` (big-endian): the first bit of the code
is the highest bit of the first byte, and the unused low bits of the last byte are 0.
"""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from tfhash import given

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Twice a distance, plus one, must fit 16 bits.
MAX_CODE_LENGTH = (1 << 15) - 1

# Word pairs compared at a time: XOR and popcount stay within the second-level cache.
_TILE_ITEMS = 1 << 16


def binarize(embedding: ArrayLike, *, signs: bool = False) -> np.ndarray:
    """Bits of an embedding: 1 where it is above 0.5; with signs, where it is above 0.

    embedding: real [n, k], in [0, 1] as a sigmoid gives them; with signs any real numbers, such as
    those of tanh. Returns uint8 [n, k] of 0 and 1.
    Raises ValueError for another dtype, shape or range, and for NaN.
    """
    embedding = given.array(embedding, "embedding")
    if embedding.ndim != 2:
        raise ValueError(f"embedding must have shape [n, k], got {list(embedding.shape)}")
    if not np.can_cast(embedding.dtype, np.float64, "same_kind"):
        raise ValueError(f"embedding must be real numbers, {given.got(embedding)}")
    if np.isnan(embedding).any():
        raise ValueError("embedding holds NaN; only numbers can be binarized")
    if signs:
        return (embedding > 0).astype(np.uint8)
    low, high = embedding.min(initial=0), embedding.max(initial=1)
    if low < 0 or high > 1:
        raise ValueError(
            f"embedding must lie in [0, 1], got {float(low):.4g} to {float(high):.4g}; where the "
            "sign makes the bit, as of tanh outputs, say signs=True"
        )
    return (embedding > 0.5).astype(np.uint8)


def pack(bits: ArrayLike) -> np.ndarray:
    """Packs bits, eight to a byte.

    bits: bool, or integers 0 and 1, [n, k].
    Returns uint8 [n, ceil(k / 8)], unused low bits 0.
    Raises ValueError for another dtype, shape or value.
    """
    return np.packbits(validate_bits(bits, "bits"), axis=-1)


def unpack(codes: ArrayLike, code_length: int) -> np.ndarray:
    """Undoes `pack`.

    codes: uint8 [n, ceil(code_length / 8)].
    Returns uint8 [n, code_length] of 0 and 1.
    Raises ValueError where `validate_codes` does.
    """
    return np.unpackbits(validate_codes(codes, code_length), axis=-1, count=code_length)


def hamming_distance(query_codes: ArrayLike, database_codes: ArrayLike) -> np.ndarray:
    """Number of differing bits of every query and database item.

    query_codes: packed uint8 [nq, w]; database_codes: packed uint8 [n, w].
    Returns uint16 [nq, n].
    Raises ValueError unless both are uint8, two-dimensional and of the same width.
    """
    query_codes = validate_packed(query_codes, "query_codes")
    database_codes = validate_packed(database_codes, "database_codes")
    if query_codes.shape[1] != database_codes.shape[1]:
        raise ValueError(
            "query_codes and database_codes must have the same width in bytes, "
            f"got {query_codes.shape[1]} and {database_codes.shape[1]}"
        )
    query_words, database_words = to_words(query_codes), to_words(database_codes)
    distance = np.empty((len(query_codes), len(database_codes)), np.uint16)
    step = max(1, _TILE_ITEMS // max(1, len(database_codes)))
    for start in range(0, len(query_codes), step):
        rows = slice(start, start + step)
        distance[rows] = word_distance(query_words[:, rows], database_words)
    return distance


def nearest(query_codes: ArrayLike, database_codes: ArrayLike, count: int) -> np.ndarray:
    """The positions of the `count` nearest items of the database, nearest first: int64 [q, count].

    query_codes, database_codes: packed uint8 [q, w] and [n, w]. Items at one distance stand in the
    order of the database; all of it is answered where count is larger. Raises ValueError for a
    count below 1, and where `hamming_distance` does.
    """
    if not is_whole(count) or count < 1:
        raise ValueError(f"count must be an integer >= 1, got {count!r}")
    distance = hamming_distance(query_codes, database_codes)
    return np.argsort(distance, axis=1, kind="stable")[:, :count]


def to_words(codes: np.ndarray) -> np.ndarray:
    """Packed bytes as 64-bit words, the form in which comparing is fastest.

    codes: uint8 [n, w], w >= 1; zero bytes fill the last word.
    Returns uint64 [ceil(w / 8), n], each word of all items contiguous.
    Raises ValueError for another dtype or shape.
    """
    codes = validate_packed(codes, "codes")
    count, width = codes.shape
    padded = np.zeros((count, -(-width // 8) * 8), np.uint8)
    padded[:, :width] = codes
    return np.ascontiguousarray(padded.view(np.uint64).T)


def word_distance(query_words: np.ndarray, database_words: np.ndarray) -> np.ndarray:
    """Hamming distance of codes in the form of `to_words`, in one go.

    query_words: uint64 [words, nq]; database_words: uint64 [words, n].
    Returns uint16 [nq, n]; takes 8 bytes an entry while it works, so give it tiles.
    """
    distance = np.zeros((query_words.shape[1], database_words.shape[1]), np.uint16)
    for query_word, database_word in zip(query_words, database_words, strict=True):
        distance += np.bitwise_count(query_word[:, None] ^ database_word)
    return distance


def is_whole(value: object) -> bool:
    """Whether it is an integer, of Python or NumPy, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool)


def validate_bits(bits: ArrayLike, name: str) -> np.ndarray:
    """Bits as uint8 [n, k >= 1]; ValueError unless they are bool, or integers 0 and 1, of 2 axes.

    name: what the message calls the argument.
    """
    bits = given.array(bits, name)
    if bits.dtype.kind not in "biu" or bits.ndim != 2 or not bits.shape[1]:
        raise ValueError(
            f"{name} must be 0 and 1 as uint8 [n, columns >= 1], {given.got(bits)}"
            f"{_remedy_of_bits(bits, name)}"
        )
    low, high = bits.min(initial=0), bits.max(initial=0)
    if bits.dtype != bool and (low < 0 or high > 1):
        remedy = "; of -1 and 1, give bits > 0" if low == -1 and high == 1 else ""
        if "labels" in name and bits.shape[1] == 1:
            remedy = f"; of class numbers, give {name}[:, 0]"
        raise ValueError(f"{name} must hold only 0 and 1, got {low if low < 0 else high}{remedy}")
    return bits.astype(np.uint8, copy=False)


def _remedy_of_bits(bits: np.ndarray, name: str) -> str:
    if bits.ndim == 1 and "labels" in name:
        return "; of class numbers [n], give np.eye(C, dtype=np.uint8)[labels], or tfhash.evaluate"
    if bits.dtype.kind == "f" and "labels" not in name:
        return "; codes.binarize makes bits of real numbers, of tanh outputs with signs=True"
    if bits.ndim == 1:
        return "; of one item, give bits[None]"
    return f"; of numbers that are 0 and 1, give {name}.astype(np.uint8)" if bits.size else ""


def validate_packed(codes: ArrayLike, name: str) -> np.ndarray:
    """Packed codes of any length as uint8 [n, width >= 1]; ValueError for anything else."""
    codes = given.array(codes, name)
    if codes.dtype != np.uint8 or codes.ndim != 2 or not codes.shape[1]:
        raise ValueError(
            f"{name} must be packed codes, uint8 [n, width >= 1], {given.got(codes)}"
            f"{_remedy_of_codes(codes)}"
        )
    return codes


def validate_codes(codes: ArrayLike, code_length: int, name: str = "codes") -> np.ndarray:
    """Returns codes as an array, or raises ValueError unless they are codes of code_length bits.

    That is uint8 [n, ceil(code_length / 8)] with unused low bits 0; `name` is what the message
    calls the argument.
    """
    if not is_whole(code_length) or not 1 <= code_length <= MAX_CODE_LENGTH:
        raise ValueError(
            f"code_length must be an integer in [1, {MAX_CODE_LENGTH}], got {code_length!r}"
        )
    codes = given.array(codes, name)
    width = -(-code_length // 8)
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != width:
        raise ValueError(
            f"{name} must be uint8 [n, {width}] for code_length={code_length}, {given.got(codes)}"
            f"{_remedy_of_codes(codes, code_length)}"
        )
    unused = width * 8 - code_length
    if (codes[:, -1] & ((1 << unused) - 1)).any():
        raise ValueError(
            f"{name} must have 0 in the {unused} unused low bits, got bits set there; are they of "
            f"another code_length, or bits that codes.pack has not packed?"
        )
    return codes


def _remedy_of_codes(codes: np.ndarray, code_length: int | None = None) -> str:
    """What to do with an array that is no packed codes."""
    if codes.dtype.kind == "f":
        return "; of real numbers x, give codes.pack(codes.binarize(x)), of tanh with signs=True"
    if codes.dtype == bool or (codes.ndim == 2 and codes.shape[1] == code_length):
        return "; codes.pack makes codes of bits"
    if codes.ndim == 1:
        return "; of one code, give codes[None]"
    if codes.ndim == 2 and codes.dtype == np.uint8 and codes.shape[1]:
        width = codes.shape[1]
        return f"; {width} bytes hold {8 * width - 7} to {8 * width} bits"
    return "; of bytes, give codes.astype(np.uint8)" if codes.dtype.kind in "iu" else ""
