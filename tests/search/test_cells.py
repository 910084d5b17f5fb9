"""Cells: all within a radius, as comparing every code finds them, and few codes looked at."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.search import approximate, scan
from tfhash.search.cells import Cells, Distinct

faiss = pytest.importorskip("faiss", reason="needs the extra faiss")


def made(count, bits, centres, flipped, seed=0):
    rng = np.random.default_rng(seed)
    of = rng.integers(0, 2, (centres, bits), np.uint8)[rng.integers(0, centres, count)]
    of ^= (rng.random(of.shape) < flipped).astype(np.uint8)
    return scan.to_rows(np.unique(np.packbits(of, axis=1), axis=0))


@pytest.mark.parametrize("bits", [12, 48, 130])
@pytest.mark.parametrize(("centres", "flipped"), [(1, 0.5), (10, 0.05), (200, 0.1)])
def test_all_within_a_radius_are_found(bits, centres, flipped):
    codes = made(3_000, bits, centres, flipped)
    cells, order = Cells.of(codes, approximate.faiss_module())
    assert sorted(order.tolist()) == list(range(len(codes)))
    assert (cells.codes == codes[order]).all()
    for query in np.concatenate([codes[::300], made(9, bits, 9, 0.5, seed=5)]):
        far = scan.distances(query, cells.codes).astype(int)
        for radius in (0, 1, 4, 11, bits):
            places, distances = cells.within(query, radius)
            assert sorted(places.tolist()) == np.flatnonzero(far <= radius).tolist()
            assert (distances == far[places]).all()


def test_few_codes_are_looked_at(monkeypatch):
    """Ten classes: a query of one of them is at about half of the bits from all others."""
    codes = made(30_000, 48, 10, 0.05)
    cells, _ = Cells.of(codes, approximate.faiss_module())
    looked = []
    plain = scan.distances

    def counted(query, rows):
        looked.append(len(rows))
        return plain(query, rows)

    monkeypatch.setattr(scan, "distances", counted)
    for query in codes[:50]:
        cells.within(query, 2)
    assert sum(looked) / 50 < len(codes) / 5


@pytest.mark.parametrize("count", [0, 1])
def test_no_code_and_one(count):
    codes = made(count, 48, 1, 0.5)
    cells, _ = Cells.of(codes, approximate.faiss_module())
    for query in made(3, 48, 3, 0.5, seed=1):
        places, _ = cells.within(query, 48)
        assert places.tolist() == list(range(count))
        assert cells.counts(query, np.ones(count)).sum() == count


def test_rows_by_their_codes():
    """Codes 7, 5, 7, 9, 5 of rows 0 to 4, of which row 3 has no item from the start on."""
    rows = np.array([[7], [5], [7], [9], [5]], np.uint64)
    kept = np.array([True, True, True, False, True])
    distinct = Distinct.of(rows, kept, approximate.faiss_module())
    place = {int(code): n for n, (code,) in enumerate(distinct.codes)}
    assert set(place) == {5, 7}
    rank = np.array([3, 0, -1, -1, 1])  # row 2 went since
    assert distinct.live(rank)[[place[5], place[7]]].tolist() == [2, 1]
    assert distinct.rows_of(np.array([place[5]]), rank).tolist() == [1, 4]
    assert distinct.rows_of(np.array([place[7]]), rank).tolist() == [0]
