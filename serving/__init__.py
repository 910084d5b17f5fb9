"""Serving: clients of an exported encoder behind the TF Serving API, and what runs one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfhash.serving.aio import AsyncHashClient
    from tfhash.serving.client import HashClient

__all__ = ["AsyncHashClient", "HashClient"]
_MODULES = {"AsyncHashClient": "aio", "HashClient": "client"}


def __getattr__(name: str) -> Any:
    # Only once used: the stubs import TensorFlow, and a sibling such as tfhash.serving.deploy,
    # which passes through here, needs neither.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
