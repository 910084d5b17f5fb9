"""Tensors of a file that torch.save wrote, without torch and without running what the file says.

A pickle can name any function to be called. Of these files three names are needed, which stand for
tensors; all others are refused.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfhash.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before version 1.6
_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
}
_MOST_ELEMENTS = 2**28  # of a storage: 1 GiB of float32


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


class _Unpickler(pickle.Unpickler):
    """Knows tensors and dictionaries of them, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not of tensors")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, size, *view = pid
        known = kind == "storage" and isinstance(dtype, np.dtype) and isinstance(key, str)
        if not known or any(part is not None for part in view):
            raise pickle.UnpicklingError("it has a storage of an unknown kind")
        if not (isinstance(size, int) and 0 <= size <= _MOST_ELEMENTS):
            raise pickle.UnpicklingError(f"it has a storage of {size} elements")
        return _Storage(key, dtype, size)


def read(path: Path | str) -> dict[str, np.ndarray]:
    """The tensors of a file by name, as arrays of their own: float32, float16, int64.

    The file holds one dictionary of tensors, as `torch.save(model.state_dict(), path)` wrote it
    before torch 1.6. Raises UserError, one line, for any other file, a damaged one, and one that
    names anything but tensors; nothing of it is run.
    """
    try:
        with open(path, "rb") as file:
            return _read(file)
    except OSError as error:
        raise UserError(f"`weights`: cannot read {path} ({error.strerror or error})") from None
    except (
        pickle.UnpicklingError, EOFError, struct.error, ValueError, TypeError, KeyError,
        IndexError, AttributeError, MemoryError, OverflowError,
    ) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise UserError(f"`weights`: {path} is no file of tensors: {reason}") from None


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    content = io.BytesIO(file.read())
    magic, protocol = (_Unpickler(content).load() for _ in range(2))
    if (magic, protocol) != (_MAGIC, _PROTOCOL):
        raise ValueError("it does not begin as files of torch.save before 1.6 do")
    system = _Unpickler(content).load()
    if not system["little_endian"]:
        raise ValueError("its numbers are big-endian")
    tensors = _Unpickler(content).load()
    if not (isinstance(tensors, Mapping) and all(isinstance(t, _Tensor) for t in tensors.values())):
        raise ValueError("it holds no dictionary of tensors")
    sizes = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    values = {}
    for key in _Unpickler(content).load():
        (count,) = struct.unpack("<q", content.read(8))
        storage = sizes[key]
        if count != storage.size:
            raise ValueError(f"storage {key} has {count} elements, expected {storage.size}")
        memory = content.read(count * storage.dtype.itemsize)
        if len(memory) != count * storage.dtype.itemsize:
            raise ValueError("it is cut off")
        values[key] = np.frombuffer(memory, storage.dtype)
    return {name: _array(tensor, values[tensor.storage.key]) for name, tensor in tensors.items()}


def _tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    """What torch calls to make a tensor; further arguments tell of gradients and hooks."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("it has a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _array(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """The view, copied; ValueError where it reaches beyond its storage."""
    if len(tensor.shape) != len(tensor.strides) or min((*tensor.shape, *tensor.strides, 0)) < 0:
        raise ValueError(f"a tensor of shape {tensor.shape} and strides {tensor.strides}")
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if tensor.offset < 0 or (0 not in tensor.shape and last >= len(values)):
        raise ValueError("a tensor reaches beyond its storage")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, values.dtype)
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides).copy()
