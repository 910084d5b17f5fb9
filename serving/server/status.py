"""Failures as TF Serving words them: a gRPC status code and a message."""

from __future__ import annotations

import grpc
import tensorflow as tf

MAX_MESSAGE = 1024  # characters; TF Serving cuts its messages there too
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class RequestError(Exception):
    """A request that is answered with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message[:MAX_MESSAGE]


def invalid(message: str) -> RequestError:
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def from_tensorflow(error: tf.errors.OpError) -> RequestError:
    """TensorFlow's error codes are those of gRPC."""
    return RequestError(_CODES[error.error_code], error.message)
