"""Verification: the same codes through Keras, tf.saved_model.load and a v1 Session.

As a script this file is the far side: a process that cannot import tfhash, as a server cannot.
Hence no import of tfhash here.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# Images at once, on all sides: it bounds the memory, and low precision may round differently in a
# batch of another size. No warm-up request is larger.
_BATCH = 32
_MAX_REASON = 300  # characters; TensorFlow's messages run to pages
_Arrays = Mapping[str, np.ndarray]
_Request = tuple[str, str, _Arrays]  # a name for people, signature, inputs
_Encode = Callable[[str, _Arrays], dict[str, np.ndarray]]  # signature, inputs -> outputs


class VerificationError(RuntimeError):
    """A SavedModel that does not answer as the Keras encoder does; not to be published."""


class _Case(NamedTuple):
    name: str
    signature: str
    inputs: _Arrays
    expected: _Arrays


def verify(
    folder: Path,
    encoder: Callable,
    images: np.ndarray,
    warmup: Iterable[tuple[str, _Arrays]],
    fingerprint: str,
) -> None:
    """Compares the answers of a SavedModel with those of the Keras encoder it was made from.

    folder: the SavedModel. encoder: float32 [n, S, S, 3] in [0, 255] to [n, k] in [0, 1].
    images: uint8 [n >= 1, S, S, 3], at the encoder's own size; files of them are PNG, which loses
    nothing. warmup: requests, a signature and its inputs each, that only have to be answered.
    fingerprint: what every row of every answer must name.
    Raises VerificationError, one line, at the first loader and signature that fail or that differ
    in any bit.
    """
    bits = _keras_embedding(encoder, images) > 0.5
    cases = _cases(images, bits.astype(np.uint8), fingerprint)
    for number, (signature, inputs) in enumerate(warmup):
        cases.append(_Case(f"warm-up request {number}, {signature}", signature, inputs, {}))
    for loader, answers in _answers_of_new_process(folder, cases).items():
        for case, answer in zip(cases, answers, strict=True):
            for output, expected in case.expected.items():
                differing = np.sum(answer[output] != expected)
                if differing:
                    raise VerificationError(
                        f"{loader}, {case.name}, {output}: {differing} of {expected.size} values "
                        "differ from Keras"
                    )


def _cases(images: np.ndarray, bits: np.ndarray, fingerprint: str) -> list[_Case]:
    """Every signature on all images; the partial one also on a batch that ends in a broken file."""
    files = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    rows = np.full(len(files), fingerprint.encode(), object)
    expected = {"bits": bits, "code": np.packbits(bits, axis=-1), "fingerprint": rows}
    all_valid = {"valid": np.ones(len(files), bool)}
    damaged = files[:_BATCH].copy()
    of_damaged = {name: value[:_BATCH].copy() for name, value in (expected | all_valid).items()}
    damaged[-1] = b"not an image"
    for name in ("bits", "code", "valid"):
        of_damaged[name][-1] = 0
    partial = "encode_bytes_partial"
    return [
        _Case("serving_default", "serving_default", {"images": images}, expected),
        _Case("encode_images", "encode_images", {"images": images}, expected),
        _Case("encode_bytes", "encode_bytes", {"image_bytes": files}, expected),
        _Case(partial, partial, {"image_bytes": files}, expected | all_valid),
        _Case(f"{partial} with a broken file", partial, {"image_bytes": damaged}, of_damaged),
    ]


def _keras_embedding(encoder: Callable, images: np.ndarray) -> np.ndarray:
    # In a graph, so that TensorFlow fuses the same operations as in the export, and on the CPU
    # like the other process: low precision rounds differently otherwise, near the threshold.
    @tf.function(input_signature=[tf.TensorSpec([None, *images.shape[1:]], tf.float32)])
    def embed(batch: tf.Tensor) -> tf.Tensor:
        with tf.device("/CPU:0"):
            return tf.cast(encoder(batch, training=False), tf.float32)

    starts = range(0, len(images), _BATCH)
    return np.concatenate([embed(images[i : i + _BATCH].astype(np.float32)) for i in starts])


def _answers_of_new_process(
    folder: Path, cases: list[_Case]
) -> dict[str, list[dict[str, np.ndarray]]]:
    """The answers to each case, by loader, from where tfhash cannot be imported."""
    with tempfile.TemporaryDirectory() as scratch:
        requests_file, answers_file = Path(scratch, "requests"), Path(scratch, "answers")
        requests_file.write_bytes(pickle.dumps([tuple(case[:3]) for case in cases]))
        # -P keeps this file's neighbours off the path. The GPU, if any, is this process's.
        process = subprocess.run(
            [sys.executable, "-P", __file__, str(folder), str(requests_file), str(answers_file)],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
        if process.returncode:
            last_line = "".join(process.stderr.strip().splitlines()[-1:])
            raise VerificationError(
                f"a process without tfhash ended with status {process.returncode}: {last_line}"
            )
        return pickle.loads(answers_file.read_bytes())


def _main(folder: str, requests_file: str, answers_file: str) -> None:
    requests = pickle.loads(Path(requests_file).read_bytes())
    try:
        answers = _answers(folder, requests)
    except VerificationError as error:
        sys.exit(str(error))
    Path(answers_file).write_bytes(pickle.dumps(answers))


def _answers(folder: str, requests: list[_Request]) -> dict[str, list[dict[str, np.ndarray]]]:
    """The outputs for each request, by loader. VerificationError at the first that fails."""
    answers: dict[str, list[dict[str, np.ndarray]]] = {}
    for loader, load in _LOADERS.items():
        answering = "loading"
        try:
            encode, answers[loader] = load(folder), []
            for request in requests:
                answering, signature, inputs = request
                answers[loader].append(_in_batches(encode, signature, inputs))
        except Exception as error:
            words = " ".join(str(error).split())[:_MAX_REASON]
            raise VerificationError(
                f"{loader}, {answering}: {type(error).__name__}: {words}"
            ) from error
    return answers


def _in_batches(encode: _Encode, signature: str, inputs: _Arrays) -> dict[str, np.ndarray]:
    ((name, values),) = inputs.items()
    starts = range(0, len(values), _BATCH)
    parts = [encode(signature, {name: values[i : i + _BATCH]}) for i in starts]
    return {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}


def _load_as_functions(folder: str) -> _Encode:
    signatures = tf.saved_model.load(folder).signatures

    def encode(signature: str, inputs: _Arrays) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in signatures[signature](**tensors).items()}

    return encode


def _load_in_session(folder: str) -> _Encode:
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def

    def encode(signature: str, inputs: _Arrays) -> dict[str, np.ndarray]:
        definition = signatures[signature]
        fetches = {name: tensor.name for name, tensor in definition.outputs.items()}
        feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
        return session.run(fetches, feeds)

    return encode


_LOADERS = {"tf.saved_model.load": _load_as_functions, "v1 Session": _load_in_session}


if __name__ == "__main__":
    sys.modules["tfhash"] = None  # type: ignore[assignment]
    try:
        import tfhash  # noqa: F401
    except ImportError:
        _main(*sys.argv[1:])
    else:
        sys.exit("tfhash can be imported here, so this process would prove nothing")
