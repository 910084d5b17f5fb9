"""What can go wrong with a request for codes, told apart by what a caller would do about it."""

from __future__ import annotations

import grpc

from tfhash.names import shown


class HashServiceError(Exception):
    """A request that was not answered, or not as it should be.

    model, signature, target: what was asked, and where; for a request that names no signature,
    the name of the method. code: the gRPC status, None where the client itself objects to an
    answer. message: what the server, or the client, said. `str` is one line of all of it.
    """

    def __init__(
        self, model: str, signature: str, target: str, code: grpc.StatusCode | None, message: str
    ):
        super().__init__(model, signature, target, code, message)  # so that it can be pickled
        self.model = model
        self.signature = signature
        self.target = target
        self.code = code
        self.message = shown(" ".join(message.split()))  # a server may send a terminal's commands

    def __str__(self) -> str:
        cause = f"{self.code.name}: {self.message}" if self.code else self.message
        return f"{self.model}, {self.signature} at {self.target}: {cause}"


class InvalidInput(HashServiceError):
    """The server refuses what was sent; sending it again cannot help."""


class NotFound(HashServiceError):
    """The server has no such model, or no such version of it."""


class Unavailable(HashServiceError):
    """The server could not be reached before the deadline, or is too busy; later it may answer."""


class DeadlineExceeded(HashServiceError):
    """The server was not found to be down, but did not answer before the deadline."""


class ResourceExhausted(HashServiceError):
    """A limit was hit, mostly that on the size of a message; smaller batches may help."""


class LoadFailed(HashServiceError):
    """The server could not load the model."""


class VersionChanged(HashServiceError):
    """Codes that belong together were computed by two models, or versions of one.

    Their Hamming distances mean nothing; a new call gets all from the new model.
    """


_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
}


def of_status(code: grpc.StatusCode) -> type[HashServiceError]:
    """The class of error for a gRPC status."""
    return _BY_CODE.get(code, HashServiceError)
