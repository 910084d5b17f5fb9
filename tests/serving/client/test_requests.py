"""What HashClient asks a service in this process; codes by hand from the rule of the fake."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.serving.client.by_hand import images
from tfhash.errors import UserError
from tfhash.serving import HashClient, _parts


@pytest.mark.parametrize("as_content", [True, False])
def test_images_by_hand(server, client, as_content):
    server.service.as_content = as_content
    codes = client.encode_images(images([0x0A, 0xB0]), bits=True, embedding=True)
    assert codes.code.dtype == codes.bits.dtype == np.uint8
    assert codes.embedding.dtype == np.float32
    # 0x0A is 0000 1010, 0xB0 is 1011 0000; the four bits of 0xF0 that count are 1111.
    bits = [[0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]]
    assert codes.code.tolist() == [[0x0A, 0xF0], [0xB0, 0xF0]]
    assert codes.bits.tolist() == bits
    assert codes.embedding.tolist() == (np.array(bits) * 0.5 + 0.25).tolist()
    assert codes.valid.tolist() == [True, True] and codes.version == 3 and len(codes) == 2


@pytest.mark.parametrize("as_content", [True, False])
def test_files_that_cannot_be_read_are_masked(server, client, as_content):
    server.service.as_content = as_content
    codes = client.encode_bytes([b"ab", b"", b"\x00\x10\x00"], on_error="mask", embedding=True)
    assert codes.valid.tolist() == [True, False, True] and codes.valid.dtype == bool
    assert codes.code.tolist() == [[0x61, 0x60], [0, 0], [0, 0x10]]
    assert not codes.embedding[1].any()
    assert server.service.requests[0].model_spec.signature_name == "encode_bytes_partial"


def test_only_what_is_wanted_is_asked_for(server, client):
    codes = client.encode_bytes([b"ab"])
    client.encode_images(images([1]), embedding=True)
    client.encode_bytes([b"ab"], on_error="mask", bits=True)
    assert codes.valid.tolist() == [True] and codes.bits is None and codes.embedding is None
    assert [list(request.output_filter) for request in server.service.requests] == [
        ["code", "fingerprint"],
        ["code", "embedding", "fingerprint"],
        ["code", "bits", "fingerprint", "valid"],
    ]


def test_the_request_names_model_version_or_label(start_server):
    server = start_server()
    for choice in ({}, {"version": 7}, {"label": "stable"}):
        with HashClient(server.target, "other", **choice) as client:
            client.encode_images(images([1]))
    newest, version, label = (request.model_spec for request in server.service.requests)
    assert newest.name == "other" and newest.signature_name == "encode_images"
    assert not newest.HasField("version") and not newest.version_label
    assert version.version.value == 7 and label.version_label == "stable"


def test_a_long_batch_is_split_and_joined_in_order(server, client):
    server.service.before = lambda number, context: time.sleep(0.03 * (number % 3 == 0))
    codes = client.encode_images(images(range(23)), bits=True)
    assert codes.code[:, 0].tolist() == list(range(23))
    assert codes.bits.shape == (23, 12) and codes.valid.shape == (23,)
    sizes = [
        request.inputs["images"].tensor_shape.dim[0].size for request in server.service.requests
    ]
    assert sorted(sizes) == [3, 4, 4, 4, 4, 4]


def test_a_request_holds_no_more_bytes_than_the_limit(server, client, monkeypatch):
    monkeypatch.setattr(_parts, "_MAX_GROUP_BYTES", 36)  # two images of 18 bytes
    client.encode_images(images(range(3)))
    client.encode_bytes([b"a" * 20, b"b" * 16, b"c" * 40, b"d" * 2])
    by_images, by_bytes = [], []
    for request in server.service.requests:
        ((name, tensor),) = request.inputs.items()
        size = tensor.tensor_shape.dim[0].size
        (by_images if name == "images" else by_bytes).append(size)
    assert sorted(by_images) == [1, 2]
    assert sorted(by_bytes) == [1, 1, 2]  # 20 + 16; 40, which no group could hold; 2


def test_no_images_are_not_sent_but_have_the_right_width(server, client):
    codes = client.encode_images(images([]), bits=True)
    assert codes.code.shape == (0, 2) and codes.code.dtype == np.uint8
    assert codes.bits.shape == (0, 12) and codes.valid.shape == (0,) and codes.embedding is None
    assert client.encode_bytes([], on_error="mask").code.shape == (0, 2)
    assert server.service.requests == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros([1, 2, 2, 3], np.float32), "received float32 [1, 2, 2, 3]"),
        (np.zeros([2, 2, 3], np.uint8), "received uint8 [2, 2, 3]"),
        (np.zeros([1, 2, 2, 4], np.uint8), "received uint8 [1, 2, 2, 4]"),
        (np.zeros([1, 0, 2, 3], np.uint8), "received uint8 [1, 0, 2, 3]"),
    ],
)
def test_images_are_checked_before_they_are_sent(server, client, value, message):
    with pytest.raises(UserError, match="^images: expected uint8 ") as caught:
        client.encode_images(value)
    assert message in str(caught.value)
    assert server.service.requests == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([b"ab", "ab"], r"image_bytes\[1\]: expected bytes, received str"),
        (b"ab", r"image_bytes\[0\]: expected bytes, received int"),
        (np.array([b"ab\0"]), "image_bytes: expected a list of bytes, received an array"),
    ],
)
def test_files_are_checked_before_they_are_sent(server, client, value, message):
    with pytest.raises(UserError, match=f"^{message}"):
        client.encode_bytes(value)
    assert server.service.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "http://localhost:8501"}, "^target: .* received 'http://localhost:8501'"),
        ({"model": ""}, "^model: "),
        ({"version": 1, "label": "stable"}, "^version, label: "),
        ({"timeout": 0}, "^timeout: expected above 0, received 0"),
        ({"max_batch": 0}, "^max_batch: "),
        ({"in_flight": -1}, "^in_flight: .* received -1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(UserError, match=message):
        HashClient(**({"target": "localhost:1"} | arguments))


def test_on_error_is_checked(client):
    with pytest.raises(UserError, match="on_error.*received 'skip'"):
        client.encode_bytes([b"ab"], on_error="skip")


# Errors and deadlines


def test_the_package_imports_neither_grpc_nor_tensorflow():
    """Of which `tfhash.serving.deploy`, for one, has no need."""
    code = "import sys, tfhash.serving; sys.exit(bool({'grpc', 'tensorflow'} & set(sys.modules)))"
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": path})
    with pytest.raises(ImportError):
        from tfhash.serving import Nothing  # noqa: F401
