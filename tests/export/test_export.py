"""tfhash.export: what is published, under which name, and what stops it."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import textwrap
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash.data import images as image_ops
from tfhash.errors import UserError
from tfhash.export import __main__ as export_command
from tfhash.export import aside, folded, operations, saved_model, signatures, verify
from tfhash.networks.hash_layer import HashNetwork
from tfhash.runs import finished
from tfhash.runs import folder as run_folder

SIZE, CODE_LENGTH, WIDTH = 16, 13, 2


def test_the_first_version_is_1_and_nothing_else_is_left(published):
    assert [path.name for path in published.parent.iterdir()] == ["1"]


def test_metadata(tiny, published):
    content = json.loads((published / "assets.extra" / "tfhash.json").read_text())
    assert tiny.run.items() <= content.items()
    assert content["code_length"] == CODE_LENGTH
    assert content["bit_order"] == "big"
    assert content["signatures"]["encode_images"]["outputs"]["fingerprint"] == "string [N]"
    assert content["threshold"] == 0.5
    assert content["image_size"] == SIZE
    assert content["signatures"]["serving_default"] == "encode_images"
    assert content["signatures"]["encode_bytes"]["outputs"]["code"] == f"uint8 [N, {WIDTH}]"
    assert content["limits"]["max_bytes"] == image_ops.Limits().bytes
    assert content["limits"]["max_pixels"] == 40_000_000
    assert content["decoding"] == {"orientation": "Exif, applied", "transparency": "on white"}
    assert content["versions"]["keras"] == keras.__version__


def test_low_precision_and_strategy_variables_pass_and_leftovers_are_cleared(
    tiny, in_this_process, tmp_path
):
    (tmp_path / "3").mkdir()
    (tmp_path / ".4.tmp-0badcafe").mkdir()  # as a crash leaves it
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
            encoder = tiny.encoder()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert tiny.save(encoder, tmp_path) == tmp_path / "4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_versions_count_as_integers(tmp_path):
    assert saved_model.next_version(tmp_path) == 1
    for name in ("9", "10", ".12.tmp-1", "notes"):
        (tmp_path / name).mkdir()
    assert saved_model.next_version(tmp_path) == 11


def test_a_version_that_another_export_has_just_published_stays(monkeypatch, tmp_path):
    mine, other = tmp_path / ".1.tmp-0badcafe", tmp_path / "1"
    for folder in (mine, other):
        folder.mkdir()
        (folder / "content").write_text(folder.name)
    # Both looked before either was published.
    looked = iter([1, 2])
    monkeypatch.setattr(saved_model, "next_version", lambda export_dir: next(looked))
    assert saved_model._publish(mine, tmp_path) == tmp_path / "2"
    contents = {path.parent.name: path.read_text() for path in tmp_path.glob("*/content")}
    assert contents == {"1": "1", "2": ".1.tmp-0badcafe"}


def test_exports_at_the_same_moment_get_a_version_each(tmp_path):
    folders = [tmp_path / f".1.tmp-{number}" for number in range(40)]
    for folder in folders:
        folder.mkdir()
        (folder / "content").write_text(folder.name)
    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda folder: saved_model._publish(folder, tmp_path), folders))
    assert sorted(int(path.name) for path in published) == list(range(1, 41))
    assert [(path / "content").read_text() for path in published] == [f.name for f in folders]


def test_other_codes_than_those_of_keras_stop_the_publishing(
    tiny, in_this_process, monkeypatch, tmp_path
):
    encoder, write = tiny.encoder(), saved_model._write

    def write_then_negate_the_head(*arguments):
        write(*arguments)
        head = encoder.layers[-1]
        head.set_weights([-weight for weight in head.get_weights()])

    # sigmoid(-x) = 1 - sigmoid(x): Keras now has the opposite of each of the 40 * 13 bits.
    monkeypatch.setattr(saved_model, "_write", write_then_negate_the_head)
    with pytest.raises(verify.VerificationError) as error:
        tiny.save(encoder, tmp_path)
    assert str(error.value) == (
        "tf.saved_model.load, serving_default, bits: 520 of 520 values differ from Keras"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("case", "output", "row", "size", "spoil"),
    [
        ("encode_bytes", "code", 5, 80, lambda value: value ^ 1),
        ("encode_bytes_partial", "valid", 5, 40, lambda value: not value),
        ("encode_images", "fingerprint", 5, 40, lambda value: b"other"),
        ("encode_bytes_partial with a broken file", "bits", 31, 416, lambda value: value ^ 1),
        ("encode_bytes_partial with a broken file", "valid", 31, 32, lambda value: not value),
    ],
)
def test_one_wrong_value_of_any_signature_is_found(
    tiny, encoder, monkeypatch, case, output, row, size, spoil
):
    """Sizes are those of 40 images, or of 32 in the batch that ends in a broken file, row 31."""

    def right_but_for_one_value(folder, cases):
        answers = [{name: value.copy() for name, value in one.expected.items()} for one in cases]
        names = [one.name for one in cases]
        values = answers[names.index(case)][output]
        values[row, ...].flat[0] = spoil(values[row, ...].flat[0])
        return {"v1 Session": answers}

    monkeypatch.setattr(verify, "_answers_of_new_process", right_but_for_one_value)
    with pytest.raises(verify.VerificationError) as error:
        verify.verify("unread", encoder, tiny.images(40), [], "f0")
    assert str(error.value) == (
        f"v1 Session, {case}, {output}: 1 of {size} values differ from Keras"
    )


def test_a_model_that_only_loads_as_a_function_is_refused(tiny, encoder, in_this_process, tmp_path):
    # A tf.Module that holds a Keras 3 model: the v1 loader does not find its variables.
    module = tf.Module()
    module.encoder = encoder
    functions = signatures.build(encoder, CODE_LENGTH, SIZE)
    endpoints = {
        name: tf.function(function, input_signature=[signatures.INPUTS[name]], autograph=False)
        for name, function in functions.items()
    }
    endpoints["serving_default"] = endpoints[signatures.DEFAULT]
    module.endpoints = endpoints
    tf.saved_model.save(module, str(tmp_path), signatures=endpoints)
    with pytest.raises(
        verify.VerificationError, match="v1 Session, serving_default: FailedPreconditionError"
    ):
        verify.verify(tmp_path, encoder, tiny.images(2), [], "f0")


def test_what_the_process_without_tfhash_says_at_last_is_the_error(
    tiny, encoder, monkeypatch, tmp_path
):
    script = tmp_path / "far_side.py"
    script.write_text("import sys\nprint('chatter', file=sys.stderr)\nsys.exit('the reason')")
    monkeypatch.setattr(verify, "__file__", str(script))
    with pytest.raises(verify.VerificationError) as error:
        tiny.save(encoder, tmp_path / "export", images=tiny.images(2))
    assert str(error.value) == "a process without tfhash ended with status 1: the reason"
    assert list((tmp_path / "export").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros([2, 8, 8, 3], np.uint8)}, r"images: .* \[2, 8, 8, 3\]"),
        ({"images": np.zeros([2, SIZE, SIZE, 3], np.float32)}, "images: .* float32"),
        ({"images": np.zeros([0, SIZE, SIZE, 3], np.uint8)}, r"images: .* \[0, 16, 16, 3\]"),
        ({"code_length": 12}, "code_length: received 12"),
    ],
)
def test_wrong_arguments_leave_nothing(tiny, encoder, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.save(encoder, tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run_of_encoder(tiny, encoder, monkeypatch):
    """A run folder stands for one that trained the encoder; it need not exist."""
    hasher = types.SimpleNamespace(encoder=encoder, code_length=CODE_LENGTH, image_size=SIZE)
    given = types.SimpleNamespace(experiment=types.SimpleNamespace(max_image_megapixels=7))
    monkeypatch.setattr(run_folder, "read", lambda model_dir: (given, tiny.run | {"steps": 3}))
    monkeypatch.setattr(finished, "load", lambda model_dir: hasher)
    monkeypatch.setattr(finished, "sample_images", lambda model_dir, n: tiny.images(min(n, 99)))


def test_the_command_publishes_a_run_and_shows_how_to_load_it(
    run_of_encoder, monkeypatch, tmp_path, capsys
):
    verified = []

    def record(folder, encoder, images, requests, fingerprint):
        verified.append((len(images), len(list(requests))))

    monkeypatch.setattr(verify, "verify", record)

    assert export_command.export_run(tmp_path, tmp_path / "export") == tmp_path / "export" / "1"

    assert verified == [(99, 12)]
    content = json.loads((tmp_path / "export" / "1" / "assets.extra" / "tfhash.json").read_text())
    assert content["limits"]["max_pixels"] == 7_000_000
    output = capsys.readouterr().out
    assert "verified on 99 images" in output
    assert f"published {tmp_path / 'export' / '1'}" in output
    assert "encode_images: images uint8 [N, H, W, 3] -> code uint8 [N, 2]" in output
    assert "encode_bytes_partial: image_bytes string [N] -> " in output
    snippet = textwrap.dedent(output.split("to load it:\n")[1])
    assert len(snippet.splitlines()) == 5
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(snippet, {})
    assert printed.getvalue().startswith("[[")


def normalised_network():
    """H with a normalisation after its only convolution."""
    keras.utils.set_random_seed(0)
    x = keras.Input((SIZE, SIZE, 3))
    y = keras.layers.Conv2D(6, 3, strides=4, name="convolution")(x / 255)
    y = keras.layers.BatchNormalization(name="normalisation")(y)
    backbone = keras.Model(x, keras.layers.GlobalAveragePooling2D()(y))
    network = HashNetwork(CODE_LENGTH, backbone)
    network.build((None, SIZE, SIZE, 3))
    return network


@pytest.mark.parametrize("fold", [True, False])
def test_batch_normalisation_is_folded_and_the_bits_that_differ_are_told(
    fold, tiny, command, run_of_encoder, monkeypatch, tmp_path
):
    """The exported graph has a normalisation less; Keras' codes and its own are compared."""
    network = normalised_network()
    hasher = types.SimpleNamespace(encoder=network, code_length=CODE_LENGTH, image_size=SIZE)
    monkeypatch.setattr(finished, "load", lambda model_dir: hasher)
    ended = command(export_command, f"--model_dir={tmp_path}", *([] if fold else ["--nofold"]))
    assert ended.status == 0
    said = "folded 1 batch normalisations into the layers before them: 0 of 1,287 bits differ\n"
    assert (said in ended.output) == fold and "verified on 99 images" in ended.output
    names = {v.name for v in tf.saved_model.load(str(tmp_path / "export" / "1")).variables}
    assert any("moving_mean" in name for name in names) != fold


