"""What encodes in a worker: a SavedModel of its own, or a server with the API of TF Serving."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tfhash import exports, stderr
from tfhash.errors import UserError
from tfhash.paths import literal
from tfhash.serving.bulk import places
from tfhash.serving.encode.files import DAMAGED, reason

_PARTIAL, _ALONE = "encode_bytes_partial", "encode_bytes"


class WrongModelError(RuntimeError):
    """What answers is not the model that the job was started with."""


class SavedModel:
    """An export in this process, loaded by plain TensorFlow."""

    def __init__(self, directory: str, fingerprint: str, threads: int):
        tf = _tensorflow()
        if threads:
            with contextlib.suppress(RuntimeError):  # TensorFlow has begun: its threads stay
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(threads)
        self._tf = tf
        self._fingerprint = fingerprint
        with fetched(directory) as folder, literal(folder) as plain:
            self._loaded = tf.saved_model.load(str(plain))  # its variables live as long as it does

    def __call__(self, images: Sequence[bytes]) -> list[bytes | str]:
        """The packed code of each image, or why it has none. WrongModelError."""
        answer = self._call(_PARTIAL, images)
        told = {*answer["fingerprint"].numpy().tolist()}
        if told != {self._fingerprint.encode()}:
            raise WrongModelError(f"fingerprint {told}, expected {self._fingerprint}")
        rows = zip(images, answer["code"].numpy(), answer["valid"].numpy(), strict=True)
        return [code.tobytes() if valid else self._reason(image) for image, code, valid in rows]

    def _reason(self, image: bytes) -> str:
        try:
            self._call(_ALONE, [image])
        except self._tf.errors.InvalidArgumentError as error:
            return reason(str(error))
        return DAMAGED

    def _call(self, signature: str, images: Sequence[bytes]) -> Any:
        return self._loaded.signatures[signature](image_bytes=self._tf.constant([*images]))


class Server:
    """A model behind the API of TF Serving, over gRPC."""

    def __init__(self, target: str, name: str, fingerprint: str, timeout: float, batch: int):
        from tfhash.serving.client import HashClient

        self._client = HashClient(target, name, timeout=timeout, max_batch=batch)
        self._fingerprint = fingerprint

    def __call__(self, images: Sequence[bytes]) -> list[bytes | str]:
        """The packed code of each image, or why it has none. WrongModelError, HashServiceError."""
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


def _tensorflow() -> ModuleType:
    """TensorFlow, imported without what it says then where its logs are not asked for."""
    silent = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3" and "tensorflow" not in sys.modules
    with stderr.aside() if silent else contextlib.nullcontext():
        import tensorflow as tf
    return tf


@dataclass(frozen=True)
class Model:
    """Which model a job is of, as it travels to its workers.

    directory: of a version, where each worker loads it; or else target and name on a server.
    """

    fingerprint: str
    code_length: int
    directory: str = ""
    threads: int = 1
    target: str = ""
    name: str = ""
    timeout: float = 60.0
    batch: int = 32

    def load(self) -> SavedModel | Server:
        if self.target:
            return Server(self.target, self.name, self.fingerprint, self.timeout, self.batch)
        return SavedModel(self.directory, self.fingerprint, self.threads)


def of_directory(directory: str, threads: int) -> Model:
    """The newest version in the folder of an export, or the folder itself. UserError for none."""
    if not places.is_remote(directory):
        version = exports.newest(Path(os.path.expanduser(directory)))
        described = exports.describe(version)
        where = str(version.absolute())
    else:
        where = _newest(directory)
        with fetched(where) as folder:
            described = exports.describe(Path(folder))
    return Model(described["fingerprint"], described["code_length"], where, threads)


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
def fetched(directory: str) -> Iterator[str]:
    """A folder of this machine with the files of a folder, for as long as the context lasts."""
    if not places.is_remote(directory):
        yield directory
        return
    with tempfile.TemporaryDirectory() as scratch:
        for path, _ in places.match(f"{directory.rstrip('/')}/**"):
            own = Path(scratch, path[len(directory.rstrip("/")) + 1 :])
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_bytes(places.read(path))
        yield scratch


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
