"""Codes: threshold, bit order, unused bits, distances against counting by hand, clear refusals."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash import codes

CODE_LENGTHS = (1, 5, 8, 12, 20, 48, 64, 65, 130)


def random_bits(count: int, code_length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (count, code_length), dtype=np.uint8)


def test_binarize_is_strictly_above_one_half():
    above = np.nextafter(np.float32(0.5), np.float32(1))
    bits = codes.binarize(np.array([[0.0, 0.5, above, 1.0]], np.float32))
    assert bits.dtype == np.uint8
    assert bits.tolist() == [[0, 0, 1, 1]]


def test_pack_puts_the_first_bit_highest_and_fills_with_zeros():
    packed = codes.pack(np.array([[1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1]], np.uint8))
    assert packed.dtype == np.uint8
    assert packed.tolist() == [[0b10000001, 0b10100000]]


@pytest.mark.parametrize("code_length", CODE_LENGTHS)
def test_unpack_undoes_pack(code_length):
    bits = random_bits(7, code_length)
    packed = codes.pack(bits)
    assert packed.shape == (7, (code_length + 7) // 8)
    np.testing.assert_array_equal(codes.unpack(packed, code_length), bits)


@pytest.mark.parametrize("code_length", CODE_LENGTHS)
def test_hamming_distance_counts_differing_bits(code_length):
    queries, database = random_bits(4, code_length, 1), random_bits(9, code_length, 2)
    distance = codes.hamming_distance(codes.pack(queries), codes.pack(database))
    assert distance.dtype == np.uint16
    expected = [
        [sum(a != b for a, b in zip(query, item, strict=True)) for item in database]
        for query in queries
    ]
    assert distance.tolist() == expected


def test_hamming_distance_goes_beyond_one_byte():
    zeros, ones = np.zeros((1, 40), np.uint8), np.full((1, 40), 255, np.uint8)
    assert codes.hamming_distance(zeros, ones).tolist() == [[320]]


def test_hamming_distance_is_the_same_in_tiles(monkeypatch):
    queries, database = codes.pack(random_bits(5, 20, 1)), codes.pack(random_bits(6, 20, 2))
    whole = codes.hamming_distance(queries, database)
    monkeypatch.setattr(codes, "_TILE_ITEMS", 13)
    np.testing.assert_array_equal(codes.hamming_distance(queries, database), whole)


def test_hamming_distance_accepts_no_items():
    none, some = np.zeros((0, 3), np.uint8), np.zeros((2, 3), np.uint8)
    assert codes.hamming_distance(none, some).shape == (0, 2)
    assert codes.hamming_distance(some, none).shape == (2, 0)


def test_views_that_are_not_contiguous_are_read_right():
    bits = random_bits(12, 70)
    packed = codes.pack(bits)
    np.testing.assert_array_equal(
        codes.hamming_distance(packed[::3], packed[::-1]),
        (bits[::3, None] != bits[::-1]).sum(axis=-1),
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: codes.binarize(np.zeros(3)), r"embedding must have shape \[n, k\], got \[3\]"),
        (lambda: codes.binarize(np.array([[np.nan]])), "embedding holds NaN"),
        (lambda: codes.pack(np.zeros((2, 3))), r"bits must be .* uint8 .*, got float64 \[2, 3\]"),
        (lambda: codes.pack(np.zeros(3, np.uint8)), r"bits must be .*, got uint8 \[3\]"),
        (lambda: codes.pack(np.zeros((2, 0), np.uint8)), r"bits must be .*, got uint8 \[2, 0\]"),
        (lambda: codes.pack(np.array([[0, 2]], np.uint8)), "bits must hold only 0 and 1, got 2"),
        (lambda: codes.unpack(np.zeros((1, 1), np.uint8), 0), r"code_length .*, got 0"),
        (lambda: codes.unpack(np.zeros((1, 1), np.uint8), 8.0), r"code_length .*, got 8\.0"),
        (
            lambda: codes.unpack(np.zeros((1, 4096), np.uint8), 32768),
            r"code_length must be an integer in \[1, 32767\], got 32768",
        ),
        (
            lambda: codes.unpack(np.zeros((1, 1), np.uint8), 12),
            r"codes must be uint8 \[n, 2\] for code_length=12, got uint8 \[1, 1\]",
        ),
        (
            lambda: codes.unpack(np.zeros((1, 2), np.int64), 12),
            r"codes must be uint8 \[n, 2\] for code_length=12, got int64 \[1, 2\]",
        ),
        (
            lambda: codes.unpack(np.array([[0, 0b1000]], np.uint8), 12),
            "codes must have 0 in the 4 unused low bits",
        ),
        (
            lambda: codes.hamming_distance(np.zeros((1, 2), np.uint8), np.zeros((1, 3), np.uint8)),
            "must have the same width in bytes, got 2 and 3",
        ),
        (
            lambda: codes.hamming_distance(np.zeros((1, 2)), np.zeros((1, 2), np.uint8)),
            r"query_codes must be packed codes, .*, got float64 \[1, 2\]",
        ),
        (
            lambda: codes.hamming_distance(np.zeros((1, 2), np.uint8), np.zeros(2, np.uint8)),
            r"database_codes must be packed codes, .*, got uint8 \[2\]",
        ),
    ],
)
def test_refuses_with_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