def test_a_hasher_in_python_is_folded_too(monkeypatch, tmp_path):
    """And where that would change codes, nothing is published."""
    hasher = types.SimpleNamespace(
        encoder=normalised_network(), code_length=CODE_LENGTH, image_size=SIZE, seed=0,
        method=lambda: "ssgah",
    )  # fmt: skip
    for fold in (True, False):
        folder = saved_model.export_saved_model(hasher, tmp_path / str(fold), fold=fold)
        names = {v.name for v in tf.saved_model.load(str(folder)).variables}
        assert any("moving_mean" in name for name in names) != fold
    images = np.random.default_rng(0).integers(0, 256, (9, SIZE, SIZE, 3), np.uint8)
    other = normalised_network()
    other.set_weights([-weight for weight in other.get_weights()])
    monkeypatch.setattr(folded.folding, "folded_encoder", lambda encoder: other)
    with pytest.raises(verify.VerificationError, match=r"bits differ; allowed: --nofold, fold=Fa"):
        saved_model.export_saved_model(hasher, tmp_path / "other", images=images)
    assert not list((tmp_path / "other").glob("*"))


def test_without_verification_the_command_says_so(run_of_encoder, command, monkeypatch, tmp_path):
    def fail(*arguments):
        raise AssertionError("called in spite of --noverify")

    monkeypatch.setattr(verify, "verify", fail)
    monkeypatch.setattr(operations, "check", fail)
    monkeypatch.setattr(finished, "sample_images", fail)
    ended = command(export_command, f"--model_dir={tmp_path}", "--noverify")
    assert ended.status == 0
    assert "nothing was verified (--noverify)\n" in ended.output
    assert (tmp_path / "export" / "1" / "saved_model.pb").is_file()


