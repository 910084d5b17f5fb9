"""What a caller gives, as NumPy arrays: lists and tensors too, or one line on what to do."""

from __future__ import annotations

from typing import Any

import numpy as np


def array(value: Any, name: str) -> np.ndarray:
    """The value as an array: of lists, and of tensors of any framework in the CPU's memory.

    name: of the argument. ValueError, in one line, for what cannot be read as one.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except Exception as error:  # each framework has its own
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} cannot be read as an array ({reason}); allowed: arrays, lists of rows of one "
            "length, tensors: of one on a GPU its .cpu(), of one with gradients its .detach()"
        ) from None


def got(array: np.ndarray) -> str:
    """What an error says of an array: got float64 [2, 3]."""
    return f"got {array.dtype} {list(array.shape)}"
