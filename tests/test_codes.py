"""Codes: threshold, bit order, unused bits, distances against counting by hand, clear refusals."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash import codes

CODE_LENGTHS = (1, 5, 8, 12, 20, 48, 64, 65, 130)


PACKED = np.zeros((1, 2), np.uint8)


def random_bits(count: int, code_length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (count, code_length), dtype=np.uint8)


def test_binarize_is_strictly_above_one_half():
    above = np.nextafter(np.float32(0.5), np.float32(1))
    bits = codes.binarize(np.array([[0.0, 0.5, above, 1.0]], np.float32))
    assert bits.dtype == np.uint8
    assert bits.tolist() == [[0, 0, 1, 1]]


def test_binarize_of_signs_is_strictly_above_zero():
    bits = codes.binarize(np.array([[-1.0, -0.0, 1e-30, 7.0, -np.inf, np.inf]]), signs=True)
    assert bits.dtype == np.uint8
    assert bits.tolist() == [[0, 0, 1, 1, 0, 1]]


def test_tanh_outputs_are_never_halved_in_silence():
    """Above 0.5 lies half of what tanh makes of bits that are 1."""
    with pytest.raises(ValueError, match=r"in \[0, 1\], got -0\.9 to 1; .* say signs=True$"):
        codes.binarize([[-0.9, 0.4]])
    assert codes.binarize([[-0.9, 0.4]], signs=True).tolist() == [[0, 1]]


class OnCPU:
    """A tensor of a framework that NumPy does not know, by either protocol."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def __array__(self, dtype=None, copy=None):
        return self.array


class ByDLPack:
    def __init__(self, array):
        self.array = np.asarray(array)

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OnGPU:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")


@pytest.mark.parametrize("kind", [list, OnCPU, ByDLPack])
def test_lists_and_tensors_are_arrays(kind):
    bits = [[1, 0, 1], [0, 0, 1]]
    packed = codes.pack(kind(np.uint8(bits)) if kind is not list else bits)
    assert packed.tolist() == [[0b10100000], [0b00100000]]
    given = packed.tolist() if kind is list else kind(packed)
    if kind is not list:  # a list of bytes is int64: the hint says so
        assert codes.unpack(given, 3).tolist() == bits
        assert codes.hamming_distance(given, given).tolist() == [[0, 1], [1, 0]]
    embedding = np.array(bits) * 0.75
    assert codes.binarize(embedding.tolist() if kind is list else kind(embedding)).tolist() == bits


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8, np.int8])
def test_pack_takes_bits_of_any_whole_dtype(dtype):
    bits = random_bits(3, 12)
    np.testing.assert_array_equal(codes.pack(bits.astype(dtype)), codes.pack(bits))


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
        (lambda: codes.binarize(OnGPU()), r"embedding cannot be read .*its \.cpu\(\)"),
        (lambda: codes.binarize([[1.0], [1.0, 2.0]]), "embedding cannot be read as an array"),
        (lambda: codes.binarize([["a"]]), r"real numbers, got <U1 \[1, 1\]"),
        (lambda: codes.binarize([[1j]]), "real numbers, got complex128"),
        (lambda: codes.binarize([[0.2, 1.5]]), r"got 0 to 1\.5; .* signs=True"),
        (lambda: codes.pack(np.zeros((2, 3))), r"codes\.binarize .* signs=True"),
        (lambda: codes.pack([[-1, 1]]), r"only 0 and 1, got -1; of -1 and 1, give bits > 0"),
        (lambda: codes.pack([1, 0]), r"of one item, give bits\[None\]"),
        (lambda: codes.pack([["1"]]), r"got <U1 \[1, 1\]"),
        (lambda: codes.unpack(random_bits(2, 12), 12), "; codes.pack makes codes of bits"),
        (lambda: codes.unpack(random_bits(2, 12) > 0, 12), "; codes.pack makes codes of bits"),
        (lambda: codes.unpack(np.zeros((2, 12)), 12), r"codes\.pack\(codes\.binarize\(x\)\)"),
        (lambda: codes.unpack([[0, 0]], 12), r"give codes\.astype\(np\.uint8\)"),
        (lambda: codes.unpack(np.zeros(2, np.uint8), 12), r"of one code, give codes\[None\]"),
        (lambda: codes.unpack(np.zeros((1, 2), np.uint8), 24), "; 2 bytes hold 9 to 16 bits"),
        (lambda: codes.unpack(np.ones((1, 1), np.uint8), 1), "or bits that codes.pack has not"),
        (lambda: codes.unpack(np.ones((1, 1), np.uint8), True), "code_length .*, got True"),
        (lambda: codes.hamming_distance(random_bits(1, 8) > 0, []), "codes.pack makes codes"),
        (lambda: codes.nearest(PACKED, PACKED, 0), "count must be an integer >= 1, got 0"),
        (lambda: codes.nearest(PACKED, PACKED, 2.0), r"count .*, got 2\.0"),
        (lambda: codes.to_words(np.zeros((1, 2))), "codes must be packed codes"),
        (lambda: codes.validate_bits([3, 1], "query_labels"), r"np\.eye\(C, .*tfhash\.evaluate"),
        (lambda: codes.validate_bits([[3], [1]], "query_labels"), r"query_labels\[:, 0\]"),
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
