"""The methods: one module each, with one Hasher. A new method is a new module; nothing lists it.

A long method is a folder, whose __init__ offers its Hasher.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from tfhash.errors import UserError
from tfhash.hashers.base import Hasher


def names() -> list[str]:
    """The names that --method takes, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


@functools.cache
def get(name: str) -> type[Hasher]:
    """The Hasher of a method's module. UserError for an unknown name."""
    if name not in names():
        raise UserError(f"`method`: {name!r}; allowed: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    (hasher,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Hasher)
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
    )
    return hasher
