"""What HashClient makes of strange answers, and of those of two models."""

from __future__ import annotations

import pickle

import grpc
import numpy as np
import pytest
import tensorflow as tf

from tests.serving.client.by_hand import images
from tfhash.serving import _channel, errors


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda outputs: outputs.pop("code"), "holds no output 'code'"),
        (lambda outputs: setattr(outputs["code"], "dtype", 3), "expected uint8 .* received int32"),
        (lambda outputs: outputs["code"].tensor_shape.dim.pop(), r"rank 2 with 1 rows.* \[1\]"),
        (
            lambda outputs: setattr(outputs["code"].tensor_shape.dim[1], "size", 2**40),
            "takes over 67108864 bytes",
        ),
        (lambda outputs: setattr(outputs["code"].tensor_shape.dim[1], "size", 9), "reshape"),
        (lambda outputs: setattr(outputs["code"].tensor_shape.dim[1], "size", -1), r"\[1, -1\]"),
        (lambda outputs: set_values(outputs["code"], int_val=[300, 1]), "output 'code': .*300"),
        (lambda outputs: set_values(outputs["code"], int_val=[-1, 1]), "output 'code': .*-1"),
        (lambda outputs: setattr(outputs["code"], "dtype", 4711), "received dtype 4711"),
        (
            lambda outputs: outputs["bits"].CopyFrom(tf.make_tensor_proto(np.zeros([1, 5], "u1"))),
            "do not belong together: code 2, bits 5",
        ),
        (lambda outputs: outputs.pop("fingerprint"), "holds no output 'fingerprint'"),
        (lambda outputs: setattr(outputs["fingerprint"], "dtype", 1), "expected string .* float32"),
        (lambda outputs: set_values(outputs["fingerprint"]), "0 strings for 1 rows"),
        (lambda outputs: set_values(outputs["fingerprint"], string_val=[b""]), "expected digits"),
        (lambda outputs: set_values(outputs["fingerprint"], string_val=[b"\x1b"]), "digits"),
        (lambda outputs: set_values(outputs["fingerprint"], string_val=[b"a"] * 2), "2 strings"),
        (lambda outputs: set_values(outputs["fingerprint"], string_val=[b"a" * 128]), "digits"),
        (lambda outputs: set_values(outputs["fingerprint"], tensor_content=b"\x02a"), "damaged"),
        (
            lambda outputs: set_values(outputs["fingerprint"], tensor_content=b"\xff" * 99),
            "damaged",
        ),
    ],
)
def test_a_strange_answer_is_an_error(server, client, spoil, message):
    server.service.after = lambda response: spoil(response.outputs)
    with pytest.raises(errors.HashServiceError, match=message) as caught:
        client.encode_images(images([1]), bits=True)
    assert caught.value.code is None


def set_values(tensor, **values):
    """These values in a TensorProto, in place of its own."""
    for name in ("tensor_content", "string_val"):
        tensor.ClearField(name)
    for name, value in values.items():
        if isinstance(value, list):
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda info: setattr(info, "value", b"\xff\xff"),  # no message at all
        lambda info: setattr(info, "type_url", "other"),
    ],
)
def test_strange_metadata_is_an_error(server, client, spoil, monkeypatch):
    answer = server.service.GetModelMetadata

    def spoilt(request, context):
        response = answer(request, context)
        spoil(response.metadata["signature_def"])
        return response

    server.stop()
    monkeypatch.setattr(server.service, "GetModelMetadata", spoilt)
    server.start()
    with pytest.raises(errors.HashServiceError, match="GetModelMetadata at .*signature_def"):
        client.metadata()


