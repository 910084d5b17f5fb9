"""An export in this process in place of a server: what `run.encode` asks of a client."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from tfhash import exports
from tfhash.serving import engines
from tfhash.serving.answers import Codes
from tfhash.serving.encode.results import Source
from tfhash.serving.errors import InvalidInput
from tfhash.serving.local import Local, Tally


class InProcess:
    """Answers as a HashClient does, of the newest version of an export, or of a version."""

    def __init__(self, directory: Path, engine: str = engines.TENSORFLOW, threads: int = 0):
        """Loads it. UserError where it is none, or lacks what the engine needs."""
        version = exports.newest(directory.expanduser()).absolute()
        self._local = Local(version, engine, threads)
        number = int(version.name) if version.name.isdecimal() else 0
        self.source = Source(
            "",
            str(version.parent if number else version),
            number,
            self._local.code_length,
            self._local.fingerprint,
            engine,
        )
        self.tally = Tally()

    def stream(
        self, batches: Iterable[Sequence[bytes]], *, on_error: str = "mask"
    ) -> Generator[Codes, None, None]:
        """The codes of each batch of files, in order; files without one are not valid."""
        source = self.source
        for answer in self._local.stream(batches, self.tally):
            yield Codes(answer.code, answer.valid, source.version, fingerprint=source.fingerprint)

    def encode_bytes(self, contents: Sequence[bytes]) -> None:
        """InvalidInput where one of the files cannot be decoded, with what the graph says."""
        for content in contents:
            complaint = self._local.complaint(content)
            if complaint:
                source = self.source
                raise InvalidInput(source.model, "decode_bytes", "this process", None, complaint)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *exception: Any) -> None:
        pass
