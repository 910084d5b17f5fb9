"""Export: the encoder of a run as a SavedModel that loads without this library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfhash.export.saved_model import export_saved_model, save

__all__ = ["export_saved_model", "save"]


def __getattr__(name: str) -> Any:
    # Only once used: the command, which passes through here, silences TensorFlow before that.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.saved_model"), name)
