"""Journal, lock and output of encode: damaged, foreign, or in use by another process."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tfhash import npz
from tfhash.errors import UserError
from tfhash.serving.encode import journal, results


def test_rows_of_a_journal_that_cannot_be_are_encoded_anew(
    encode, server, photos, tmp_path, codes_of
):
    """As an older version of the command left them; one half line of a kill is not counted."""
    server.service.fail_at(3)
    assert encode(in_flight=1).status == 1
    part = tmp_path / "codes.npz.part"
    path = str(photos / "even/00.jpg")
    status = os.stat(path)
    with part.open("a") as file:
        for code in ("aabbcc", "aa", "zz", 7):
            print(json.dumps([path, status.st_size, status.st_mtime_ns, code, ""]), file=file)
        print('[1, 2, 3, "aabb", ""]\n["a", "b"]\n' + "[" * 100_000 + '\n["half', file=file)
    server.service.requests.clear()
    ended = encode()
    assert ended.status == 0 and server.service.files() == 6
    assert f"6 rows of {part} are damaged, or no codes of 12 bits" in ended.output
    output = npz.read(tmp_path / "codes.npz")
    assert output["codes"].tolist() == codes_of(output["paths"]) and len(output["paths"]) == 12


def test_a_second_command_on_the_same_output_ends_at_once(encode, server, tmp_path):
    with journal.locked(tmp_path / "codes.npz"):
        ended = encode()
    assert ended == (
        1,
        "",
        f"tfhash.serving.encode: error: --output: another process writes {tmp_path}/codes.npz\n",
    )
    assert server.service.requests == server.service.probes == []
    assert encode().status == 0
    assert list(tmp_path.glob("codes*")) == [tmp_path / "codes.npz"]


def test_the_lock_of_a_killed_process_is_free(encode, tmp_path):
    (tmp_path / "codes.npz.lock").touch()  # left by it
    assert encode().status == 0
    assert list(tmp_path.glob("codes*")) == [tmp_path / "codes.npz"]


def test_a_lock_that_was_removed_as_it_was_taken_is_taken_again(tmp_path, monkeypatch):
    """The process before removes its file between the opening of it here and the lock on it."""
    output, lock = tmp_path / "codes.npz", journal.fcntl.flock
    removed = []

    def remove_then_lock(file, operation):
        if not removed:
            removed.append((tmp_path / "codes.npz.lock").unlink())
        lock(file, operation)

    monkeypatch.setattr(journal.fcntl, "flock", remove_then_lock)
    with journal.locked(output):
        with pytest.raises(journal.InUseError), journal.locked(output):
            pass
    assert list(tmp_path.iterdir()) == []


def test_damage_of_an_output_is_one_line(encode, server, tmp_path):
    """Every way to flip one bit, or nearly: refused, or, where nothing reads that bit, the same.

    A bit in the archive's list may hide the fingerprint, which older outputs do not have. Such a
    source is none that answers with a fingerprint, so that all files are encoded anew.
    """
    encode()
    output = tmp_path / "codes.npz"
    right, good = results.read(output), output.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for position in generator.integers(0, 8 * len(good), 400):
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        output.write_bytes(flipped)
        try:
            source, rows = results.read(output)
            assert rows == right[1] and source in (right[0], right[0]._replace(fingerprint=""))
        except UserError as error:
            refused += 1
            assert "is there and was not written by this command, or is damaged" in str(error)
            assert str(error).isprintable()
    assert refused > 200
    for length in range(0, len(good), 97):
        output.write_bytes(good[:length])
        with pytest.raises(UserError, match="is damaged"):
            results.read(output)
    ended = encode()
    assert ended.status == 2 and len(ended.errors.splitlines()) == 1
    assert output.read_bytes() == good[:length]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path, fields: np.save(path.open("wb"), fields["codes"]),  # .npy in place of .npz
        lambda path, fields: np.savez(path, **fields | {"codes": fields["codes"][:8]}),  # for 12
        lambda path, fields: np.savez(path, **fields | {"codes": fields["codes"][:, :1]}),
        lambda path, fields: np.savez(path, **fields | {"codes": fields["codes"] * 1.0}),
        lambda path, fields: np.savez(path, **fields | {"paths": fields["sizes"]}),
        lambda path, fields: np.savez(path, **fields | {"modified": fields["modified"][:3]}),
        lambda path, fields: np.savez(path, **fields | {"version": "3"}),
        lambda path, fields: np.savez(path, **fields | {"target": np.array(["a", "b"])}),
        lambda path, fields: np.savez(path, codes=fields["codes"]),
        lambda path, fields: path.unlink() or path.mkdir(),
        lambda path, fields: path.unlink() or os.mkfifo(path),
    ],
)
def test_other_things_in_place_of_an_output_are_one_line(encode, tmp_path, spoil):
    encode()
    spoil(tmp_path / "codes.npz", npz.read(tmp_path / "codes.npz"))
    ended = encode()
    assert ended.status == 2 and len(ended.errors.splitlines()) == 1
    assert "codes.npz is there and was not written by this command, or is damaged" in ended.errors


def test_a_file_of_somebody_else_is_not_overwritten(encode, tmp_path):
    (tmp_path / "codes.npz").write_bytes(b"a letter")
    ended = encode()
    assert ended.status == 2 and "was not written by this command" in ended.errors
    assert (tmp_path / "codes.npz").read_bytes() == b"a letter"
