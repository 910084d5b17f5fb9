"""How large the bytes of a PredictRequest become as messages, read before they are parsed.

Two bytes can stand for a message of hundreds: a map entry, a dimension, an empty string.
"""

from __future__ import annotations

from tfhash.serving.server.status import invalid

_SMALL = 64 * 1024  # of so few bytes nothing large can be made
_FIELD = 256  # the largest message that a field stands for, in memory
_VALUES = {7: 8, 10: 16, 13: 8, 16: 8, 17: 16}  # *_val of TensorProto: bytes of one packed byte
_HANDLES = (14, 15)  # resource_handle_val, variant_val: tensors within tensors
# The fields that are messages of repeated fields: inputs > entry > TensorProto > shape.
_PREDICT, _ENTRY, _TENSOR, _SHAPE = range(4)
_MESSAGE = 2  # field 2 of each of them is the next


def parsed_size(message: bytes, most: int) -> int:
    """Bytes of memory, estimated from above; stops at `most`. Malformed ones are left to protobuf.

    Raises RequestError INVALID_ARGUMENT for tensors of handles, which no signature takes, and for
    groups, which no message of the API has.
    """
    if len(message) < _SMALL:
        return len(message)
    total = len(message)
    todo = [(0, len(message), _PREDICT)]
    while todo:
        at, end, kind = todo.pop()
        while at < end and total <= most:
            total += _FIELD
            tag, at = _varint(message, at)
            field, wire_type = tag >> 3, tag & 7
            if wire_type == 0:
                _, at = _varint(message, at)
            elif wire_type in (1, 5):
                at += 8 if wire_type == 1 else 4
            elif wire_type == 2:
                length, at = _varint(message, at)
                if field == _MESSAGE and kind < _SHAPE:
                    todo.append((at, min(at + length, end), kind + 1))
                elif kind == _TENSOR and field in _VALUES:
                    total += length * _VALUES[field]
                elif kind == _TENSOR and field in _HANDLES:
                    raise invalid("tensor parsing error: a tensor of handles")
                at += length
            else:
                # protobuf takes groups that it does not know, and all that is behind them.
                raise invalid(f"a field of wire type {wire_type}; a PredictRequest has none")
    return total


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number there, and where the next byte is."""
    value = shift = 0
    for byte in message[at : at + 10]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return value, at
