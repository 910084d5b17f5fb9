"""python -m tfhash.serving.encode against a service in this process, interrupted in every way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.serving.encode import __main__ as command_module
from tfhash.serving.encode import journal, results

JPEG = b"\xff\xd8\xff"  # what a file has to begin with to be sent
# TensorFlow's words of an export, with the names of nodes that it adds.
REFUSALS = {
    "damaged": "Invalid PNG data, size 4559\n\t [[{{function_node map_while_cond_cond_false_5094}}"
    "{{node map/while/cond/cond/DecodePng}}]]",
    "refused by the model: image dimensions out of range: 9000 x 9000 px; allowed: 40000000 px in "
    "all, by max_image_megapixels": "assertion failed: [image_bytes: image dimensions out of "
    "range: 9000 x 9000 px; allowed: 40000000 px in all, by `max_image_megapixels`]\n\t "
    "[[{{function_node map_while_cond_false_4092}}{{node map/while/cond/Assert_1/Assert}}]]",
}


@pytest.fixture
def photos(tmp_path) -> Path:
    """12 files in two folders, of the contents a0, b1, ... l11 behind the start of a JPEG."""
    folder = tmp_path / "photos"
    for i in range(12):
        path = folder / ("even", "odd")[i % 2] / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG + b"%c%d" % (ord("a") + i, i))
    return folder


def expected(paths) -> list[list[int]]:
    """The fake's codes: the first byte, and the high half of the second."""
    contents = [Path(path).read_bytes().removeprefix(JPEG) for path in paths]
    return [[content[0], content[1] & 0xF0] for content in contents]


@pytest.fixture
def encode(command, server, photos, tmp_path):
    """Runs the command on the photos, with flags in place of or beside the ones here."""

    def encode(**changes):
        arguments = {
            "target": server.target,
            "images": f"{photos}/**/*.jpg",
            "output": tmp_path / "codes.npz",
            "batch": 2,
            "timeout": 5,
        } | changes
        return command(command_module, *(f"--{name}={value}" for name, value in arguments.items()))

    return encode


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def sent(server) -> int:
    """How many files came to the server."""
    return sum(len(request.inputs["image_bytes"].string_val) for request in server.service.requests)


def test_codes_of_all_files_in_the_order_of_their_paths(encode, server, photos, tmp_path):
    ended = encode()
    assert (ended.status, ended.errors) == (0, "")
    assert f"{tmp_path}/codes.npz: 12 codes of 12 bits" in ended.output
    output = load(tmp_path / "codes.npz")
    paths = sorted(map(str, photos.rglob("*.jpg")))
    assert output["paths"].tolist() == paths
    assert output["codes"].tolist() == expected(paths) and output["codes"].dtype == np.uint8
    assert output["sizes"].tolist() == [os.path.getsize(path) for path in paths]
    assert (output["code_length"], output["model"], output["version"]) == (12, "tfhash", 3)
    assert {request.model_spec.signature_name for request in server.service.requests} == {
        "encode_bytes_partial"
    }
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["codes.npz"]


def test_files_that_cannot_be_read_are_listed_with_reasons(encode, server, photos, tmp_path):
    (photos / "empty.jpg").touch()
    (photos / "other.jpg").write_bytes(b"x")
    (photos / "cut.jpg").write_bytes(JPEG + b"x")  # the fake reads two bytes
    (photos / "large.jpg").write_bytes(JPEG + bytes(2**20))
    (photos / "gone.jpg").symlink_to(photos / "nowhere")
    ended = encode(max_image_megapixels=1)
    assert ended.status == 1
    assert ended.errors.splitlines() == [
        "5 of 17 files have no code",
        "1 1.0 MiB; allowed: 0.8 MiB, by --max_image_megapixels:",
        f"  {photos}/large.jpg",
        "1 No such file or directory:",
        f"  {photos}/gone.jpg",
        "1 damaged:",
        f"  {photos}/cut.jpg",
        "1 empty:",
        f"  {photos}/empty.jpg",
        "1 not a JPEG or PNG image:",
        f"  {photos}/other.jpg",
    ]
    assert sent(server) == 14  # the photos and cut.jpg, that once more by itself
    output = load(tmp_path / "codes.npz")
    assert len(output["paths"]) == 12 and output["codes"].tolist() == expected(output["paths"])
    ended = encode()  # 1 MiB is within the default
    assert f"{photos}/large.jpg" not in ended.errors and "13 codes" in ended.output


