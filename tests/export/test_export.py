"""tfhash.export: what is published answers through a v1 Session, TF Serving's kind of loader."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash import experiment
from tfhash.data import images as image_ops
from tfhash.errors import UserError
from tfhash.export import __main__ as command
from tfhash.export import save, saved_model, signatures, verify

SIZE, CODE_LENGTH, WIDTH = 16, 13, 2  # 13 bits take two bytes, three low bits unused
RUN = {
    "method": "ssgah",
    "dataset": "digits",
    "protocol": "digits",
    "split_fingerprint": "0123",
    "seed": 0,
    "ties": "expected",
    "map": 0.5,
}


def tiny_encoder() -> keras.Model:
    """Untrained, with what an encoder may hold; its codes differ between the images below."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(CODE_LENGTH, activation="sigmoid", dtype="float32"),
        ]
    )


def random_images(count: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, height, width, 3), np.uint8)


def save_tiny(encoder: keras.Model, export_dir: Path, **changes) -> Path:
    arguments = {
        "code_length": CODE_LENGTH,
        "image_size": SIZE,
        "metadata": RUN,
        "images": random_images(64),
        "export_dir": export_dir,
    }
    return save(encoder, **(arguments | changes))


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.fixture(scope="module")
def published(encoder, tmp_path_factory):
    return save_tiny(encoder, tmp_path_factory.mktemp("run") / "export")


@pytest.fixture(scope="module")
def answer(published):
    """answer(signature, value): every output of a signature, through a v1 Session."""
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        model = tf.compat.v1.saved_model.load(session, ["serve"], str(published))

    def call(signature, value):
        signature_def = model.signature_def[signature]
        (tensor,) = signature_def.inputs.values()
        fetches = {name: output.name for name, output in signature_def.outputs.items()}
        return session.run(fetches, {tensor.name: value})

    yield call
    session.close()


def byte_strings(values) -> np.ndarray:
    return np.array(values, object)


def test_the_first_version_is_1_and_nothing_else_is_left(published):
    assert [path.name for path in published.parent.iterdir()] == ["1"]


def test_outputs_are_those_of_the_encoder(encoder, answer):
    images = random_images(20)
    output = answer("encode_images", images)
    embedding = encoder(images.astype(np.float32), training=False).numpy()
    np.testing.assert_allclose(output["embedding"], embedding, atol=1e-5)
    assert output["embedding"].dtype == np.float32
    assert output["bits"].dtype == output["code"].dtype == np.uint8
    np.testing.assert_array_equal(output["bits"], output["embedding"] > 0.5)
    np.testing.assert_array_equal(output["code"], np.packbits(output["bits"], axis=-1))
    assert len(np.unique(output["code"], axis=0)) > 10  # else the comparisons show nothing


def test_serving_default_is_encode_images(answer):
    images = random_images(5)
    for name, value in answer("serving_default", images).items():
        np.testing.assert_array_equal(value, answer("encode_images", images)[name])


def test_images_of_any_size_are_resized_in_the_graph(answer):
    images = random_images(6, 40, 24)
    resized = image_ops.resize(tf.constant(images), SIZE).numpy()
    np.testing.assert_array_equal(
        answer("encode_images", images)["code"], answer("encode_images", resized)["code"]
    )


def test_jpeg_files_of_mixed_sizes_equal_their_decoded_images(answer):
    files = [
        tf.io.encode_jpeg(random_images(1, height, width)[0]).numpy()
        for height, width in [(40, 30), (16, 16), (9, 70)]
    ]
    one_by_one = [
        answer("encode_images", image_ops.decode(file).numpy()[np.newaxis])["code"][0]
        for file in files
    ]
    np.testing.assert_array_equal(answer("encode_bytes", byte_strings(files))["code"], one_by_one)


@pytest.mark.parametrize(
    ("signature", "empty"),
    [
        ("encode_images", np.zeros([0, SIZE, SIZE, 3], np.uint8)),
        ("encode_images", np.zeros([0, 5, 7, 3], np.uint8)),
        ("encode_bytes", byte_strings([])),
    ],
)
def test_an_empty_batch_gets_an_empty_answer(answer, signature, empty):
    shapes = {name: value.shape for name, value in answer(signature, empty).items()}
    assert shapes == {"code": (0, WIDTH), "bits": (0, CODE_LENGTH), "embedding": (0, CODE_LENGTH)}


