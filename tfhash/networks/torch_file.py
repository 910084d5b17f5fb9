"""Tensors of a file that torch.save wrote, without torch and without running what the file says.

The file holds pickles, and a pickle can name any function to be called. So it is not unpickled:
its instructions are read one by one, and what is not needed to write tensors down is refused.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickletools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfhash.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before version 1.6
_PROTOCOL = 1001
_DTYPES: dict[str, np.dtype] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch LongStorage": np.dtype("<i8"),
}
_DICTIONARY, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_MOST_ELEMENTS = 2**28  # of a storage, and of all tensors: 1 GiB of float32
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE")
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Name:
    """A name that the file has for a function or a class."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """A tensor's memory, by its key in the file; its values come after all pickles."""

    key: str
    dtype: np.dtype
    size: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, as the file describes it; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Pickle:
    """Follows the instructions of one pickle that only makes tensors and dictionaries of them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def load(self, content: BinaryIO) -> Any:
        """What the next pickle of `content` makes. ValueError for any other instruction."""
        for opcode, argument, _ in pickletools.genops(content):
            self.follow(opcode.name, argument)
        return self.stack.pop()

    def follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(self.taken(len(stack) - _TUPLES[name]))
        elif name == "TUPLE":
            stack.append(self.taken(self.marks.pop()))
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("SETITEM", "SETITEMS"):
            self.set(self.taken(len(stack) - 2 if name == "SETITEM" else self.marks.pop()))
        elif name in ("APPEND", "APPENDS"):
            items = self.taken(len(stack) - 1 if name == "APPEND" else self.marks.pop())
            _of_type(stack[-1], list).extend(items)
        elif name == "GLOBAL":
            stack.append(_name(argument))
        elif name == "BINPERSID":
            stack.append(_storage(*_of_type(stack.pop(), tuple)))
        elif name == "REDUCE":
            arguments = _of_type(stack.pop(), tuple)
            stack.append(_made(_of_type(stack.pop(), _Name), arguments))
        elif name == "BUILD":  # torch tells the versions of modules in a dictionary's attributes
            stack.pop()
            _of_type(stack[-1], dict)
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"it has the instruction {name}, which no tensor needs")

    def taken(self, start: int) -> tuple[Any, ...]:
        """The end of the stack from a place on, taken off it."""
        if start < 0:
            raise ValueError("an instruction takes more than there is")
        items = tuple(self.stack[start:])
        del self.stack[start:]
        return items

    def set(self, items: tuple[Any, ...]) -> None:
        keys = [_of_type(key, str) for key in items[::2]]
        _of_type(self.stack[-1], dict).update(zip(keys, items[1::2], strict=True))


def _of_type(thing: Any, kind: type) -> Any:
    """The thing; ValueError where it is not of just this type."""
    if type(thing) is not kind:
        raise ValueError(f"it has {type(thing).__name__} in the place of {kind.__name__}")
    return thing


def _name(text: str) -> _Name:
    if text not in (_DICTIONARY, _TENSOR, *_DTYPES):
        raise ValueError(f"it names {'.'.join(text.split())}, which is not of tensors")
    return _Name(text)


def _storage(kind: Any, dtype: Any, key: Any, _: Any, size: Any, *view: Any) -> _Storage:
    named = dtype.text if type(dtype) is _Name else ""
    known = kind == "storage" and named in _DTYPES and type(key) is str
    if not known or any(part is not None for part in view):
        raise ValueError("it has a storage of an unknown kind")
    if not 0 <= _of_type(size, int) <= _MOST_ELEMENTS:
        raise ValueError(f"it has a storage of {size} elements")
    return _Storage(key, _DTYPES[named], size)


def _made(name: _Name, arguments: tuple[Any, ...]) -> Any:
    """What a call of a known name answers: a dictionary, which is empty yet, or a tensor."""
    if name.text == _DICTIONARY and not arguments:
        return {}
    if name.text != _TENSOR or len(arguments) < 4:
        raise ValueError(f"it calls {name.text.replace(' ', '.')} with other arguments than torch")
    storage, offset, shape, strides = arguments[:4]  # others tell of gradients and hooks
    sizes = [tuple(_of_type(n, int) for n in _of_type(of, tuple)) for of in (shape, strides)]
    return _Tensor(_of_type(storage, _Storage), _of_type(offset, int), *sizes)


def read(path: Path | str, sha256: str | None = None) -> dict[str, np.ndarray]:
    """The tensors of a file by name, as arrays of their own: float32, float16, int64.

    The file holds one dictionary of tensors, as `torch.save(model.state_dict(), path)` wrote it
    before torch 1.6; sha256: the digest that it must have, hexadecimal. Raises UserError, one line,
    for any other file, a damaged one, and one that names anything but tensors; nothing of it is
    run.
    """
    try:
        content = Path(path).read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("its sha256 is another one than expected")
        return _read(io.BytesIO(content))
    except OSError as error:
        raise UserError(f"`weights`: cannot read {path} ({error.strerror or error})") from None
    except (
        EOFError, struct.error, ValueError, TypeError, KeyError, IndexError, MemoryError,
        OverflowError,
    ) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise UserError(f"`weights`: {path} is no file of tensors: {reason}") from None


def _read(content: BinaryIO) -> dict[str, np.ndarray]:
    magic, protocol = (_Pickle().load(content) for _ in range(2))
    if (magic, protocol) != (_MAGIC, _PROTOCOL):
        raise ValueError("it does not begin as files of torch.save before 1.6 do")
    system = _Pickle().load(content)
    if not system["little_endian"]:
        raise ValueError("its numbers are big-endian")
    tensors = _Pickle().load(content)
    if not (isinstance(tensors, Mapping) and all(isinstance(t, _Tensor) for t in tensors.values())):
        raise ValueError("it holds no dictionary of tensors")
    elements = sum(math.prod(tensor.shape) for tensor in tensors.values())
    if elements > _MOST_ELEMENTS:
        raise ValueError(f"it has tensors of {elements} elements together")
    sizes = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    values = {}
    for key in _Pickle().load(content):
        (count,) = struct.unpack("<q", content.read(8))
        storage = sizes[key]
        if count != storage.size:
            raise ValueError(f"storage {key} has {count} elements, expected {storage.size}")
        memory = content.read(count * storage.dtype.itemsize)
        if len(memory) != count * storage.dtype.itemsize:
            raise ValueError("it is cut off")
        values[key] = np.frombuffer(memory, storage.dtype)
    return {name: _array(tensor, values[tensor.storage.key]) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """The view, copied; ValueError where it reaches beyond its storage."""
    if len(tensor.shape) != len(tensor.strides) or min((*tensor.shape, *tensor.strides, 0)) < 0:
        raise ValueError(f"a tensor of shape {tensor.shape} and strides {tensor.strides}")
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if math.prod(tensor.shape) > len(values):
        raise ValueError("a tensor has more elements than its storage")
    if tensor.offset < 0 or (0 not in tensor.shape and last >= len(values)):
        raise ValueError("a tensor reaches beyond its storage")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, values.dtype)
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides).copy()
