"""An export in this process: files are decoded while the network runs on those before them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from os import fspath
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfhash import exports
from tfhash.errors import UserError
from tfhash.names import shown
from tfhash.paths import literal
from tfhash.serving import engines

_FEW, _SHARE = 2, 0.01  # bits that may differ: so many, or this share, where rounding differs


class WrongModelError(RuntimeError):
    """What answers is not the model that was asked for, or computes other codes than it."""


@dataclass
class Tally:
    """What was seen while images were encoded; sums of several are `Tally.names()`, each added.

    images: those that the times are of, all but the first batch of a process, which starts things.
    Times are in microseconds, of the wall clock. reading_us: until the files of a batch were there.
    decoding_us: of the thread that decodes. waiting_us: how long the network waited for it.
    network_us: of the network. compared, differing: bits, beside the SavedModel's.
    """

    images: int = 0
    reading_us: int = 0
    decoding_us: int = 0
    waiting_us: int = 0
    network_us: int = 0
    compared: int = 0
    differing: int = 0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))

    def profile(self) -> str | None:
        """What an image took, in words, and what bounds it; None where nothing was timed."""
        if not self.images:
            return None
        reading, decoding, waiting, network = (
            value / 1000 / self.images
            for value in (self.reading_us, self.decoding_us, self.waiting_us, self.network_us)
        )
        if not self.decoding_us:
            return f"ms an image: reading {reading:.2f}, decoding and network {network:.2f}"
        parts = {"reading": reading, "decoding": decoding, "the network": network}
        return (
            f"ms an image: reading {reading:.2f}, decoding {decoding:.2f}, network {network:.2f}, "
            f"which waited {waiting:.2f} for decoding; bound by {max(parts, key=parts.__getitem__)}"
        )

    def comparison(self, engine: str) -> str | None:
        """How many bits of an engine differ, in words; None where nothing was compared."""
        if not self.compared:
            return None
        return (
            f"--engine={engine}: {self.differing:,} of {self.compared:,} bits differ from the "
            "SavedModel's, in the first batch"
        )


class Answer(NamedTuple):
    """Of n images: codes uint8 [n, ceil(k / 8)], and bool [n], False where there is none."""

    code: np.ndarray
    valid: np.ndarray


class _Pixels(NamedTuple):
    """Of n files: uint8 [n, S, S, 3], a tensor; bool [n]; and how long that took."""

    images: Any
    valid: np.ndarray
    us: int


class Local:
    """The encoder of a version of an export. Several threads may share one."""

    def __init__(self, version: str | Path, engine: str = engines.TENSORFLOW, threads: int = 0):
        """Loads it; threads: of the network, 0 as many as cores.

        UserError where there is no fingerprint, and for what is not there that an engine needs.
        """
        described = exports.describe(Path(version))
        self.fingerprint: str = described["fingerprint"]
        self.code_length: int = described["code_length"]
        self.engine = engine
        self._version = fspath(version)
        self._tf = engines.tensorflow()
        _set_threads(self._tf, threads)
        engines.require(engine, self._version, lambda path: Path(path).is_file())
        self._network: engines.Network | None = None
        if engine != engines.TENSORFLOW:
            file = engines.file_of(engine, self._version)
            self._network = engines.load(engine, file, threads)
        # Models hold their variables as long as they are there. Beside another engine the
        # SavedModel goes once it was compared with it.
        with literal(version) as plain:
            self._saved_model: Any = self._tf.saved_model.load(fspath(plain))
            self._decoder = self._load_decoder(plain)
        self._begun = threading.Lock()
        self._is_first = self._is_uncompared = True

    def stream(self, batches: Iterable[Sequence[bytes]], tally: Tally) -> Iterator[Answer]:
        """The answer to each batch of files, one file or more, in their order.

        A batch is taken and decoded while the network runs on the one before it. WrongModelError.
        """
        taken = iter(batches)
        with ThreadPoolExecutor(1) as decoding:
            ahead = None
            while True:
                start = _now()
                batch = next(taken, None)
                reading = _now() - start
                following = None if batch is None else decoding.submit(self._decode, batch)
                if ahead is not None:
                    start = _now()
                    pixels = ahead.result()
                    waiting = _now() - start
                    yield self._answer(pixels, reading, waiting, tally)
                if following is None:
                    return
                ahead = following

    def complaint(self, content: bytes) -> str:
        """What the graph says of a file that it does not decode; "" where it decodes it."""
        signature = "decode_bytes" if self._decoder else "encode_bytes"
        try:
            (self._decoder or self._saved_model).signatures[signature](
                image_bytes=self._tf.constant([content])
            )
        except self._tf.errors.InvalidArgumentError as error:
            return str(error)
        return ""

    def _load_decoder(self, folder: Path) -> Any:
        """None for an export of before there were decoders, which TensorFlow alone can encode."""
        if (folder / exports.DECODER / exports.SAVED_MODEL).is_file():
            decoder = self._tf.saved_model.load(fspath(folder / exports.DECODER))
            signature = decoder.signatures["decode_bytes_partial"]
            size = signature.structured_outputs["images"].shape[1]
            if self._network and self._network.size != size:
                raise UserError(
                    f"--engine={self.engine}: its file takes images of {self._network.size} px, "
                    f"the export has {size}; {engines.to_make(self.engine, self._version)}"
                )
            return decoder
        if self._network:
            raise UserError(
                f"--engine={self.engine}: {shown(self._version)} was exported before it could be "
                "used so; python -m tfhash.export writes a new version"
            )
        return None

    def _decode(self, contents: Sequence[bytes]) -> _Pixels:
        start = _now()
        files = self._tf.constant([*contents])
        if not self._decoder:
            return _Pixels(files, np.empty(0, bool), 0)
        decoded = self._decoder.signatures["decode_bytes_partial"](image_bytes=files)
        return _Pixels(decoded["images"], decoded["valid"].numpy(), _now() - start)

    def _answer(self, pixels: _Pixels, reading: int, waiting: int, tally: Tally) -> Answer:
        start = _now()
        if self._network:
            answer = Answer(self._network.encode(pixels.images.numpy()), pixels.valid)
        else:
            answer = self._by_tensorflow(self._saved_model, pixels)
        network = _now() - start
        with self._begun:
            is_first, self._is_first = self._is_first, False
            if self._network and self._is_uncompared and answer.valid.any():
                self._compare(answer, pixels, tally)
                self._is_uncompared, self._saved_model = False, None
        if not is_first:
            tally.images += len(answer.valid)
            tally.reading_us += reading
            tally.decoding_us += pixels.us
            tally.waiting_us += waiting
            tally.network_us += network
        return answer

    def _by_tensorflow(self, saved_model: Any, pixels: _Pixels) -> Answer:
        if self._decoder:
            told = saved_model.signatures["encode_images"](images=pixels.images)
            valid = pixels.valid
        else:
            told = saved_model.signatures["encode_bytes_partial"](image_bytes=pixels.images)
            valid = told["valid"].numpy()
        found = {*told["fingerprint"].numpy().tolist()}
        if found != {self.fingerprint.encode()}:
            raise WrongModelError(f"fingerprint {found}, expected {self.fingerprint}")
        return Answer(told["code"].numpy(), valid)

    def _compare(self, answer: Answer, pixels: _Pixels, tally: Tally) -> None:
        """Counts the bits that differ from the SavedModel's, where there is a code."""
        expected = self._by_tensorflow(self._saved_model, pixels).code[answer.valid]
        code = answer.code[answer.valid]
        compared = len(code) * self.code_length
        same_form = code.shape == expected.shape
        differing = int(np.bitwise_count(code ^ expected).sum()) if same_form else compared
        tally.compared += compared
        tally.differing += differing
        if differing > max(_FEW, _SHARE * compared):
            raise WrongModelError(
                f"--engine={self.engine}: {differing:,} of {compared:,} bits differ from the "
                "SavedModel's, so its file is of another model; "
                f"{engines.to_make(self.engine, self._version)}"
            )


def _set_threads(tf: Any, threads: int) -> None:
    if threads:
        with contextlib.suppress(RuntimeError):  # TensorFlow has begun: its threads stay
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            # One more, so that decoding does not wait for the network.
            tf.config.threading.set_inter_op_parallelism_threads(threads + 1)


def _now() -> int:
    return time.perf_counter_ns() // 1000
