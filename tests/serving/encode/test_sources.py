"""Codes of two models in one file: by version, target, fingerprint or width, none gets there."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfhash import npz


def test_another_version_or_target_encodes_everything(encode, server, start_server, tmp_path):
    encode()
    server.service.version = 4
    ended = encode()
    assert (
        f"codes.npz is of tfhash version 3 at {server.target}, fingerprint f3: all files are "
        "encoded anew"
    ) in ended.output
    assert server.service.files() == 24 and npz.read(tmp_path / "codes.npz")["version"] == 4
    other = start_server()
    other.service.version = 4
    encode(target=other.target)
    assert other.service.files() == 12


def test_a_version_that_changes_meanwhile_is_not_mixed_in(encode, server, tmp_path):
    def reload(number, context):
        server.service.version = 3 + (number >= 3)

    server.service.before = reload
    ended = encode(in_flight=1)
    assert ended.status == 1
    assert ended.errors == (
        "tfhash.serving.encode: error: tfhash, encode_bytes_partial at "
        f"{server.target}: version 3 was replaced by version 4; {tmp_path}/codes.npz.part keeps "
        "what was encoded, the same command goes on from there\n"
    )
    assert not (tmp_path / "codes.npz").exists()
    server.service.requests.clear()
    assert encode().status == 0
    # The first six, of version 3, once more; and what the first run had just sent, if it came late.
    assert server.service.files() in (12, 14)
    assert npz.read(tmp_path / "codes.npz")["version"] == 4


def test_a_server_swapped_midway_is_not_mixed_in(encode, server, tmp_path):
    """Both models are of version 3: every first export is of version 1."""

    def swap(number, context):
        server.service.fingerprint = "f4" if number >= 3 else "f3"

    server.service.before = swap
    ended = encode(in_flight=1)
    assert ended.status == 1 and len(ended.errors.splitlines()) == 1
    assert (
        "version 3 was replaced by another model of that version: its fingerprint was f3 and is f4"
    ) in ended.errors
    assert not (tmp_path / "codes.npz").exists()
    server.service.before = lambda number, context: None
    server.service.requests.clear()
    assert encode().status == 0
    assert server.service.files() == 12 and npz.read(tmp_path / "codes.npz")["fingerprint"] == "f4"


def test_a_server_swapped_between_two_runs_is_not_mixed_in(encode, server, tmp_path):
    server.service.fail_at(3)
    assert encode(in_flight=1).status == 1
    server.service.fingerprint = "f4"
    server.service.requests.clear()
    assert encode().status == 0
    assert server.service.files() == 12  # though the journal has three batches
    server.service.fingerprint = "f5"
    ended = encode()
    assert "codes.npz is of tfhash version 3" in ended.output and ", fingerprint f4" in ended.output
    assert server.service.files() == 24 and npz.read(tmp_path / "codes.npz")["fingerprint"] == "f5"


def test_an_export_without_fingerprint(encode, server, tmp_path):
    """As before: known by name, version and length, which is said once."""
    server.service.fingerprint = ""
    server.service.fail_at(3)
    assert encode(in_flight=1).status == 1
    server.service.requests.clear()
    ended = encode()
    assert ended.status == 0 and ended.output.count("tells no fingerprint") == 1
    assert server.service.files() == 6


def test_what_is_of_before_fingerprints_stays_readable(encode, server, tmp_path):
    server.service.fingerprint = ""
    output, part = tmp_path / "codes.npz", tmp_path / "codes.npz.part"
    server.service.fail_at(3)
    assert encode(in_flight=1).status == 1
    part.write_text(part.read_text().replace(', "fingerprint": ""', ""))
    server.service.requests.clear()
    assert encode().status == 0 and server.service.files() == 6
    fields = npz.read(output)
    del fields["fingerprint"]
    np.savez_compressed(output, **fields)
    server.service.requests.clear()
    assert encode().status == 0 and server.service.files() == 0


def test_a_model_with_a_fingerprint_in_place_of_one_without(encode, server, tmp_path):
    """The client, which asks for none, cannot see it in the answers, but does so at the end."""
    server.service.fingerprint = ""

    def swap(number, context):
        server.service.fingerprint = "f4" if number >= 3 else ""

    server.service.before = swap
    ended = encode(in_flight=1)
    assert ended.status == 1 and "its fingerprint was none and is f4" in ended.errors
    assert list(tmp_path.glob("codes*")) == []


def test_codes_of_another_width_never_enter_the_journal(encode, server, tmp_path):
    server.service.fingerprint = ""

    def widen(response):
        codes = np.zeros([response.outputs["code"].tensor_shape.dim[0].size, 3], np.uint8)
        response.outputs["code"].CopyFrom(tf.make_tensor_proto(codes))

    server.service.after = widen
    ended = encode()
    assert ended.status == 1 and "codes of 3 bytes, expected 2 for 12 bits" in ended.errors
    assert len(ended.errors.splitlines()) == 1
    server.service.after = lambda response: None
    assert encode().status == 0
    assert npz.read(tmp_path / "codes.npz")["codes"].shape == (12, 2)