def test_an_image_that_the_server_refuses_has_the_reason_of_its_graph(encode, server, photos):
    """In the words that a real export answered, see REFUSALS."""
    (photos / "cut.jpg").write_bytes(JPEG + b"x")
    for reason, server.service.refusal in REFUSALS.items():
        os.utime(photos / "cut.jpg", ns=(0, len(reason)))
        assert f"1 {reason}:\n  {photos}/cut.jpg\n" in encode().errors
    before = sent(server)
    assert f"1 {reason}:\n  {photos}/cut.jpg\n" in encode().errors
    assert sent(server) == before + 2  # a file without a code is tried again


def test_each_real_file_is_encoded_once_and_what_is_no_image_passed_over(
    encode, server, photos, tmp_path
):
    """A link to a folder around it, a second name, a pipe, and thumbnails among the photos."""
    (photos / "even" / "latest").symlink_to(".")
    os.link(photos / "even/00.jpg", photos / "even/again.jpg")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "Thumbs.db").write_bytes(b"\xd0\xcf")
    ended = encode(images=f"{photos}/**")
    assert (ended.status, ended.errors) == (0, "")
    assert sent(server) == len(load(tmp_path / "codes.npz")["paths"]) == 12
    assert ended.output.splitlines()[:3] == [
        "--images: 1 files that are no images passed over: .db 1",
        "--images: 2 links to files or folders already found passed over",
        "--images: 1 pipes, sockets or devices passed over",
    ]


def test_a_file_that_goes_away_while_others_are_sent_is_listed(encode, server, photos):
    server.service.before = lambda number, context: (photos / "odd/11.jpg").unlink(missing_ok=True)
    ended = encode(in_flight=1)
    assert ended.status == 1
    assert f"1 No such file or directory:\n  {photos}/odd/11.jpg\n" in ended.errors
    assert "11 codes" in ended.output


def test_the_same_command_sends_only_what_is_new_or_changed(encode, server, photos, tmp_path):
    encode()
    server.service.requests.clear()
    (photos / "even/00.jpg").write_bytes(JPEG + b"changed in size")
    (photos / "even/02.jpg").write_bytes(JPEG + b"z2")  # of the same size
    os.utime(photos / "even/02.jpg", ns=(0, 12345))
    (photos / "odd/01.jpg").unlink()
    (photos / "new.jpg").write_bytes(JPEG + b"new")
    assert encode().status == 0
    assert sent(server) == 3
    output = load(tmp_path / "codes.npz")
    assert output["paths"].tolist() == sorted(map(str, photos.rglob("*.jpg")))
    assert output["codes"].tolist() == expected(output["paths"])


def test_another_version_or_target_encodes_everything(encode, server, start_server, tmp_path):
    encode()
    server.service.version = 4
    ended = encode()
    assert (
        f"codes.npz is of tfhash version 3 at {server.target}, fingerprint f3: all files are "
        "encoded anew"
    ) in ended.output
    assert sent(server) == 24 and load(tmp_path / "codes.npz")["version"] == 4
    other = start_server()
    other.service.version = 4
    encode(target=other.target)
    assert sent(other) == 12


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
    assert sent(server) in (12, 14)
    assert load(tmp_path / "codes.npz")["version"] == 4


def fail_at(number_of_request):
    def before(number, context):
        if number == number_of_request:
            context.abort(grpc.StatusCode.INTERNAL, "out of order")

    return before


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
    assert sent(server) == 12 and load(tmp_path / "codes.npz")["fingerprint"] == "f4"


def test_a_server_swapped_between_two_runs_is_not_mixed_in(encode, server, tmp_path):
    server.service.before = fail_at(3)
    assert encode(in_flight=1).status == 1
    server.service.fingerprint = "f4"
    server.service.requests.clear()
    assert encode().status == 0
    assert sent(server) == 12  # though the journal has three batches
    server.service.fingerprint = "f5"
    ended = encode()
    assert "codes.npz is of tfhash version 3" in ended.output and ", fingerprint f4" in ended.output
    assert sent(server) == 24 and load(tmp_path / "codes.npz")["fingerprint"] == "f5"