def test_a_folder_without_a_finished_run_is_a_mistake_of_the_user(tmp_path):
    with pytest.raises(UserError, match="`model_dir`: no finished run"):
        export_command.export_run(tmp_path, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_an_export_dir_that_is_a_file_is_a_mistake_of_the_user(run_of_encoder, tmp_path):
    (tmp_path / "export").touch()
    with pytest.raises(UserError, match="--export_dir: "):
        export_command.export_run(tmp_path, tmp_path / "export")


def test_the_command_needs_a_model_dir(command):
    ended = command(export_command)
    assert "--model_dir" in ended.line("tfhash.export")


HOLD = """
import sys
from pathlib import Path
from tfhash.export import aside
with aside.folder(Path(sys.argv[1]), sys.argv[2]) as folder:
    (folder / "part").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("name", ["1", "encoder.onnx"])
def test_what_a_killed_export_left_is_cleared_and_that_of_a_living_one_is_not(tmp_path, name):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    theirs = Path(process.stdout.readline().strip())
    (tmp_path / "3").mkdir()
    (tmp_path / ".encoder.onnx.tmp-0badcafe").touch()  # as a version of before leaves it
    with aside.folder(tmp_path, "4") as own:
        assert (theirs / "part").is_file() and own.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"3", theirs.name}
    process.kill()
    process.communicate()
    with aside.folder(tmp_path, "4"):
        assert not theirs.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_what_others_write_aside_is_not_cleared(tmp_path):
    """As `npz.write` and `Index.save` name it, who hold no lock."""
    theirs = {".codes.npz.tmp-host-12", ".encoder.tmp-0badcafe-1", ".7.tmp-0badcafe0bad"}
    for name in theirs:
        (tmp_path / name).mkdir()
    with aside.folder(tmp_path, "4"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == theirs


@pytest.mark.parametrize("form", ["saved_model", "onnx"])
def test_a_precision_that_means_nothing_is_refused(command, tmp_path, form):
    ended = command(
        export_command, f"--model_dir={tmp_path}", f"--format={form}", "--tflite_precision=int8"
    )
    expected = f"--tflite_precision: not with --format={form}; allowed: with --format=tflite"
    assert ended.line("tfhash.export").endswith(expected)
