"""What the two clients share: requests from images, codes and errors from what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import grpc
import numpy as np
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from tfhash.errors import UserError
from tfhash.serving import _channel, _parts, answers, errors
from tfhash.serving._parts import Batch, Part
from tfhash.serving.answers import FINGERPRINT, Codes, Metadata

STATUS = "GetModelStatus"
METADATA = "GetModelMetadata"
POLL_SECONDS = 0.25  # between two looks at the status of a model
PROBE_SECONDS = 1.0  # for finding out why a server did not answer
_CUT_OFF = "Stream removed"  # what gRPC says of an answer that began, and whose connection ended
_MOST_CUT_OFF = 4  # times that a part is sent again, as often as gRPC does where it does itself


@dataclass
class Requests:
    """Requests to one model at one target; the fields are arguments of HashClient.

    has_fingerprint: whether the model is believed to tell its fingerprint.
    """

    target: str
    model: str
    version: int | None
    label: str | None
    timeout: float
    max_batch: int
    in_flight: int
    has_fingerprint: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not self.target or self.target.startswith(("http://", "https://")):
            raise UserError(f"target: expected HOST:PORT of gRPC, received {self.target!r}")
        if not self.model:
            raise UserError("model: expected a name, received an empty one")
        if self.version is not None and self.label is not None:
            raise UserError(
                f"version, label: expected one of them, received {self.version} and {self.label!r}"
            )
        for name in ("timeout", "max_batch", "in_flight"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}: expected above 0, received {getattr(self, name)}")

    def images(self, images: np.ndarray, *, bits: bool, embedding: bool) -> Iterator[Part]:
        """The parts of uint8 [n, H, W, 3]; UserError for another array."""
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[3] != 3
            or 0 in images.shape[1:]
        ):
            raise UserError(
                "images: expected uint8 [n, H >= 1, W >= 1, 3], "
                f"received {images.dtype} {list(images.shape)}"
            )
        request = self._predict("encode_images", _outputs(bits, embedding))
        return _parts.of_images(request, images, self.max_batch)

    def files(
        self, image_bytes: Sequence[bytes], *, on_error: str, bits: bool, embedding: bool
    ) -> Iterator[Part]:
        """The parts of the contents of image files; UserError for anything but bytes."""
        if on_error not in ("raise", "mask"):
            raise UserError(f'on_error: expected "raise" or "mask", received {on_error!r}')
        if isinstance(image_bytes, np.ndarray):  # NumPy strips the zeros that a file ends with
            raise UserError("image_bytes: expected a list of bytes, received an array")
        for i, item in enumerate(image_bytes):
            if not isinstance(item, bytes):
                raise UserError(f"image_bytes[{i}]: expected bytes, received {type(item).__name__}")
        outputs = _outputs(bits, embedding)
        if on_error == "mask":
            request = self._predict("encode_bytes_partial", [*outputs, "valid"])
        else:
            request = self._predict("encode_bytes", outputs)
        return _parts.of_files(request, image_bytes, self.max_batch)

    def parts(self, batch: Batch, *, on_error: str, bits: bool, embedding: bool) -> Iterator[Part]:
        """Of an array what `images` makes of it, of anything else what `files` does."""
        if isinstance(batch, np.ndarray):
            return self.images(batch, bits=bits, embedding=embedding)
        return self.files(batch, on_error=on_error, bits=bits, embedding=embedding)

    def outgoing(self, part: Part) -> predict_pb2.PredictRequest:
        """The request of a part, without an output that the model is known not to have."""
        if not self.has_fingerprint and FINGERPRINT in part.request.output_filter:
            part.request.output_filter.remove(FINGERPRINT)
        return part.request

    def to_be_sent_again(self, part: Part, error: grpc.RpcError) -> bool:
        """Whether a part failed by what another try may mend; it notes that try.

        As the model tells no fingerprint, which it is not asked again; or as the server went away
        in the middle of its answer, which gRPC does not send again.
        """
        code, message = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE and message.startswith(_CUT_OFF):
            part.cut_off += 1
            return part.cut_off <= _MOST_CUT_OFF
        if (
            FINGERPRINT not in part.request.output_filter
            or code is not grpc.StatusCode.INVALID_ARGUMENT
            or FINGERPRINT not in message
        ):
            return False
        part.request.output_filter.remove(FINGERPRINT)
        self.has_fingerprint = False
        return True

    def codes(self, part: Part, response: predict_pb2.PredictResponse) -> Codes:
        try:
            return answers.read_codes(response, part.request.output_filter, part.rows)
        except ValueError as error:
            raise self._of_answer(part.signature, error) from None

    def joined(self, part: Part, codes: Sequence[Codes]) -> Codes:
        """The codes of a batch, of which `part` was the last part."""
        makers = sorted({(one.version, one.fingerprint, one.code.shape[1]) for one in codes})
        if len(makers) > 1:
            versions = [version for version, _, _ in makers]
            which = "by several models of version" if len({*versions}) == 1 else "by the versions"
            message = f"one batch was answered {which} {sorted({*versions})}"
            raise self._error(errors.VersionChanged, part.signature, None, message)
        return answers.join(codes)

    def metadata_request(self) -> get_model_metadata_pb2.GetModelMetadataRequest:
        return get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec(), metadata_field=["signature_def"]
        )

    def metadata(self, response: get_model_metadata_pb2.GetModelMetadataResponse) -> Metadata:
        """Without the fingerprint, which only an answer to `fingerprint_request` tells."""
        try:
            return answers.read_metadata(response)
        except ValueError as error:
            raise self._of_answer(METADATA, error) from None

    def fingerprint_request(self, metadata: Metadata) -> predict_pb2.PredictRequest | None:
        """Asks just this version for its fingerprint, by one pixel; None where it has none."""
        name = "encode_images"
        signature = metadata.signatures.get(name)
        self.has_fingerprint = signature is not None and FINGERPRINT in signature.outputs
        if not self.has_fingerprint:
            return None
        spec = model_pb2.ModelSpec(name=self.model, signature_name=name)
        spec.version.value = metadata.version
        return predict_pb2.PredictRequest(
            model_spec=spec,
            output_filter=[FINGERPRINT],
            inputs={"images": _parts.image_tensor(np.zeros([1, 1, 1, 3], np.uint8))},
        )

    def with_fingerprint(
        self, metadata: Metadata, response: predict_pb2.PredictResponse
    ) -> Metadata:
        """The metadata with what the answer to its `fingerprint_request` says."""
        try:
            return replace(metadata, fingerprint=answers.read_fingerprint(response, rows=1))
        except ValueError as error:
            raise self._of_answer(METADATA, error) from None

    def status_request(self) -> get_model_status_pb2.GetModelStatusRequest:
        spec = self._spec()
        spec.ClearField("version_label")  # TF Serving tells the status of versions only
        return get_model_status_pb2.GetModelStatusRequest(model_spec=spec)

    def ready_version(self, response: get_model_status_pb2.GetModelStatusResponse) -> int:
        """The highest version that is served.

        Raises LoadFailed where none is nor will be, and Unavailable where one may be yet.
        """
        state = get_model_status_pb2.ModelVersionStatus.State
        found = sorted(response.model_version_status, key=lambda status: -status.version)
        available = [status.version for status in found if status.state == state.AVAILABLE]
        if available:
            return available[0]
        failed = [status for status in found if status.status.error_code]
        if failed and all(status.state == state.END for status in found):
            status = failed[0]
            raise self._error(
                errors.LoadFailed,
                STATUS,
                _code(status.status.error_code),
                f"version {status.version} could not be loaded: {status.status.error_message}",
            )
        states = ", ".join(f"version {s.version} is {state.Name(s.state)}" for s in found)
        raise self._error(errors.Unavailable, STATUS, None, states or "no version is known")

    def rpc_error(
        self, signature: str, error: grpc.RpcError, timeout: float, unreachable: str | None = None
    ) -> errors.HashServiceError:
        """What a call means that failed. timeout: what it had, in seconds.

        unreachable: why the server cannot be reached, where that was found out.
        """
        code, message = error.code(), error.details() or ""
        if unreachable is not None:
            code = grpc.StatusCode.UNAVAILABLE
            message = f"not reachable within {timeout:g} s: {unreachable}"
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"no answer within {timeout:g} s"
        if code is grpc.StatusCode.UNAVAILABLE and (proxy := _channel.proxy(self.target)):
            message = f"through the proxy {proxy}: {message}"
        return self._error(errors.of_status(code), signature, code, message)

    def _of_answer(self, signature: str, error: ValueError) -> errors.HashServiceError:
        """What `answers` objects to."""
        mixed = isinstance(error, answers.MixedError)
        kind = errors.VersionChanged if mixed else errors.HashServiceError
        return self._error(kind, signature, None, str(error))

    def _error(
        self,
        kind: type[errors.HashServiceError],
        signature: str,
        code: grpc.StatusCode | None,
        message: str,
    ) -> errors.HashServiceError:
        return kind(self.model, signature, self.target, code, message)

    def _predict(self, signature: str, outputs: Sequence[str]) -> predict_pb2.PredictRequest:
        return predict_pb2.PredictRequest(model_spec=self._spec(signature), output_filter=outputs)

    def _spec(self, signature: str = "") -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(
            name=self.model, signature_name=signature, version_label=self.label
        )
        if self.version is not None:
            spec.version.value = self.version
        return spec


def _outputs(bits: bool, embedding: bool) -> list[str]:
    return ["code", *["bits"] * bits, *["embedding"] * embedding, FINGERPRINT]


def _code(number: int) -> grpc.StatusCode:
    """The gRPC status of this number."""
    found = (code for code in grpc.StatusCode if code.value[0] == number)
    return next(found, grpc.StatusCode.UNKNOWN)