def test_an_export_without_fingerprint(encode, server, tmp_path):
    """As before: known by name, version and length, which is said once."""
    server.service.fingerprint = ""
    server.service.before = fail_at(3)
    assert encode(in_flight=1).status == 1
    server.service.requests.clear()
    ended = encode()
    assert ended.status == 0 and ended.output.count("tells no fingerprint") == 1
    assert sent(server) == 6


def test_what_is_of_before_fingerprints_stays_readable(encode, server, tmp_path):
    server.service.fingerprint = ""
    output, part = tmp_path / "codes.npz", tmp_path / "codes.npz.part"
    server.service.before = fail_at(3)
    assert encode(in_flight=1).status == 1
    part.write_text(part.read_text().replace(', "fingerprint": ""', ""))
    server.service.requests.clear()
    assert encode().status == 0 and sent(server) == 6
    fields = load(output)
    del fields["fingerprint"]
    np.savez_compressed(output, **fields)
    server.service.requests.clear()
    assert encode().status == 0 and sent(server) == 0


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
    assert load(tmp_path / "codes.npz")["codes"].shape == (12, 2)


def test_rows_of_a_journal_that_cannot_be_are_encoded_anew(encode, server, photos, tmp_path):
    """As an older version of the command left them; one half line of a kill is not counted."""
    server.service.before = fail_at(3)
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
    assert ended.status == 0 and sent(server) == 6
    assert f"6 rows of {part} are damaged, or no codes of 12 bits" in ended.output
    output = load(tmp_path / "codes.npz")
    assert output["codes"].tolist() == expected(output["paths"]) and len(output["paths"]) == 12


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
    spoil(tmp_path / "codes.npz", load(tmp_path / "codes.npz"))
    ended = encode()
    assert ended.status == 2 and len(ended.errors.splitlines()) == 1
    assert "codes.npz is there and was not written by this command, or is damaged" in ended.errors


def test_names_that_are_no_utf8_survive_and_are_shown_escaped(encode, server, photos, tmp_path):
    odd, bad = os.fsdecode(b"\xe4.jpg"), "\x1b[31m\n.jpg"
    (photos / odd).write_bytes(JPEG + b"odd")
    (photos / bad).write_bytes(b"")
    output = os.fsdecode(os.fsencode(tmp_path) + b"/c\xf6des.npz")
    server.service.before = fail_at(2)
    assert encode(output=output, in_flight=1).status == 1
    server.service.before = lambda number, context: None
    ended = encode(output=output)
    assert ended.status == 1
    assert f"{tmp_path}/c\\xf6des.npz: 13 codes" in ended.output
    assert ended.errors.splitlines()[1:] == ["1 empty:", f"  {photos}/\\x1b[31m\\n.jpg"]
    paths = load(Path(output))["paths"].tolist()
    assert os.fsencode(photos / odd) in map(os.fsencode, paths)
    assert load(Path(output))["codes"].tolist() == expected(paths)
    server.service.requests.clear()
    encode(output=output)
    assert sent(server) == 0  # an empty one never is


def test_a_server_that_fails_midway(encode, server, tmp_path):
    server.service.before = fail_at(3)
    ended = encode(in_flight=1)
    assert ended.status == 1
    assert "INTERNAL: out of order; " in ended.errors and len(ended.errors.splitlines()) == 1
    assert not (tmp_path / "codes.npz").exists()
    server.service.requests.clear()
    assert encode().status == 0
    assert sent(server) == 6  # three batches of two were done
    output = load(tmp_path / "codes.npz")
    assert output["codes"].tolist() == expected(output["paths"]) and len(output["paths"]) == 12


def test_a_busy_server_is_asked_again(encode, server, tmp_path):
    def before(number, context):
        if number == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "queue full")

    server.service.before = before
    assert encode(in_flight=1).status == 0
    assert sent(server) == 14  # the third batch twice
    output = load(tmp_path / "codes.npz")
    assert output["codes"].tolist() == expected(output["paths"]) and len(output["paths"]) == 12


