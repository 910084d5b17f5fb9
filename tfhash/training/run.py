"""The run that something is learned in: where it leaves what it makes, and who writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfhash.errors import UserError

CHECKPOINTS = "checkpoints"
SAVED = "hasher.json"  # what `Hasher.save` says of a hasher beside its weights
WORK = (CHECKPOINTS, SAVED)  # what tells that a run has begun


@dataclass(frozen=True)
class Run:
    """Where a run leaves what it makes, and whether this process is the one that writes.

    directory: the run folder; None: nothing is written, and nothing found. writes: False in all
    but the first process of several, which share the folder.
    """

    directory: Path | None = None
    writes: bool = True

    def __post_init__(self) -> None:
        if self.directory is None:
            object.__setattr__(self, "writes", False)
        else:
            object.__setattr__(self, "directory", Path(self.directory))

    def folder(self, *names: str) -> Path | None:
        """A folder of the run, which need not be there yet; None where nothing is written."""
        return None if self.directory is None else self.directory.joinpath(*names)

    def claim(self, name: str, deciding: Mapping[str, Any]) -> None:
        """Makes sure that the folder holds the work of these values, or no work yet.

        name: of the file that keeps them. UserError, naming the first value that differs, where the
        folder holds the work of others; where it cannot be written.
        """
        if self.directory is None:
            return
        path = self.directory / name
        begun = any((self.directory / part).exists() for part in WORK)
        try:
            if self.writes and not begun:
                path.unlink(missing_ok=True)  # left by a run that ended at a mistake of the user
        except OSError as error:
            raise UserError(f"`model_dir`: cannot write to {self.directory} ({error})") from None
        if self.writes or begun:
            claim(path, deciding, self.writes)

    def write_text(self, name: str, text: str) -> None:
        """Writes directory/name in one move. UserError where that is not possible."""
        if self.writes and self.directory is not None:
            try:
                write_text(self.directory / name, text)
            except OSError as error:
                raise UserError(
                    f"`model_dir`: cannot write to {self.directory} ({error})"
                ) from None

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes directory/name in one move."""
        self.write_text(name, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file in one move, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def claim(path: Path, deciding: Mapping[str, Any], writes: bool = True) -> None:
    """Makes sure that a folder holds the work of these values and no others.

    Writes them to `path` as JSON where nothing is there. UserError, naming the first value that
    differs, where the folder was made with other ones.
    """
    if not path.is_file():
        if writes:
            try:
                write_text(path, json.dumps(deciding, indent=1) + "\n")
            except OSError as error:
                raise UserError(f"cannot write to {path.parent} ({error})") from None
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for name in dict.fromkeys([*deciding, *found]):
        # Through JSON, so that a tuple equals the list that it was written as.
        asked = json.loads(json.dumps(deciding.get(name)))
        if found.get(name) != asked:
            raise UserError(
                f"`{name}`: {asked!r}, but {path.parent} was made with {found.get(name)!r}; "
                "allowed: the same value, or another folder"
            )
