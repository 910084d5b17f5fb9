"""encode with the folder of an export in place of a server, by each engine."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from tests.serving import tiny_exports
from tests.serving.test_local import each_engine, each_file
from tests.serving.tiny_exports import FILES
from tfhash import npz
from tfhash.serving import engines
from tfhash.serving.encode import __main__ as command_module
from tfhash.serving.encode import in_process

COUNT = 20
PROFILE = re.compile(
    r"ms an image: reading \S+, decoding \S+, network \S+, which waited \S+ for decoding; bound by "
    r"(reading|decoding|the network)"
)


@pytest.fixture
def photos(tmp_path) -> dict[str, bytes]:
    """The contents of the files by their paths."""
    (tmp_path / "photos").mkdir()
    contents = {}
    for number, content in enumerate(tiny_exports.photos(COUNT)):
        kind = "png" if number % 2 else "jpg"
        contents[f"{tmp_path}/photos/{number:02}.{kind}"] = content
    for path, content in contents.items():
        with open(path, "wb") as file:
            file.write(content)
    return contents


@pytest.fixture
def encode(command, export, photos, tmp_path):
    def encode(**changes):
        given = {"model": export, "images": f"{tmp_path}/photos/*", "batch": 6}
        given |= {"output": tmp_path / "codes.npz"} | changes
        arguments = (f"--{name}={value}" for name, value in given.items() if value is not None)
        return command(command_module, *arguments)

    return encode


@each_engine
def test_codes_are_those_of_the_saved_model(encode, export, photos, tmp_path, engine):
    ended = encode(engine=engine)
    assert ended.status == 0
    told, profile = ended.output.splitlines()
    assert told == f"{tmp_path}/codes.npz: {COUNT} codes of 13 bits" and PROFILE.fullmatch(profile)
    assert ended.errors.splitlines() == (
        []
        if engine == engines.TENSORFLOW
        else [f"--engine={engine}: 0 of 78 bits differ from the SavedModel's, in the first batch"]
    )
    output = npz.read(tmp_path / "codes.npz")
    assert output["paths"].tolist() == sorted(photos)
    expected = tiny_exports.codes(export, [photos[path] for path in output["paths"]])
    assert [code.tobytes() for code in output["codes"]] == expected
    source = {name: output[name].item() for name in ("target", "model", "version", "engine")}
    assert source == {"target": "", "model": str(export), "version": 1, "engine": engine}


def test_run_again_only_what_is_new_is_encoded(encode, photos, monkeypatch, tmp_path):
    assert encode(engine="tflite").status == 0
    sent = []
    stream = in_process.InProcess.stream

    def watched(self, batches, **more):
        return stream(self, (sent.append(len(batch)) or batch for batch in batches), **more)

    monkeypatch.setattr(in_process.InProcess, "stream", watched)
    ended = encode(engine="tflite")
    assert (ended.status, ended.errors, sent) == (0, "", [])
    assert ended.output == f"{tmp_path}/codes.npz: {COUNT} codes of 13 bits\n"
    os.utime(sorted(photos)[3], (1, 1))
    assert encode(engine="tflite").status == 0 and sent == [1]
    ended = encode()
    assert sum(sent) == 1 + COUNT
    assert "codes.npz is of " in ended.output and "by tflite: all files are encoded anew" in (
        ended.output
    )


def test_an_interruption_keeps_what_was_encoded_by_this_engine(encode, monkeypatch, tmp_path):
    stream = in_process.InProcess.stream
    sent = []

    def two_batches(self, batches, **more):
        for number, codes in enumerate(stream(self, batches, **more)):
            if number == 2:
                raise KeyboardInterrupt
            sent.append(len(codes))
            yield codes

    with monkeypatch.context() as patch:
        patch.setattr(in_process.InProcess, "stream", two_batches)
        assert encode(engine="tflite").status == 130
    assert sent == [6, 6]

    def watched(self, batches, **more):
        return stream(self, (sent.append(len(batch)) or batch for batch in batches), **more)

    monkeypatch.setattr(in_process.InProcess, "stream", watched)
    assert encode(engine="tflite", output=tmp_path / "codes.npz").status == 0
    assert sent == [6, 6, 6, 2]


def test_a_file_of_another_model_ends_the_command(encode, two_exports, export, tmp_path):
    shutil.copy(two_exports[1] / FILES["tflite"], export / FILES["tflite"])
    line = encode(engine="tflite").line(command_module.NAME, 1)
    assert re.search(r"--engine=tflite: \d+ of 78 bits differ from the SavedModel's, so its", line)
    assert not (tmp_path / "codes.npz").exists()


def test_a_file_that_the_model_refuses_has_its_reason(encode, photos, tmp_path):
    whole = photos[f"{tmp_path}/photos/01.png"]
    (tmp_path / "photos" / "cut.png").write_bytes(whole[: len(whole) // 2])
    wide = tiny_exports.tf.io.encode_png(tiny_exports.np.zeros([2, 600, 3], "uint8")).numpy()
    (tmp_path / "photos" / "wide.png").write_bytes(wide)
    ended = encode()
    assert ended.status == 1
    assert ended.errors.splitlines() == [
        f"2 of {COUNT + 2} files have no code",
        "1 damaged:",
        f"  {tmp_path}/photos/cut.png",
        "1 refused by the model: image dimensions out of range: 600 x 2 px; allowed: sides of 1 to "
        "32768 px, one at most 100 times the other:",
        f"  {tmp_path}/photos/wide.png",
    ]


@each_file
def test_a_file_that_is_not_there(encode, export, engine):
    (export / FILES[engine]).unlink()
    line = encode(engine=engine).line(command_module.NAME)
    assert f"--engine={engine}: there is no {export}/{FILES[engine]}; python -m tfhash.exp" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "--target, --model: expected HOST:PORT of a server, or the folder of an"),
        ({"target": "x:1", "engine": "tensorflow"}, "--engine: behind --target the server"),
        ({"target": "x:1", "engine": "tflite"}, "--engine: behind --target the server computes"),
        ({"target": "x:1", "tf_threads": 2}, "--tf_threads: behind --target the server computes"),
        ({"in_flight": 2}, "--in_flight: no server is asked; allowed: with --target"),
        ({"timeout": 5}, "--timeout: no server is asked"),
        ({"tls_ca_file": "ca.pem"}, "--tls_ca_file: no server is asked"),
        ({"engine": "torch"}, "--engine=torch"),
        ({"model": "/nowhere"}, "--model: no export in /nowhere; python -m tfhash.export"),
        ({"tf_threads": -1}, "--tf_threads=-1"),
    ],
)
def test_mistakes_of_the_user(encode, changes, message):
    assert message in encode(**changes).line(command_module.NAME)


def test_flags_get_to_where_they_work(encode, export, monkeypatch):
    given = []

    class Stop(Exception):
        pass

    def local(*arguments):
        given.append(arguments)
        raise Stop

    monkeypatch.setattr(in_process, "Local", local)
    with pytest.raises(Stop):
        encode(engine="tflite", tf_threads=3)
    assert given == [(export / "1", "tflite", 3)]


def test_a_version_by_itself(encode, export, tmp_path):
    assert encode(model=export / "1").status == 0
    moved = shutil.copytree(export / "1", tmp_path / "mine")
    ended = encode(model=moved)
    assert ended.status == 0 and "export version 1, fingerprint" in ended.output
    output = npz.read(tmp_path / "codes.npz")
    assert (output["model"].item(), output["version"].item()) == (str(moved), 0)
