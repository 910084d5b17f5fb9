"""Reading and writing .npz files: named arrays, without pickle."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def read(path: str | os.PathLike, keys: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their names: these, or all.

    ValueError that says in one line what is wrong with the path, for who knows the flag: no file
    there, another kind of file, such as .npy, a damaged one, Python objects, an array missing.
    """
    try:
        content = np.load(path, allow_pickle=False)
    except Exception as error:
        raise ValueError(_reason(error)) from None
    if isinstance(content, np.ndarray):
        raise ValueError(
            f"an .npy file of one array, {content.dtype} {list(content.shape)}; an .npz file has "
            "arrays by names, as np.savez writes them"
        )
    with content:
        wanted = content.files if keys is None else list(keys)
        if lacking := [key for key in wanted if key not in content.files]:
            raise ValueError(
                f"no array {lacking[0]!r} in it; it has {', '.join(content.files) or 'none'}"
            )
        try:
            return {key: content[key] for key in wanted}
        except Exception as error:
            raise ValueError(_reason(error)) from None


def write(
    path: Path, arrays: Mapping[str, Any], form: Callable[..., None] = np.savez_compressed
) -> None:
    """Writes an .npz file in one move, so that no reader sees half of it.

    arrays: by their names; form: np.savez_compressed, or np.savez where that gains nothing. Makes
    the folder. OSError, which names the file, where that fails; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In containers that share a folder all processes have one number.
    temporary = path.with_name(f".{path.name}.tmp-{platform.node()}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            form(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """One line of what NumPy, zipfile and zlib raise, of many kinds, where a file is no .npz."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "more arrays than memory holds"
    if str(error).startswith("Object arrays"):
        return "Python objects in it, which are not loaded; allowed: arrays of numbers and text"
    if "pickle" in str(error):  # what NumPy says of a file that is nothing that it knows
        return "no .npz file of arrays"
    return " ".join(str(error).split()) or "an empty file"
