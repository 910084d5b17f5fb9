"""The run that something is learned in: where it leaves what it makes, and who writes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfhash.errors import UserError, unwritable
from tfhash.names import encoded
from tfhash.storage.locks import lock

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

    @property
    def follows(self) -> bool:
        """Whether another process, the first of several, writes for this one."""
        return self.directory is not None and not self.writes

    def logs(self, stage: str) -> Path | None:
        """The folder for TensorBoard of a stage; None in a process that does not write."""
        return self.folder("logs", stage) if self.writes else None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other process works in the folder meanwhile. NotNowError where one does already.

        What processes that were killed have left half written is removed.
        """
        if self.directory is None or not self.writes:
            yield
            return
        with lock(self.directory, "model_dir"):
            for folder in (self.directory, self.directory / "codes"):
                for leftover in folder.glob(".*.tmp-*"):
                    leftover.unlink(missing_ok=True)
            yield

    def claim(self, name: str, deciding: Mapping[str, Any], adopts: bool = False) -> None:
        """Makes sure that the folder holds the work of these values, or no work yet.

        name: of the file that keeps them. adopts: a folder without that file, as earlier versions
        left it, is taken for one of these values. UserError, naming the first value that differs,
        where the folder holds the work of others, or of values that cannot be read any more; where
        it cannot be written.
        """
        if self.directory is None:
            return
        path = self.directory / name
        begun = any((self.directory / part).exists() for part in WORK)
        try:
            if self.writes and not begun:
                path.unlink(missing_ok=True)  # left by a run that ended at a mistake of the user
        except OSError as error:
            raise unwritable("`model_dir`", self.directory, error) from None
        if self.writes or begun:
            trained = any((self.directory / CHECKPOINTS).glob("*"))
            claim(path, deciding, self.writes, "model_dir", trained and not adopts)

    def write_text(self, name: str, text: str) -> None:
        """Writes directory/name in one move. UserError where that is not possible."""
        if self.writes and self.directory is not None:
            try:
                write_text(self.directory / name, text)
            except OSError as error:
                raise unwritable("`model_dir`", self.directory, error) from None

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes directory/name in one move."""
        self.write_text(name, json.dumps(content, indent=1) + "\n")


class OtherWorkError(UserError):
    """A folder holds the work of other values."""


def write_text(path: Path, text: str) -> None:
    """Writes a file in one move, so that no reader sees half of it: UTF-8, names as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_bytes(encoded(text))
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = error.filename or os.fspath(path)
        raise


def claim(
    path: Path,
    deciding: Mapping[str, Any],
    writes: bool = True,
    setting: str = "stage1_dir",
    begun: bool = False,
) -> None:
    """Makes sure that a folder holds the work of these values and no others.

    Writes them to `path` as JSON where nothing is there. UserError, naming the first value that
    differs, where the folder was made with other ones; naming the setting that names the folder,
    where its work has begun and what it was made with cannot be read.
    """
    if not path.is_file() and not begun:
        if writes:
            try:
                write_text(path, json.dumps(deciding, indent=1) + "\n")
            except OSError as error:
                raise unwritable(f"`{setting}`", path.parent, error) from None
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"`{setting}`: {path} tells what {path.parent} was made with, and cannot be read "
            f"({error}); allowed: that file as it was, or another folder"
        ) from None
    for name in dict.fromkeys([*deciding, *found]):
        # Through JSON, so that a tuple equals the list that it was written as.
        asked = json.loads(json.dumps(deciding.get(name)))
        if asked is not None and name not in found:  # a setting that came later, for instance
            raise OtherWorkError(
                f"`{name}`: {asked!r}, but {path.parent} was made without it; allowed: another "
                "folder"
            )
        if found.get(name) != asked:
            raise OtherWorkError(
                f"`{name}`: {asked!r}, but {path.parent} was made with {found.get(name)!r}; "
                "allowed: the same value, or another folder"
            )
