"""tfhash.serving.local and engines: an export in this process, by each engine."""

from __future__ import annotations

import importlib.util
import shutil
import threading
import time

import numpy as np
import pytest

from tests.serving import tiny_exports
from tests.serving.tiny_exports import BAD, CODE_LENGTH, FILES, HAS_ONNX, SIZE
from tfhash import exports
from tfhash.errors import UserError
from tfhash.serving import engines
from tfhash.serving.local import Local, Tally, WrongModelError

each_engine = pytest.mark.parametrize(
    "engine",
    [
        engines.TENSORFLOW,
        pytest.param(
            engines.ONNXRUNTIME,
            marks=pytest.mark.skipif(not HAS_ONNX, reason="needs the extra onnx"),
        ),
        engines.TFLITE,
    ],
)
each_file = pytest.mark.parametrize("engine", each_engine.args[1][1:])


@pytest.fixture(scope="module")
def photos():
    return tiny_exports.photos(20)


def in_batches(contents: list[bytes], size: int = 6) -> list[list[bytes]]:
    return [contents[start : start + size] for start in range(0, len(contents), size)]


def answered(local: Local, batches: list[list[bytes]], tally: Tally) -> list[bytes | None]:
    return [
        code.tobytes() if valid else None
        for answer in local.stream(batches, tally)
        for code, valid in zip(*answer, strict=True)
    ]


@each_engine
def test_codes_are_those_of_the_saved_model(two_exports, photos, engine):
    expected = tiny_exports.codes(two_exports[0], photos)
    assert len({*expected}) > 3
    tally = Tally()
    contents = [*photos[:4], BAD, *photos[4:]]
    got = answered(Local(two_exports[0] / "1", engine), in_batches(contents), tally)
    assert got == [*expected[:4], None, *expected[4:]]
    compared = 0 if engine == engines.TENSORFLOW else 5 * CODE_LENGTH  # the first batch has BAD
    assert (tally.compared, tally.differing) == (compared, 0)
    assert tally.images == 21 - 6  # the first batch is not timed
    assert min(tally.decoding_us, tally.network_us) > 0


@each_file
def test_a_file_of_another_model_is_noticed(two_exports, export, photos, engine):
    shutil.copy(two_exports[1] / FILES[engine], export / FILES[engine])
    tally = Tally()
    with pytest.raises(WrongModelError) as error:
        answered(Local(export / "1", engine), in_batches(photos), tally)
    wanted, got = (
        np.frombuffer(b"".join(tiny_exports.codes(folder, photos[:6])), np.uint8)
        for folder in two_exports
    )
    differing = int(np.bitwise_count(wanted ^ got).sum())
    assert differing > 5
    assert str(error.value).startswith(
        f"--engine={engine}: {differing} of {6 * CODE_LENGTH} bits differ from the SavedModel's, "
        "so its file is of another model; python -m tfhash.export --model_dir=RUN --export_dir="
    )


def flipping(bits: int):
    """A `load` whose network flips so many bits of the first image, of the SavedModel's codes."""

    def load(engine: str, file: str, threads: int) -> engines.Network:
        network = engines_load(engine, file, threads)

        def encode(images):
            code = network.encode(images).copy()
            for bit in range(bits):
                code[0, 0] ^= 1 << bit
            return code

        return engines.Network(network.size, encode)

    return load


engines_load = engines.load


@pytest.mark.parametrize(("bits", "refused"), [(1, False), (2, False), (3, True)])
def test_bits_are_counted_and_few_are_let_pass(two_exports, photos, monkeypatch, bits, refused):
    monkeypatch.setattr(engines, "load", flipping(bits))
    tally = Tally()
    local = Local(two_exports[0] / "1", engines.TFLITE)
    if refused:
        with pytest.raises(WrongModelError, match=f"{bits} of 78 bits differ"):
            answered(local, in_batches(photos), tally)
    else:
        answered(local, in_batches(photos), tally)
    assert (tally.compared, tally.differing) == (78, bits)


def test_files_without_a_code_are_not_compared(two_exports, photos):
    tally = Tally()
    local = Local(two_exports[0] / "1", engines.TFLITE)
    answered(local, [[BAD, BAD], [BAD, photos[0]], photos], tally)
    assert (tally.compared, tally.differing) == (CODE_LENGTH, 0)
    answered(local, [photos], tally)  # the same process compares once
    assert tally.compared == CODE_LENGTH


def test_the_next_batch_is_decoded_while_the_network_runs(two_exports, photos, monkeypatch):
    """The network waits for it here, and would in vain if it were decoded afterwards."""
    local = Local(two_exports[0] / "1", engines.TFLITE)
    begun = [threading.Event() for _ in range(4)]
    numbers = iter(range(4))
    decode, network = local._decode, local._network
    alone: list[int] = []

    def decode_and_tell(contents):
        begun[next(numbers)].set()
        return decode(contents)

    def encode(images):
        number = len(alone)
        alone.append(number)
        if number < 3:
            assert begun[number + 1].wait(30), f"batch {number + 1} is not decoded meanwhile"
        return network.encode(images)

    monkeypatch.setattr(local, "_decode", decode_and_tell)
    monkeypatch.setattr(local, "_network", engines.Network(SIZE, encode))
    got = answered(local, in_batches(photos), Tally())
    assert alone == [0, 1, 2, 3] and got == tiny_exports.codes(two_exports[0], photos)


