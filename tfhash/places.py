"""Where the files and folders are that a run was told of, for who reads its folder later.

What lets code run, and what is written to, is never taken from a run folder.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfhash.settings import fields_of


def of(config: Any, directory: Path, prefix: str = "") -> dict[str, str]:
    """Where what a configuration names is, seen from a run folder: paths by PREFIXname.

    Relative to the folder where the user gave a relative path, or it lies inside, so that both can
    move together; else absolute. What is not there, such as `weights`=imagenet, is left out.
    """
    found = {}
    for name, field in fields_of(type(config)).items():
        value = getattr(config, name)
        if field.metadata["path"] and field.metadata["from_run"] and value is not None:
            if os.path.exists(value):
                found[prefix + name] = _seen_from(directory, value)
    return found


def _seen_from(directory: Path, path: str) -> str:
    run, there = os.path.realpath(directory), os.path.abspath(path)
    together = not os.path.isabs(path) or Path(there).is_relative_to(run)
    return os.path.relpath(there, run) if together else there


def taken(config: Any, kept: Any, directory: Path, own: Mapping[str, Any], prefix: str = "") -> Any:
    """The configuration of a run folder, as who reads it may take it.

    kept: what `of` answered when the run was made, as the folder has it. own: what the reader says,
    by names; it goes before all. A path is that of `kept` where something is there, and as the run
    was given it otherwise. Fields that no run folder has a say in are at their defaults.
    """
    changes = {}
    for name, field in fields_of(type(config)).items():
        seen = kept.get(prefix + name) if isinstance(kept, dict) else None
        if prefix + name in own:
            changes[name] = own[prefix + name]
        elif not field.metadata["from_run"]:
            changes[name] = field.default
        elif field.metadata["path"] and isinstance(seen, str):
            there = os.path.normpath(os.path.join(os.path.realpath(directory), seen))
            if os.path.exists(there):
                changes[name] = there
    return dataclasses.replace(config, **changes)
