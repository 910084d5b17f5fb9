"""python -m tfhash.serving.encode: which files it sends, what it writes, what it lists and why."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np

from tfhash import npz

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


def test_codes_of_all_files_in_the_order_of_their_paths(encode, server, photos, tmp_path, codes_of):
    ended = encode()
    assert (ended.status, ended.errors) == (0, "")
    assert f"{tmp_path}/codes.npz: 12 codes of 12 bits" in ended.output
    output = npz.read(tmp_path / "codes.npz")
    paths = sorted(map(str, photos.rglob("*.jpg")))
    assert output["paths"].tolist() == paths
    assert output["codes"].tolist() == codes_of(paths) and output["codes"].dtype == np.uint8
    assert output["sizes"].tolist() == [os.path.getsize(path) for path in paths]
    assert (output["code_length"], output["model"], output["version"]) == (12, "tfhash", 3)
    assert {request.model_spec.signature_name for request in server.service.requests} == {
        "encode_bytes_partial"
    }
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["codes.npz"]


def test_files_that_cannot_be_read_are_listed_with_reasons(
    encode, server, photos, tmp_path, codes_of
):
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
    assert server.service.files() == 14  # the photos and cut.jpg, that once more by itself
    output = npz.read(tmp_path / "codes.npz")
    assert len(output["paths"]) == 12 and output["codes"].tolist() == codes_of(output["paths"])
    ended = encode()  # 1 MiB is within the default
    assert f"{photos}/large.jpg" not in ended.errors and "13 codes" in ended.output


def test_an_image_that_the_server_refuses_has_the_reason_of_its_graph(encode, server, photos):
    """In the words that a real export answered, see REFUSALS."""
    (photos / "cut.jpg").write_bytes(JPEG + b"x")
    for reason, server.service.refusal in REFUSALS.items():
        os.utime(photos / "cut.jpg", ns=(0, len(reason)))
        assert f"1 {reason}:\n  {photos}/cut.jpg\n" in encode().errors
    before = server.service.files()
    assert f"1 {reason}:\n  {photos}/cut.jpg\n" in encode().errors
    assert server.service.files() == before + 2  # a file without a code is tried again


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
    assert server.service.files() == len(npz.read(tmp_path / "codes.npz")["paths"]) == 12
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


def test_the_same_command_sends_only_what_is_new_or_changed(
    encode, server, photos, tmp_path, codes_of
):
    encode()
    server.service.requests.clear()
    (photos / "even/00.jpg").write_bytes(JPEG + b"changed in size")
    (photos / "even/02.jpg").write_bytes(JPEG + b"z2")  # of the same size
    os.utime(photos / "even/02.jpg", ns=(0, 12345))
    (photos / "odd/01.jpg").unlink()
    (photos / "new.jpg").write_bytes(JPEG + b"new")
    assert encode().status == 0
    assert server.service.files() == 3
    output = npz.read(tmp_path / "codes.npz")
    assert output["paths"].tolist() == sorted(map(str, photos.rglob("*.jpg")))
    assert output["codes"].tolist() == codes_of(output["paths"])


def test_names_that_are_no_utf8_survive_and_are_shown_escaped(
    encode, server, photos, tmp_path, codes_of
):
    odd, bad = os.fsdecode(b"\xe4.jpg"), "\x1b[31m\n.jpg"
    (photos / odd).write_bytes(JPEG + b"odd")
    (photos / bad).write_bytes(b"")
    output = os.fsdecode(os.fsencode(tmp_path) + b"/c\xf6des.npz")
    server.service.fail_at(2)
    assert encode(output=output, in_flight=1).status == 1
    server.service.before = lambda number, context: None
    ended = encode(output=output)
    assert ended.status == 1
    assert f"{tmp_path}/c\\xf6des.npz: 13 codes" in ended.output
    assert ended.errors.splitlines()[1:] == ["1 empty:", f"  {photos}/\\x1b[31m\\n.jpg"]
    paths = npz.read(Path(output))["paths"].tolist()
    assert os.fsencode(photos / odd) in map(os.fsencode, paths)
    assert npz.read(Path(output))["codes"].tolist() == codes_of(paths)
    server.service.requests.clear()
    encode(output=output)
    assert server.service.files() == 0  # an empty one never is


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
