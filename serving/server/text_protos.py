"""TF Serving's configuration files: text protos, two of whose types no Python package holds."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from google.protobuf.message import Message
from tensorflow_serving.config import model_server_config_pb2

from tfhash.errors import UserError

_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64_VALUE = ".google.protobuf.Int64Value"
_BOOL_VALUE = ".google.protobuf.BoolValue"
_STRING_VALUE = ".google.protobuf.StringValue"

# name: (number, type), as in tensorflow_serving/config/ssl_config.proto and
# tensorflow_serving/servables/tensorflow/session_bundle_config.proto.
_SSL_CONFIG = {
    "server_key": (1, _FIELD.TYPE_STRING),
    "server_cert": (2, _FIELD.TYPE_STRING),
    "custom_ca": (3, _FIELD.TYPE_STRING),
    "client_verify": (4, _FIELD.TYPE_BOOL),
}
_BATCHING_PARAMETERS = {
    "max_batch_size": (1, _INT64_VALUE),
    "batch_timeout_micros": (2, _INT64_VALUE),
    "max_enqueued_batches": (3, _INT64_VALUE),
    "num_batch_threads": (4, _INT64_VALUE),
    "thread_pool_name": (5, _STRING_VALUE),
    "allowed_batch_sizes": (6, _FIELD.TYPE_INT64),
    "pad_variable_length_inputs": (7, _FIELD.TYPE_BOOL),
    "enable_large_batch_splitting": (8, _BOOL_VALUE),
    "max_execution_batch_size": (9, _INT64_VALUE),
}
_REPEATED = {"allowed_batch_sizes"}


def _message(name: str, fields: dict) -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"tfhash/{name}.proto", package="tfhash.serving.server", syntax="proto3"
    )
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name=name)
    for field, (number, kind) in fields.items():
        label = _FIELD.LABEL_REPEATED if field in _REPEATED else _FIELD.LABEL_OPTIONAL
        added = message.field.add(name=field, number=number, label=label)
        if isinstance(kind, str):
            added.type, added.type_name = _FIELD.TYPE_MESSAGE, kind
        else:
            added.type = kind
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"tfhash.serving.server.{name}")
    )


SSLConfig = _message("SSLConfig", _SSL_CONFIG)
BatchingParameters = _message("BatchingParameters", _BATCHING_PARAMETERS)
ModelServerConfig = model_server_config_pb2.ModelServerConfig


def read(flag: str, path: str, kind: type[Message]) -> Message:
    """Parses the file that a flag names. UserError where it cannot be read or parsed."""
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), kind())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise UserError(f"--{flag}: {path}: {error}") from None