def test_order_is_kept_whatever_takes_longer(two_exports, photos, monkeypatch):
    local = Local(two_exports[0] / "1")
    decode = local._decode

    def slowly(contents):
        time.sleep(0.03 if len(contents) == 5 else 0)
        return decode(contents)

    monkeypatch.setattr(local, "_decode", slowly)
    batches = [photos[:5], photos[5:7], photos[7:12], photos[12:13], photos[13:]]
    assert answered(local, batches, Tally()) == tiny_exports.codes(two_exports[0], photos)


def test_one_batch_is_taken_ahead_and_no_more(two_exports, photos):
    taken: list[int] = []

    def batches():
        for number, batch in enumerate(in_batches(photos, 4)):
            taken.append(number)
            yield batch

    stream = Local(two_exports[0] / "1").stream(batches(), Tally())
    for number in range(5):
        next(stream)
        assert taken == [*range(min(number + 2, 5))]
    stream.close()


def test_what_fails_while_files_are_read_is_raised(two_exports, photos):
    def batches():
        yield photos
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        answered(Local(two_exports[0] / "1"), batches(), Tally())


def test_an_export_without_a_decoder_still_encodes(export, photos):
    shutil.rmtree(export / "1" / exports.DECODER)
    tally = Tally()
    contents = [*photos[:4], BAD, *photos[4:]]
    expected = tiny_exports.codes(export, photos)
    local = Local(export / "1")
    assert answered(local, in_batches(contents), tally) == [*expected[:4], None, *expected[4:]]
    assert "decoding and network " in (tally.profile() or "")
    assert local.complaint(BAD) and not local.complaint(photos[0])
    with pytest.raises(UserError, match="--engine=tflite: .* was exported before .*tfhash.export"):
        Local(export / "1", engines.TFLITE)


def test_the_graph_says_why_a_file_is_refused(two_exports, photos):
    local = Local(two_exports[0] / "1")
    assert "image_bytes: length out of range: 12 bytes" in local.complaint(BAD)
    assert local.complaint(photos[0]) == ""


def test_another_model_in_its_place_is_noticed(two_exports, export, photos):
    described = export / "1" / exports.METADATA
    shutil.copy(two_exports[1] / "1" / exports.METADATA, described)
    with pytest.raises(WrongModelError, match="fingerprint .*, expected "):
        answered(Local(export / "1"), [photos], Tally())


@each_file
def test_a_file_that_is_not_there(export, engine):
    (export / FILES[engine]).unlink()
    with pytest.raises(UserError) as error:
        Local(export / "1", engine)
    form = {engines.ONNXRUNTIME: "onnx", engines.TFLITE: "tflite"}[engine]
    assert str(error.value) == (
        f"--engine={engine}: there is no {export}/{FILES[engine]}; python -m tfhash.export "
        f"--model_dir=RUN --export_dir={export} --format={form}"
    )


@each_file
def test_a_file_that_is_damaged(export, engine, capfd):
    (export / FILES[engine]).write_bytes(b"no network")
    with pytest.raises(UserError, match=f"--engine={engine}: .* cannot be loaded \\("):
        Local(export / "1", engine)
    assert capfd.readouterr() == ("", "")


def test_a_file_of_another_size(export):
    path = export / FILES[engines.TFLITE]
    tiny_exports.tflite.save(
        tiny_exports.encoder(1, 8), **tiny_exports.ALL, image_size=8, precision="float32", path=path
    )
    with pytest.raises(UserError, match="its file takes images of 8 px, the export has 16; python"):
        Local(export / "1", engines.TFLITE)


def test_a_package_that_is_not_installed(export, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    with pytest.raises(UserError) as error:
        Local(export / "1", engines.ONNXRUNTIME)
    assert str(error.value) == (
        "--engine=onnxruntime: not installed: onnxruntime; `pip install onnxruntime`, or the extra "
        "onnx of tfhash, brings it"
    )


@pytest.mark.parametrize(
    ("times", "bound"),
    [((100, 3000, 2500, 400), "decoding"), ((100, 3000, 0, 6000), "the network"),
     ((9000, 3000, 0, 6000), "reading")],
)  # fmt: skip
def test_the_profile_says_what_bounds(times, bound):
    reading, decoding, waiting, network = times
    tally = Tally(2, 2 * reading, 2 * decoding, 2 * waiting, 2 * network)
    assert tally.profile() == (
        f"ms an image: reading {reading / 1000:.2f}, decoding {decoding / 1000:.2f}, network "
        f"{network / 1000:.2f}, which waited {waiting / 1000:.2f} for decoding; bound by {bound}"
    )
    assert Tally().profile() is None
