"""The index and the encoder that the flags of a command name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfhash import exports
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.search import approximate, build, databases, tables
from tfhash.search.encoder import Encoder, Limits, limits_of
from tfhash.search.index import Index


class Opening:
    """Opens and makes indexes. given: values of flags; load_encoder: of a folder of an export."""

    def __init__(self, given: Any, load_encoder: Callable[[str], Encoder]):
        self.given, self.load_encoder = given, load_encoder
        self.check_backend()

    @property
    def in_database(self) -> bool:
        return databases.is_address(self.given.index)

    @property
    def is_there(self) -> bool:
        """Whether there is an index to open."""
        if self.in_database:
            return databases.is_there(self.given.index)
        return tables.is_there(Path(self.given.index).expanduser())

    def check_backend(self) -> None:
        """UserError for flags of a backend that would mean nothing."""
        given = self.given
        finer = [name for name in ("recall", "sure_radius") if given[name].value is not None]
        flags = [name for name in ("backend", *finer) if given[name].value is not None]
        if flags and self.in_database:
            raise UserError(f"--{flags[0]}: not with a database, which has lists of its own")
        if finer and given.backend in (None, "exact"):
            exact = (
                "with --backend=exact, which finds all" if given.backend else "without --backend"
            )
            allowed = "ivf, hnsw or multihash" if finer[0] == "recall" else "multihash"
            raise UserError(f"--{finer[0]}: {exact}; allowed: with --backend={allowed}")

    @property
    def _finer(self) -> dict[str, Any]:
        recall = approximate.RECALL if self.given.recall is None else self.given.recall
        return {"recall": recall, "sure_radius": self.given.sure_radius}

    def load(self) -> Any:
        """The index, to be asked by the backend of the flags or its own."""
        if self.in_database:
            return databases.opened(self.given.index)
        return Index.load(self.given.index, backend=self.given.backend, **self._finer)

    def to_change(self, code_length: int, fingerprint: str) -> Any:
        """The index, made where there is none, for codes of this model. UserError for others'."""
        given = self.given
        if not self.is_there and self.in_database:
            return databases.opened(given.index, code_length=code_length, model=fingerprint)
        if not self.is_there:
            return Index(
                code_length=code_length,
                path=given.index,
                model=fingerprint,
                backend=given.backend or "exact",
                **self._finer,
            )
        index: Any  # of one kind or the other
        index = databases.opened(given.index) if self.in_database else Index.load(given.index)
        try:
            build.check_model(index, code_length, fingerprint)
            if given.backend is not None:
                index.set_backend(given.backend, **self._finer)
        except BaseException:
            index.close()
            raise
        return index

    def encoder(self, index: Any = None) -> Encoder:
        """That of --model, else the one that the index was made with."""
        folder = self.given.model
        if folder is None and index is not None:
            folder = index.facts().get("export")
        elif folder is None and self.is_there:
            with self.load() as there:
                folder = there.facts().get("export")
        if not folder:
            raise UserError(
                "--model: none, and the index names none; allowed: a folder of tfhash.export"
            )
        return self.load_encoder(folder)

    def limits(self, index: Any) -> Limits:
        """Those of the model of the index, for pictures; the usual ones where it is not there."""
        folder = self.given.model or index.facts().get("export")
        if not folder:
            return Limits()
        try:
            return limits_of(exports.describe(exports.newest(Path(folder).expanduser())))
        except (UserError, OSError):
            return Limits()


def keep_place(index: Any, pattern: str, encoder: Encoder) -> None:
    """Keeps where the export is, and what the names of files are relative to."""
    check_place(index, pattern)
    facts = {"export": str(encoder.directory.resolve())}
    if not os.path.isabs(os.path.expanduser(pattern)):
        facts["folder"] = str(Path.cwd())
    known = index.facts()
    if any(known.get(name) != words for name, words in facts.items()):
        index.remember(**facts)


def check_place(index: Any, pattern: str) -> None:
    """UserError where a relative pattern means other files than the names in the index.

    A folder that is there no more is no hindrance: all may have been moved together.
    """
    known = index.facts().get("folder")
    if not known or os.path.isabs(os.path.expanduser(pattern)) or not os.path.isdir(known):
        return
    if not os.path.samefile(known, os.curdir):
        raise UserError(
            f"--images: {shown(pattern)} from here, but names in the index are relative to "
            f"{shown(known)}; allowed: the same command from there, or a pattern that begins with /"
        )
