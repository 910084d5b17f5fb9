"""Binary codes: binarise, pack, unpack, Hamming distance.

A code is B(x) = [H(x) > 0.5], packed with `numpy.packbits` (big-endian): the first bit of the code
is the highest bit of the first byte, and the unused low bits of the last byte are 0.
"""

from __future__ import annotations

from numbers import Integral

import numpy as np

# Twice a distance, plus one, must fit 16 bits.
MAX_CODE_LENGTH = (1 << 15) - 1

# Word pairs compared at a time: XOR and popcount stay within the second-level cache.
_TILE_ITEMS = 1 << 16


def binarize(embedding: np.ndarray) -> np.ndarray:
    """Bits of an embedding: 1 where it is above 0.5.

    embedding: real [n, k], usually sigmoid activations in [0, 1].
    Returns uint8 [n, k] of 0 and 1.
    Raises ValueError unless embedding is two-dimensional and free of NaN.
    """
    embedding = np.asarray(embedding)
    if embedding.ndim != 2:
        raise ValueError(f"embedding must have shape [n, k], got {list(embedding.shape)}")
    if np.isnan(embedding).any():
        raise ValueError("embedding holds NaN; only numbers can be binarized")
    return (embedding > 0.5).astype(np.uint8)


def pack(bits: np.ndarray) -> np.ndarray:
    """Packs bits, eight to a byte.

    bits: uint8 [n, k] of 0 and 1.
    Returns uint8 [n, ceil(k / 8)], unused low bits 0.
    Raises ValueError for another dtype, shape or value.
    """
    return np.packbits(validate_bits(bits, "bits"), axis=-1)


def unpack(codes: np.ndarray, code_length: int) -> np.ndarray:
    """Undoes `pack`.

    codes: uint8 [n, ceil(code_length / 8)].
    Returns uint8 [n, code_length] of 0 and 1.
    Raises ValueError where `validate_codes` does.
    """
    return np.unpackbits(validate_codes(codes, code_length), axis=-1, count=code_length)


def hamming_distance(query_codes: np.ndarray, database_codes: np.ndarray) -> np.ndarray:
    """Number of differing bits of every query and database item.

    query_codes: packed uint8 [nq, w]; database_codes: packed uint8 [n, w].
    Returns uint16 [nq, n].
    Raises ValueError unless both are uint8, two-dimensional and of the same width.
    """
    query_codes, database_codes = np.asarray(query_codes), np.asarray(database_codes)
    for name, codes in (("query_codes", query_codes), ("database_codes", database_codes)):
        if codes.dtype != np.uint8 or codes.ndim != 2 or not codes.shape[1]:
            raise ValueError(f"{name} must be packed codes, uint8 [n, width >= 1], {_got(codes)}")
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


def nearest(query_codes: np.ndarray, database_codes: np.ndarray, count: int) -> np.ndarray:
    """The positions of the `count` nearest items of the database, nearest first: int64 [q, count].

    query_codes, database_codes: packed uint8 [q, w] and [n, w]. Items at one distance stand in the
    order of the database.
    """
    distance = hamming_distance(query_codes, database_codes)
    return np.argsort(distance, axis=1, kind="stable")[:, :count]


def to_words(codes: np.ndarray) -> np.ndarray:
    """Packed bytes as 64-bit words, the form in which comparing is fastest.

    codes: uint8 [n, w], w >= 1; zero bytes fill the last word.
    Returns uint64 [ceil(w / 8), n], each word of all items contiguous.
    """
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


def validate_bits(bits: np.ndarray, name: str) -> np.ndarray:
    """Returns bits as an array, or raises ValueError unless it is uint8 [n, k >= 1] of 0 and 1.

    name: what the message calls the argument.
    """
    bits = np.asarray(bits)
    if bits.dtype != np.uint8 or bits.ndim != 2 or not bits.shape[1]:
        raise ValueError(f"{name} must be 0 and 1 as uint8 [n, columns >= 1], {_got(bits)}")
    if bits.max(initial=0) > 1:
        raise ValueError(f"{name} must hold only 0 and 1, got {bits.max()}")
    return bits


def validate_codes(codes: np.ndarray, code_length: int, name: str = "codes") -> np.ndarray:
    """Returns codes as an array, or raises ValueError unless they are codes of code_length bits.

    That is uint8 [n, ceil(code_length / 8)] with unused low bits 0; `name` is what the message
    calls the argument.
    """
    if not isinstance(code_length, Integral) or not 1 <= code_length <= MAX_CODE_LENGTH:
        raise ValueError(
            f"code_length must be an integer in [1, {MAX_CODE_LENGTH}], got {code_length!r}"
        )
    codes = np.asarray(codes)
    width = -(-code_length // 8)
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != width:
        raise ValueError(
            f"{name} must be uint8 [n, {width}] for code_length={code_length}, {_got(codes)}"
        )
    unused = width * 8 - code_length
    if (codes[:, -1] & ((1 << unused) - 1)).any():
        raise ValueError(f"{name} must have 0 in the {unused} unused low bits, got bits set there")
    return codes


def _got(array: np.ndarray) -> str:
    return f"got {array.dtype} {list(array.shape)}"
