"""What encodes in a worker: an export of its own, or a server with the API of TF Serving."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfhash import exports
from tfhash.errors import UserError
from tfhash.serving import engines
from tfhash.serving.bulk import places
from tfhash.serving.encode.files import DAMAGED, reason
from tfhash.serving.local import Local, Tally, WrongModelError

_Answers = Iterator[list[bytes | str]]


class SavedModel:
    """An export in this process, computed by an engine."""

    def __init__(self, model: Model):
        file = engines.file_of(model.engine, model.directory)
        with fetched(model.directory, file) as version:
            self._local = Local(version, model.engine, model.threads)
        if self._local.fingerprint != model.fingerprint:
            raise WrongModelError(
                f"fingerprint {self._local.fingerprint}, expected {model.fingerprint}"
            )

    def __call__(self, batches: Iterable[Sequence[bytes]], tally: Tally) -> _Answers:
        """Of each batch the packed code of each image, or why it has none. WrongModelError.

        Images are decoded while the network runs on the batch before.
        """
        sent: deque[Sequence[bytes]] = deque()

        def contents() -> Iterator[Sequence[bytes]]:
            for batch in batches:
                sent.append(batch)
                yield batch

        for answer in self._local.stream(contents(), tally):
            rows = zip(sent.popleft(), answer.code, answer.valid, strict=True)
            yield [code.tobytes() if ok else self._reason(image) for image, code, ok in rows]

    def _reason(self, image: bytes) -> str:
        return reason(self._local.complaint(image))


class Server:
    """A model behind the API of TF Serving, over gRPC."""

    def __init__(self, target: str, name: str, fingerprint: str, timeout: float, batch: int):
        from tfhash.serving.client import HashClient

        self._client = HashClient(target, name, timeout=timeout, max_batch=batch)
        self._fingerprint = fingerprint

    def __call__(self, batches: Iterable[Sequence[bytes]], tally: Tally) -> _Answers:
        """As of `SavedModel`, with an empty tally. WrongModelError, HashServiceError."""
        return map(self._answers, batches)

    def _answers(self, images: Sequence[bytes]) -> list[bytes | str]:
        codes = self._client.encode_bytes([*images], on_error="mask")
        if codes.fingerprint != self._fingerprint:
            raise WrongModelError(
                f"fingerprint {codes.fingerprint or 'none'}, expected {self._fingerprint}"
            )
        rows = zip(images, codes.code, codes.valid, strict=True)
        return [code.tobytes() if valid else self._reason(image) for image, code, valid in rows]

    def _reason(self, image: bytes) -> str:
        from tfhash.serving.errors import InvalidInput

        try:
            self._client.encode_bytes([image])
        except InvalidInput as error:
            return reason(error.message)
        return DAMAGED


@dataclass(frozen=True)
class Model:
    """Which model a job is of, as it travels to its workers.

    directory: of a version, where each worker loads it, and computes with engine; or else target
    and name on a server.
    """

    fingerprint: str
    code_length: int
    directory: str = ""
    threads: int = 1
    engine: str = engines.TENSORFLOW
    target: str = ""
    name: str = ""
    timeout: float = 60.0
    batch: int = 32

    def load(self) -> SavedModel | Server:
        if self.target:
            return Server(self.target, self.name, self.fingerprint, self.timeout, self.batch)
        return SavedModel(self)


def of_directory(directory: str, threads: int, engine: str = engines.TENSORFLOW) -> Model:
    """The newest version in the folder of an export, or the folder itself.

    UserError for none, and where what the engine needs is not there.
    """
    if not places.is_remote(directory):
        version = exports.newest(Path(os.path.expanduser(directory)))
        described = exports.describe(version)
        where = str(version.absolute())
    else:
        where = _newest(directory)
        with fetched(where) as folder:
            described = exports.describe(Path(folder))
    engines.require(engine, where, places.exists)
    return Model(described["fingerprint"], described["code_length"], where, threads, engine)


def of_server(target: str, name: str, timeout: float, batch: int) -> Model:
    """What a server tells of its model. UserError where it tells too little; HashServiceError."""
    from tfhash.serving.client import HashClient

    with HashClient(target, name, timeout=timeout) as client:
        told = client.metadata()
    if told.code_length is None or not told.fingerprint:
        raise UserError(
            f"--model_name: {name} tells no code length or no fingerprint; allowed: a model that "
            "was exported since there are fingerprints"
        )
    return Model(
        told.fingerprint, told.code_length, target=target, name=name, timeout=timeout, batch=batch
    )


@contextlib.contextmanager
def fetched(directory: str, beside: str = "") -> Iterator[str]:
    """A folder of this machine with the files of a folder, for as long as the context lasts.

    beside: a file next to the folder, which is next to that of this machine too; "" for none.
    """
    if not places.is_remote(directory):
        yield directory
        return
    directory = directory.rstrip("/")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, directory.rpartition("/")[2])
        for path, _ in places.match(f"{directory}/**"):
            own = folder / path[len(directory) + 1 :]
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_bytes(places.read(path))
        if beside:
            Path(scratch, beside.rpartition("/")[2]).write_bytes(places.read(beside))
        yield str(folder)


def _newest(directory: str) -> str:
    """As `exports.newest`, of a folder that Beam's file systems know."""
    directory = directory.rstrip("/")
    if places.exists(f"{directory}/{exports.SAVED_MODEL}"):
        return directory
    found = [path for path, _ in places.match(f"{directory}/*/{exports.SAVED_MODEL}")]
    versions = [path.rsplit("/", 2)[1] for path in found]
    numbers = [version for version in versions if version.isdecimal()]
    if not numbers:
        raise UserError(f"--model: no export in {directory}; python -m tfhash.export")
    return f"{directory}/{max(numbers, key=int)}"
