"""Tensors of torch's files: those are read, whatever else is refused, and nothing is ever run."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.networks import torch_file

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Named:
    """Pickled as a global name, whether or not it can be imported here."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    """Pickled as a call of a global name."""

    def __init__(self, function: Named, *arguments):
        self.function, self.arguments = function, arguments


class Pickler(pickle._Pickler):  # the one in Python, in which `save` can be changed
    """Writes globals by name alone, and storages as torch does: by a persistent id."""

    def save(self, thing, save_persistent_id=True):
        if isinstance(thing, Written):
            self.write(thing.instructions)
        elif isinstance(thing, Named):
            self.write(f"c{thing.module}\n{thing.name}\n".encode())
        elif isinstance(thing, Call):
            self.save(thing.function)
            self.save(tuple(thing.arguments))
            self.write(pickle.REDUCE)
        else:
            super().save(thing, save_persistent_id)

    def persistent_id(self, thing):
        return thing.pid if isinstance(thing, Storage) else None


class Storage:
    def __init__(self, key: str, size: int, kind: str = "FloatStorage", view=None, what="storage"):
        self.pid = (what, Named("torch", kind), key, "cpu", size, view)


def tensor(storage, offset, shape, strides) -> Call:
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, storage, offset, shape, strides, False, OrderedDict())


def written(tensors, values, magic=MAGIC, little_endian=True) -> bytes:
    """A file of torch.save before 1.6; values: the memory of each storage by key."""
    content = io.BytesIO()
    for thing in (magic, PROTOCOL, {"little_endian": little_endian}, tensors, sorted(values)):
        Pickler(content, protocol=2).dump(thing)
    for key in sorted(values):
        content.write(struct.pack("<q", len(values[key])) + values[key].tobytes())
    return content.getvalue()


NUMBERS = np.arange(12, dtype="<f4")


@pytest.fixture
def file(tmp_path):
    def write(content: bytes):
        (tmp_path / "file.pth").write_bytes(content)
        return tmp_path / "file.pth"

    return write


def test_tensors_are_views_of_storages(file):
    """A matrix, its transpose in the same storage, a column from 2 on, and one number."""
    storage = Storage("0", 12)
    tensors = OrderedDict(
        matrix=tensor(storage, 0, (3, 4), (4, 1)),
        transpose=tensor(storage, 0, (4, 3), (1, 4)),
        column=tensor(storage, 2, (3,), (4,)),
        number=tensor(Storage("1", 1, "LongStorage"), 0, (), ()),
        empty=tensor(storage, 0, (0, 4), (4, 1)),
    )
    found = torch_file.read(file(written(tensors, {"0": NUMBERS, "1": np.array([7], "<i8")})))
    np.testing.assert_array_equal(found["matrix"], NUMBERS.reshape(3, 4))
    np.testing.assert_array_equal(found["transpose"], NUMBERS.reshape(3, 4).T)
    np.testing.assert_array_equal(found["column"], [2, 6, 10])
    assert found["number"] == 7 and found["number"].dtype == np.int64
    assert found["empty"].shape == (0, 4) and found["matrix"].dtype == np.float32
    found["matrix"][0, 0] = 5  # no view of the file
    assert found["transpose"][0, 0] == 0


HOSTILE = {
    "a call of the shell": Call(Named("os", "system"), "touch TOUCHED"),
    "the same by another name": Call(Named("posix", "system"), "touch TOUCHED"),
    "eval": Call(Named("builtins", "eval"), "open('TOUCHED', 'w')"),
    "another function of torch": Call(Named("torch._utils", "_rebuild_parameter"), 1),
    "a storage that is a function": Call(Named("torch", "load"), "TOUCHED"),
    "an attribute of a known name": Call(Named("collections", "OrderedDict.fromkeys"), "ab"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_and_not_run(name, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = file(written(OrderedDict(weight=HOSTILE[name]), {}))
    with pytest.raises(
        UserError, match=r"`weights`: .* is no file of tensors: it names "
    ) as caught:
        torch_file.read(path)
    assert "\n" not in str(caught.value) and not (tmp_path / "TOUCHED").exists()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):  # hostile from its first byte on
        alone = pickle.dumps(os.getcwd, protocol)
        with pytest.raises(UserError, match=r"it (names posix.getcwd|has the instruction \w+)"):
            torch_file.read(file(alone))


class Written:
    """Bytes that stand in a pickle as they are."""

    def __init__(self, instructions: bytes):
        self.instructions = instructions


NAME = b"ctorch._utils\n_rebuild_tensor_v2\n"
TRICKS = {
    "a state for a function": (NAME + b"}b", "_Name in the place of dict"),
    "a state for a storage": (b"K\x01}b", "int in the place of dict"),
    "a key of nested tuples": (
        b"}K\x01" + b"\x85" * 300_000 + b"K\x01s",
        "tuple in the place of str",
    ),
    "a number as a name": (b"K\x01)R", "int in the place of _Name"),
    "a call with too little": (NAME + b")R", "calls torch._utils._rebuild_tensor_v2 with other"),
    "a dictionary of arguments": (
        b"ccollections\nOrderedDict\nK\x01\x85R",
        "calls collections.OrderedDict with other",
    ),
    "more than there is": (b"\x87", "takes more than there is"),
    "an extension": (b"\x82\x01", "has the instruction EXT1"),
    "a class from the stack": (
        b"\x8c\x02os\x8c\x06system\x93",
        "has the instruction SHORT_BINUNICODE",
    ),
}


@pytest.mark.parametrize("name", TRICKS)
def test_an_instruction_in_the_wrong_place_is_one_line(name, file):
    """And nothing of this process is changed by it."""
    instructions, reason = TRICKS[name]
    before = dict(vars(torch_file))
    with pytest.raises(UserError, match=f"`weights`: .*{reason}") as caught:
        torch_file.read(file(written(Written(instructions), {})))
    assert "\n" not in str(caught.value) and dict(vars(torch_file)) == before


@pytest.mark.parametrize(
    ("shape", "count", "reason"),
    [((2**24,), 1, "more elements than its storage"), ((100_000,), 3000, "300000000 elements")],
)
def test_a_small_file_asks_for_no_large_memory(shape, count, reason, file):
    """By a stride of 0, or by many tensors of one storage."""
    one = tensor(Storage("0", 100_000), 0, shape, (0 if count == 1 else 1,))
    tensors = {str(number): one for number in range(count)}
    path = file(written(tensors, {"0": np.zeros(100_000, "<f4")}))
    with pytest.raises(UserError, match=reason):
        torch_file.read(path)


DAMAGED = {
    "nothing": (b"", "pickle exhausted"),
    "text": (b"weights", "is no file of tensors"),
    "another start": (written({}, {}, magic=1), "does not begin as files of torch.save"),
    "big-endian": (written({}, {}, little_endian=False), "big-endian"),
    "a list": (written([1], {}), "no dictionary of tensors"),
    "no tensor": (written({"a": 1}, {}), "no dictionary of tensors"),
    "beyond its storage": (
        written({"a": tensor(Storage("0", 12), 1, (3, 4), (4, 1))}, {"0": NUMBERS}),
        "reaches beyond its storage",
    ),
    "before its storage": (
        written({"a": tensor(Storage("0", 12), -1, (3,), (1,))}, {"0": NUMBERS}),
        "reaches beyond its storage",
    ),
    "backwards": (
        written({"a": tensor(Storage("0", 12), 11, (3,), (-1,))}, {"0": NUMBERS}),
        "strides",
    ),
    "fewer strides": (
        written({"a": tensor(Storage("0", 12), 0, (3, 4), (1,))}, {"0": NUMBERS}),
        "strides",
    ),
    "another size": (
        written({"a": tensor(Storage("0", 11), 0, (3,), (1,))}, {"0": NUMBERS}),
        "has 12 elements, expected 11",
    ),
    "too large": (
        written({"a": tensor(Storage("0", 2**40), 0, (3,), (1,))}, {"0": NUMBERS}),
        "a storage of 1099511627776 elements",
    ),
    "a view of a storage": (
        written({"a": tensor(Storage("0", 12, view=("1", 0, 2)), 0, (3,), (1,))}, {"0": NUMBERS}),
        "unknown kind",
    ),
    "a storage that is none": (
        written({"a": tensor(Storage("0", 12, what="module"), 0, (3,), (1,))}, {"0": NUMBERS}),
        "unknown kind",
    ),
    "values of none": (written({}, {"0": NUMBERS}), "is no file of tensors: '0'"),
    "cut off": (
        written({"a": tensor(Storage("0", 12), 0, (3,), (1,))}, {"0": NUMBERS})[:-1],
        "cut off",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line(name, file):
    content, reason = DAMAGED[name]
    with pytest.raises(UserError, match=f"`weights`: .*{reason}") as caught:
        torch_file.read(file(content))
    assert "\n" not in str(caught.value)


def test_a_tensor_without_values_is_one_line(file):
    path = file(written({"a": tensor(Storage("0", 12), 0, (3,), (1,))}, {}))
    with pytest.raises(UserError, match="is no file of tensors: '0'"):
        torch_file.read(path)


def test_no_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"`weights`: cannot read .*none.pth \(No such file"):
        torch_file.read(tmp_path / "none.pth")
