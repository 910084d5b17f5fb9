"""Writing .npz files in one move; reading them, and all else that stands where one is expected."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from tfhash import npz
from tfhash.data import splits
from tfhash.errors import UserError
from tfhash.features import bag_of_words
from tfhash.methods.lsh import LSH
from tfhash.networks import weights
from tfhash.runs import folder


def bytes_of(write, *arrays, **named) -> bytes:
    file = io.BytesIO()
    write(file, *arrays, **named)
    return file.getvalue()


GOOD = bytes_of(np.savez, a=np.arange(3), b=np.array(["x\udcff"]))
HUGE = io.BytesIO()
with zipfile.ZipFile(HUGE, "w") as archive:
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1)) | {"shape": (1 << 50,)}
    entry = io.BytesIO()
    np.lib.format.write_array_header_1_0(entry, header)
    archive.writestr("a.npy", entry.getvalue())
OTHERS = {
    "npy": (bytes_of(np.save, np.zeros((2, 3))), r"an \.npy file of one array, float64 \[2, 3\]"),
    "empty": (b"", "empty|No data"),
    "text": (b"a,b\n1,2\n", "no .npz file of arrays"),
    "half": (GOOD[: len(GOOD) // 2], "no .npz file of arrays|zip"),
    "damaged": (GOOD.replace(np.arange(3).tobytes(), np.arange(1, 4).tobytes()), "CRC"),
    "objects": (bytes_of(np.savez, a=np.array([{}], object)), "Python objects"),
    "huge": (HUGE.getvalue(), "more arrays than memory holds"),
    "other names": (bytes_of(np.savez, z=np.zeros(1)), "no array 'a' in it; it has z"),
}


def test_the_arrays_that_are_asked_for(tmp_path):
    path = tmp_path / "\udcff.npz"
    path.write_bytes(GOOD)
    assert {key: array.tolist() for key, array in npz.read(path).items()} == {
        "a": [0, 1, 2],
        "b": ["x\udcff"],
    }
    assert list(npz.read(path, ["b"])) == ["b"]


@pytest.mark.parametrize(("content", "message"), OTHERS.values(), ids=OTHERS)
def test_another_file_is_one_line(content, message, tmp_path):
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        npz.read(path, ["a"])
    assert "\n" not in str(refused.value)


def test_no_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="^No such file or directory$"):
        npz.read(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="^Is a directory$"):
        npz.read(tmp_path)


READERS = {
    "codes": lambda path: folder.read_codes(path.parents[1], "query", ("codes",)),
    "samples": lambda path: folder.read_samples(path.parents[1], 2),
    "features": lambda path: bag_of_words.read(path, ["a"]),
    "splits": splits.RetrievalSplits.load,
    "weights": lambda path: weights._read_npz(path),
    "hash functions": lambda path: LSH(code_length=4).load_weights(path.parent),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_an_npy_file_for_an_npz_is_told_by_who_reads_it(reader, tmp_path):
    for place in ("codes/query.npz", "samples.npz", "codes/hash_functions.npz"):
        (tmp_path / "codes").mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(OTHERS["npy"][0])
    with pytest.raises(UserError, match=r"\.npz.*an \.npy file of one array"):
        reader(tmp_path / "codes" / "query.npz")


@pytest.mark.parametrize("form", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["a.npz", "a"])
def test_what_is_written_is_read(tmp_path, name, form):
    """Under the name as it is given, in a folder that is made."""
    arrays = {"x": np.arange(3), "n": 5}
    npz.write(tmp_path / "new" / name, arrays, form)
    found = npz.read(tmp_path / "new" / name)
    assert {of: array.tolist() for of, array in found.items()} == {"x": [0, 1, 2], "n": 5}
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_what_does_not_fit_leaves_what_was_there(tmp_path, file_size_limit):
    path = tmp_path / "a.npz"
    npz.write(path, {"x": np.zeros(2)})
    noise = np.frombuffer(np.random.default_rng(0).bytes(9000), np.uint8)
    with file_size_limit(4096), pytest.raises(OSError, match="File too large") as error:
        npz.write(path, {"x": noise})
    assert error.value.filename == str(path)
    assert npz.read(path)["x"].tolist() == [0, 0]
    assert list(tmp_path.iterdir()) == [path]