def test_a_terminal_does_not_obey_what_a_server_says(server, client):
    server.service.before = lambda number, context: context.abort(
        grpc.StatusCode.INTERNAL, "\x1b[2Jgone\u202e\x07"
    )
    with pytest.raises(errors.HashServiceError) as caught:
        client.encode_images(images([1]))
    assert str(caught.value).endswith("INTERNAL: \\x1b[2Jgone\\u202e\\x07")
    assert str(caught.value).isprintable()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_answer_over_the_limit_on_messages_is_an_error(server, client):
    def grow(response):
        response.outputs["code"].tensor_content = bytes(_channel.MAX_MESSAGE_BYTES)

    server.service.after = grow
    with pytest.raises(errors.ResourceExhausted, match="larger than max"):
        client.encode_images(images([1]))


def test_codes_of_two_versions_are_not_mixed(server, client):
    def reload(response):  # before the second part of the second batch, images 4 to 7
        if tf.make_ndarray(response.outputs["code"])[0, 0] == 4:
            response.model_spec.version.value = 4

    server.service.after = reload
    with pytest.raises(errors.VersionChanged, match=r"by the versions \[3, 4\]"):
        list(client.stream([images(range(2)), images(range(8))]))


# Fingerprints


@pytest.mark.parametrize("as_content", [False, True])
def test_the_fingerprint_of_what_answered(server, client, as_content):
    """In tensor_content, where TF Serving was started so, come all lengths first: 2, 2, 2."""

    def after(response):
        tensor = response.outputs["fingerprint"]
        if as_content:
            count = len(tensor.string_val)
            set_values(tensor, tensor_content=b"\x02" * count + b"f3" * count)

    server.service.after = after
    assert client.encode_images(images(range(3))).fingerprint == "f3"
    assert client.encode_images(images(range(9))).fingerprint == "f3"  # of three parts
    assert client.encode_bytes([b"ab"], on_error="mask").fingerprint == "f3"
    assert client.metadata().fingerprint == "f3"
    (probe,) = server.service.probes  # of one pixel, to the version that the metadata are of
    assert probe.model_spec.version.value == 3
    assert [size.size for size in probe.inputs["images"].tensor_shape.dim] == [1, 1, 1, 3]


def test_rows_of_two_models_in_one_answer(server, client):
    def after(response):
        response.outputs["fingerprint"].string_val[1] = b"f4"

    server.service.after = after
    with pytest.raises(errors.VersionChanged, match="2 fingerprints in one answer"):
        client.encode_images(images([1, 2]))


def test_a_server_swapped_within_a_call(server, client):
    """Both models are of the version 3, as every first export is of the version 1."""

    def swap(number, context):
        server.service.fingerprint = "f4" if number else "f3"

    server.service.before = swap
    with pytest.raises(errors.VersionChanged, match=r"by several models of version \[3\]"):
        client.encode_images(images(range(8)))


def test_codes_of_two_widths_in_one_call(server, client):
    """Of a model that tells no fingerprint, in place of one that tells none either."""
    server.service.fingerprint = ""

    def widen(response):
        if tf.make_ndarray(response.outputs["code"])[0, 0] == 4:
            wide = tf.make_tensor_proto(np.zeros([4, 7], np.uint8))
            response.outputs["code"].CopyFrom(wide)

    server.service.after = widen
    with pytest.raises(errors.VersionChanged, match=r"by several models of version \[3\]"):
        client.encode_images(images(range(8)))


@pytest.mark.parametrize("count", [1, 9])
def test_an_export_without_fingerprint_is_asked_once(server, client, count):
    server.service.fingerprint = ""
    codes = client.encode_images(images(range(count)))
    assert codes.code[:, 0].tolist() == list(range(count)) and codes.fingerprint == ""
    server.service.requests.clear()
    assert client.encode_images(images([1])).fingerprint == ""
    assert [list(request.output_filter) for request in server.service.requests] == [["code"]]
    assert client.metadata().fingerprint == ""
    server.service.fingerprint = "f4"  # as an export of today takes its place
    assert client.metadata().fingerprint == "f4"
    assert client.encode_images(images([1])).fingerprint == "f4"


# Stream
