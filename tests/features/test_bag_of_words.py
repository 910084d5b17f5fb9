"""Given descriptors: found by id, and refused where they do not fit."""

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.features import bag_of_words
from tfhash.storage.place import Storage


@pytest.fixture
def write(tmp_path):
    def save(**arrays):
        path = tmp_path / "features.npz"
        np.savez(path, **arrays)
        return path

    return save


def test_rows_come_in_the_order_of_the_ids(write):
    path = write(ids=["b", "a", "c"], features=np.array([[1, 2], [3, 4], [5, 6]]))
    found = bag_of_words.read(path, ["c", "a"])
    np.testing.assert_array_equal(found, [[5, 6], [3, 4]])
    assert found.dtype == np.float32


def test_rows_may_be_on_disk(write, tmp_path, monkeypatch):
    """The same rows, over several chunks, and whole numbers as the owners have them."""
    monkeypatch.setattr(bag_of_words, "_CHUNK", 3)
    features = np.random.default_rng(0).integers(0, 65536, (10, 4)).astype(np.uint16)
    ids = [str(number) for number in range(10)]
    order = np.random.default_rng(1).permutation(10)[:8]
    asked = [ids[number] for number in order]
    found = bag_of_words.read(
        write(ids=ids, features=features), asked, Storage("disk", tmp_path).empty
    )
    np.testing.assert_array_equal(found, features[order])
    assert isinstance(found, np.memmap) and found.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": ["a"]}, "features"),
        ({"ids": ["a", "b"], "features": np.zeros(2)}, r"float64 \[2\]"),
        ({"ids": ["a"], "features": np.zeros((2, 3))}, r"ids \[1\]"),
        ({"ids": ["a", "b"], "features": np.full((2, 1), "x")}, "numbers"),
        ({"ids": ["a", "b", "a"], "features": np.zeros((3, 1))}, "1 ids stand there twice"),
        ({"ids": ["a", "x"], "features": np.zeros((2, 1))}, "no row for 1 of 2 .* first is b"),
        ({"ids": ["a", "b"], "features": [[0], [np.nan]]}, "1 rows hold values that"),
        ({"ids": np.array(["a", "b"], object), "features": np.zeros((2, 1))}, "[Oo]bject|pickle"),
    ],
)
def test_what_does_not_fit_is_a_users_mistake(write, arrays, message):
    with pytest.raises(UserError, match=message) as raised:
        bag_of_words.read(write(**arrays), ["a", "b"])
    assert str(raised.value).startswith("`features_file`=")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_none_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="`features_file`"):
        bag_of_words.read(tmp_path / "none.npz", ["a"])
