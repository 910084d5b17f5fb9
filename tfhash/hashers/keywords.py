"""The keywords of the Python classes: what they are called, and what they may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfhash.errors import UserError
from tfhash.settings import fields_of


def signature(constructor: Callable, *config_classes: type) -> inspect.Signature:
    """What `help` and editors show of a class: each keyword with its default.

    constructor: takes self, keywords of its own, and **settings, for which the fields of the
    configuration classes stand.
    """
    _, *own, _ = inspect.signature(constructor).parameters.values()
    fields = [field for of in config_classes for field in fields_of(of).items()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            *own,
            *(
                inspect.Parameter(name, keyword, default=default_of(name, field.default))
                for name, field in fields
            ),
        ]
    )


def default_of(name: str, default: Any) -> Any:
    """The default of a keyword: that of its flag, but features are not kept on disk unasked."""
    return None if name == "cache_dir" else default


def plain(value: Any) -> Any:
    """Python's own number in place of NumPy's, and text of a path, so that it can be JSON."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number in its range. UserError, naming the keyword, for anything else."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"`{name}`: {value!r}; allowed: whole numbers")
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"{least} to {most}"
        raise UserError(f"`{name}`: {value}; allowed: {allowed}")
    return value