@pytest.mark.parametrize(
    ("signature", "value", "message"),
    [
        ("encode_images", np.zeros([SIZE, SIZE, 3], np.uint8), "images: expected uint8 [N, H"),
        ("encode_images", np.uint8(7), "images: expected uint8 [N, H"),
        ("encode_images", np.zeros([1, SIZE, SIZE, 1], np.uint8), "images: expected uint8 [N, H"),
        ("encode_images", np.zeros([1, SIZE, SIZE, 4], np.uint8), "images: expected uint8 [N, H"),
        ("encode_images", np.zeros([1, 0, SIZE, 3], np.uint8), "images: expected uint8 [N, H"),
        ("encode_bytes", byte_strings([[b"x"]]), "image_bytes: expected string [N]"),
        ("encode_bytes", byte_strings(b"x"), "image_bytes: expected string [N]"),
        ("encode_bytes", byte_strings([b""]), "image_bytes: length out of range"),
        ("encode_bytes", byte_strings([b"GIF89a" * 9]), "image_bytes: not a JPEG or PNG image"),
    ],
)
def test_a_malformed_input_is_named(answer, signature, value, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        answer(signature, value)
    assert message in str(error.value)


def test_metadata(published):
    content = json.loads((published / "assets.extra" / "tfhash.json").read_text())
    assert RUN.items() <= content.items()
    assert content["code_length"] == CODE_LENGTH
    assert content["bit_order"] == "big"
    assert content["threshold"] == 0.5
    assert content["image_size"] == SIZE
    assert content["signatures"]["serving_default"] == "encode_images"
    assert content["signatures"]["encode_bytes"]["outputs"]["code"] == f"uint8 [N, {WIDTH}]"
    assert content["limits"]["max_bytes"] == image_ops.MAX_BYTES
    assert content["versions"]["keras"] == keras.__version__


@pytest.mark.parametrize("code_length", [1, 7, 8, 9, 64])
def test_packing_in_the_graph_is_numpy_packbits(code_length):
    bits = np.random.default_rng(0).integers(0, 2, (50, code_length), np.uint8)
    pack = tf.function(
        signatures.pack, input_signature=[tf.TensorSpec([None, code_length], tf.uint8)]
    )
    np.testing.assert_array_equal(pack(bits), np.packbits(bits, axis=-1))


def test_low_precision_and_strategy_variables_pass_beside_leftovers(tmp_path):
    (tmp_path / "3").mkdir()
    (tmp_path / ".4.tmp-0badcafe").mkdir()  # as a crash leaves it
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
            encoder = tiny_encoder()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert save_tiny(encoder, tmp_path) == tmp_path / "4"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".4.tmp-0badcafe", "3", "4"]


def test_versions_count_as_integers(tmp_path):
    assert saved_model.next_version(tmp_path) == 1
    for name in ("9", "10", ".12.tmp-1", "notes"):
        (tmp_path / name).mkdir()
    assert saved_model.next_version(tmp_path) == 11


def test_other_codes_than_those_of_keras_stop_the_publishing(monkeypatch, tmp_path):
    encoder, write = tiny_encoder(), saved_model._write

    def write_then_negate_the_head(*arguments):
        write(*arguments)
        head = encoder.layers[-1]
        head.set_weights([-weight for weight in head.get_weights()])

    # sigmoid(-x) = 1 - sigmoid(x): Keras now has the opposite of each of the 64 * 13 bits.
    monkeypatch.setattr(saved_model, "_write", write_then_negate_the_head)
    with pytest.raises(verify.VerificationError) as error:
        save_tiny(encoder, tmp_path)
    assert str(error.value) == (
        "tf.saved_model.load, encode_images: 832 of 832 bits differ from Keras"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_only_loads_as_a_function_is_refused(encoder, tmp_path):
    # A tf.Module that holds a Keras 3 model: the v1 loader does not find its variables.
    module = tf.Module()
    module.encoder = encoder
    functions = signatures.build(encoder, CODE_LENGTH, SIZE)
    endpoints = {
        name: tf.function(function, input_signature=[signatures.INPUTS[name]], autograph=False)
        for name, function in functions.items()
    }
    module.endpoints = endpoints
    tf.saved_model.save(module, str(tmp_path), signatures=endpoints)
    with pytest.raises(verify.VerificationError, match="v1 Session: FailedPreconditionError"):
        verify.verify(tmp_path, encoder, random_images(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": random_images(2, 8, 8)}, r"images: .* \[2, 8, 8, 3\]"),
        ({"images": random_images(2).astype(np.float32)}, "images: .* float32"),
        ({"images": random_images(0)}, r"images: .* \[0, 16, 16, 3\]"),
        ({"code_length": 12}, "code_length: received 12"),
    ],
)
def test_wrong_arguments_leave_nothing(encoder, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        save_tiny(encoder, tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_the_command_publishes_a_run_and_shows_how_to_load_it(
    encoder, monkeypatch, tmp_path, capsys
):
    hasher = types.SimpleNamespace(encoder=encoder, code_length=CODE_LENGTH, image_size=SIZE)
    monkeypatch.setattr(experiment, "read", lambda model_dir: (None, RUN | {"steps": 3}))
    monkeypatch.setattr(experiment, "load", lambda model_dir: hasher)
    monkeypatch.setattr(experiment, "sample_images", lambda model_dir, n: random_images(n))
    monkeypatch.setattr(verify, "verify", lambda *arguments: None)  # its own tests are above

    assert command.export_run(tmp_path, tmp_path / "export") == tmp_path / "export" / "1"

    output = capsys.readouterr().out
    assert f"published {tmp_path / 'export' / '1'}" in output
    assert "encode_images: images uint8 [N, H, W, 3] -> code uint8 [N, 2]" in output
    snippet = textwrap.dedent(output.split("to load it:\n")[1])
    assert len(snippet.splitlines()) == 5
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(snippet, {})
    assert printed.getvalue().startswith("[[")


def test_a_folder_without_a_finished_run_is_a_mistake_of_the_user(tmp_path):
    with pytest.raises(UserError, match="--model_dir: no finished run"):
        command.export_run(tmp_path, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_an_export_dir_that_is_a_file_is_a_mistake_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setattr(experiment, "read", lambda model_dir: (None, RUN))
    (tmp_path / "export").touch()
    with pytest.raises(UserError, match="--export_dir: "):
        command.export_run(tmp_path, tmp_path / "export")


def test_the_command_needs_a_model_dir():
    process = subprocess.run(
        [sys.executable, "-m", "tfhash.export"], capture_output=True, text=True
    )
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith("tfhash.export: error: ")
    assert "--model_dir" in process.stderr and "Traceback" not in process.stderr