def test_an_interrupted_command_says_how_to_go_on(encode, server, tmp_path):
    part = tmp_path / "codes.npz.part"

    def interrupt(number, context):
        if number == 3:
            while part.read_text().count(".jpg") < 6:  # rows of the three batches before
                time.sleep(0.01)
            time.sleep(0.2)  # until the command waits for this answer
            os.kill(os.getpid(), signal.SIGINT)
            while context.is_active():
                time.sleep(0.01)

    server.service.before = interrupt
    ended = encode(in_flight=1)
    assert ended.status == 130
    assert ended.errors == (
        f"tfhash.serving.encode: error: interrupted; {tmp_path}/codes.npz.part keeps what was "
        "encoded, the same command goes on from there\n"
    )
    assert not (tmp_path / "codes.npz").exists()
    server.service.requests.clear()
    assert encode().status == 0
    assert sent(server) == 6


def test_a_killed_process_goes_on(encode, server, photos, tmp_path):
    """A process of its own, killed while the fourth of six batches hangs."""
    part = tmp_path / "codes.npz.part"

    def hang(number, context):
        while number >= 3 and context.is_active():
            time.sleep(0.01)

    server.service.before = hang
    arguments = f"--target={server.target} --images={photos}/**/*.jpg --batch=2 --in_flight=1"
    process = subprocess.Popen(
        [sys.executable, "-m", "tfhash.serving.encode", *arguments.split()]
        + [f"--output={tmp_path}/codes.npz"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        for _ in range(600):
            if part.exists() and part.read_text().count(".jpg") == 6:
                break
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "codes.npz").exists()
    with part.open("a") as file:
        file.write('["half a li')  # as a kill may leave it
    server.service.before = lambda number, context: None
    server.service.requests.clear()
    assert encode().status == 0
    assert sent(server) == 6
    output = load(tmp_path / "codes.npz")
    assert output["codes"].tolist() == expected(output["paths"]) and len(output["paths"]) == 12


def test_memory_holds_what_is_in_flight_not_all_files(encode, photos):
    """40 files of 1 MiB, two requests of one file at a time: a few copies of three files."""
    for i in range(40):
        (photos / f"large{i}.jpg").write_bytes(JPEG + bytes(2**20))
    tracemalloc.start()
    try:
        assert encode(batch=1, in_flight=2).status == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "/nowhere/*.jpg"}, "--images: '/nowhere/*.jpg': No such file or directory"),
        ({"target": "http://localhost:1"}, "target: expected HOST:PORT"),
        ({"tls_ca_file": "/nowhere/ca.pem"}, "--tls_ca_file: cannot read /nowhere/ca.pem"),
        ({"tls_ca_file": __file__}, f"--tls_ca_file: expected PEM, {__file__} holds none"),
        ({"tls_key_file": "key.pem"}, "--tls_cert_file, --tls_key_file: expected both or neither"),
        ({"batch": 0}, "flag --batch=0"),
        ({"output": "/dev/null/codes.npz"}, "--output: cannot write /dev/null/codes.npz.lock"),
    ],
)
def test_mistakes_of_the_user(encode, changes, message):
    ended = encode(**changes)
    assert ended.status == 2
    assert message in ended.errors and len(ended.errors.splitlines()) == 1


def test_a_file_of_somebody_else_is_not_overwritten(encode, tmp_path):
    (tmp_path / "codes.npz").write_bytes(b"a letter")
    ended = encode()
    assert ended.status == 2 and "was not written by this command" in ended.errors
    assert (tmp_path / "codes.npz").read_bytes() == b"a letter"


def test_no_server_and_no_model(encode, tmp_path):
    ended = encode(target="127.0.0.1:1", timeout=0.3)
    assert ended.status == 1
    assert "not reachable within 0.3 s" in ended.errors and "nothing was encoded" in ended.errors
    ended = encode(model="other")
    assert ended.status == 1 and "NOT_FOUND" in ended.errors
    assert list(tmp_path.glob("codes*")) == []


def test_mutual_tls(encode, tls_server, certificate):
    certificate_file, key_file = certificate
    ended = encode(
        target=tls_server.target,
        tls_ca_file=certificate_file,
        tls_cert_file=certificate_file,
        tls_key_file=key_file,
    )
    assert (ended.status, sent(tls_server)) == (0, 12)
