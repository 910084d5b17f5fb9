"""`import tfhash` as a user of Python has it: what it costs, and what fit does with run_dir."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import tfhash
from tfhash import codes as code_ops

pytestmark = pytest.mark.usefixtures("eagerly")

REPOSITORY = Path(__file__).parents[2]
SMALL = {
    "code_length": 8,
    "image_size": 16,
    "steps": 6,
    "gan_steps": 4,
    "checkpoint_every": 2,
    "batch_size": 12,
    "unlabelled_batch_size": 8,
    "gan_size": 16,
    "gan_width": 4,
    "noise_size": 4,
    "condition_size": 4,
}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits(n_class=3)
    images = np.repeat(np.uint8(found.images[:120] * 15)[..., None], 3, axis=-1)
    labels = found.target[:120].copy()
    labels[60:] = -1
    return images, labels


def in_new_process(source: str, *arguments: object, python: str = sys.executable) -> str:
    process = subprocess.run(
        [python, "-c", source, *map(str, arguments)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


def test_import_costs_no_tensorflow():
    """The limit of .2 s is for an idle machine; that no heavy module comes along holds on any."""
    loaded = in_new_process("import sys, tfhash; dir(tfhash); print(*sys.modules)").split()
    assert not {"tensorflow", "keras", "numpy", "sklearn", "matplotlib"} & set(loaded)


def test_a_saved_encoder_loads_where_only_keras_was_imported(python, digits, tmp_path):
    """But for tfhash.layers, which tells Keras of its classes."""
    images, labels = digits
    hasher = tfhash.AGH(code_length=8, anchors=20).fit(images, labels)
    hasher.encoder.save(tmp_path / "encoder.keras")
    np.save(tmp_path / "images.npy", images[:9].astype(np.float32))
    source = (
        "import sys, numpy, keras, tfhash.layers\n"
        "encoder = keras.models.load_model(sys.argv[1] + '/encoder.keras')\n"
        "numpy.save(sys.argv[1] + '/answer.npy', encoder(numpy.load(sys.argv[1] + '/images.npy')))"
    )
    in_new_process(source, tmp_path, python=python)
    answer = np.load(tmp_path / "answer.npy")
    np.testing.assert_array_equal(answer, hasher.encoder(images[:9].astype(np.float32)))


def test_the_command_module_is_the_function_too(digits):
    """After an import of `python -m tfhash.evaluate`, `tfhash.evaluate(...)` still judges."""
    import tfhash.evaluate as command

    assert command.NAME == "tfhash.evaluate" and callable(tfhash.evaluate)
    bits = np.eye(4, dtype=np.uint8)[[0, 0, 1, 1]]
    packed = code_ops.pack(bits)
    metrics = tfhash.evaluate(packed, packed, [0, 0, 5, 5], [0, 0, 5, 5], code_length=4)
    assert metrics.map[None] == 1.0


def test_evaluate_takes_integers_and_multi_hot_labels():
    """-1 is no class: such an item is relevant to nothing."""
    packed = code_ops.pack(np.array([[0, 0], [0, 1], [1, 1]], np.uint8))
    query = packed[:1]
    by_number = tfhash.evaluate(query, packed, [7], [-1, 7, -1], code_length=2)
    multi_hot = tfhash.evaluate(
        query, packed, np.uint8([[1]]), np.uint8([[0], [1], [0]]), code_length=2
    )
    assert by_number.map[None] == multi_hot.map[None] == 0.5
    with pytest.raises(ValueError, match="the same kind"):
        tfhash.evaluate(query, packed, [7], np.uint8([[0], [1], [0]]), code_length=2)
    with pytest.raises(ValueError, match="float64"):
        tfhash.evaluate(query, packed, [7.0], [-1, 7, -1], code_length=2)


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C at the end of the n-th epoch, of all stages."""

    def __init__(self, number: int):
        super().__init__()
        self.left = number

    def on_epoch_end(self, epoch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_fit_with_a_run_folder_goes_on_bit_for_bit(digits, tmp_path, capsys):
    """Two epochs of stage 1 and three of stage 2; interrupted in the second of stage 2.

    The learning rate falls, and which images are real changes, before and after that.
    """
    images, labels = digits
    settings = {name: value for name, value in SMALL.items() if name != "condition_size"}
    settings |= {"discriminator_dropout": 0.5, "dropout": 0.5, "hidden_units": 8}
    settings |= {"real_fraction": 0.5, "hash_learning_rate": 0.001, "hash_decay_steps": 3}
    whole = tfhash.DSHGAN(**settings).fit(images, labels, run_dir=tmp_path / "whole")
    hasher = tfhash.DSHGAN(**settings)
    with pytest.raises(KeyboardInterrupt):
        hasher.fit(images, labels, run_dir=tmp_path / "cut", callbacks=[Interrupt(4)])
    again = tfhash.DSHGAN(**settings).fit(images, labels, run_dir=tmp_path / "cut")
    assert "from step 2 on" in capsys.readouterr().out
    np.testing.assert_array_equal(again.embed(images), whole.embed(images))
    loaded = tfhash.load(tmp_path / "cut")
    np.testing.assert_array_equal(loaded.encode(images), whole.encode(images))
    terms = whole.history["hash"]
    assert set(whole.history) == {"gan", "hash"} and len(terms["triplet"]) == 3
    assert len(again.history["hash"]["triplet"]) == 2  # of what this process did
    assert list((tmp_path / "whole" / "logs" / "hash").iterdir())


class Stop(keras.callbacks.Callback):
    """Ends a stage after its first epoch, as EarlyStopping does."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_a_callback_may_end_a_stage(digits):
    """Two epochs of stage 1 and three of stage 2, the last one shorter; of each one is left."""
    settings = SMALL | {"steps": 5, "checkpoint_every": 2}
    hasher = tfhash.SSGAH(**settings).fit(*digits, callbacks=[Stop()])
    assert {stage: len(terms["kl"]) for stage, terms in hasher.history.items()} == {
        "gan": 1, "hash": 1
    }  # fmt: skip


def test_a_run_folder_of_other_settings_or_images_is_refused(digits, tmp_path):
    images, labels = digits
    tfhash.ITQ(code_length=8).fit(images, run_dir=tmp_path)
    with pytest.raises(tfhash.UserError, match="`code_length`: 16, but .* was made with 8"):
        tfhash.ITQ(code_length=16).fit(images, run_dir=tmp_path)
    with pytest.raises(tfhash.UserError, match="`images`: .*was made with"):
        tfhash.ITQ(code_length=8).fit(images[:-1], run_dir=tmp_path)
    with pytest.raises(tfhash.UserError, match="`seed`: 1"):
        tfhash.ITQ(code_length=8, seed=1).fit(images, run_dir=tmp_path)


def test_a_mistake_does_not_take_the_run_folder(digits, tmp_path):
    """Nothing was learned there, so other settings and images may follow."""
    images, labels = digits
    with pytest.raises(tfhash.UserError, match="sdh"):
        tfhash.SDH(code_length=8).fit(images, run_dir=tmp_path)
    hasher = tfhash.SDH(code_length=16).fit(images, labels, run_dir=tmp_path)
    assert tfhash.load(tmp_path).code_length == hasher.code_length == 16


def test_validation_and_unlabelled_images_reach_the_training(digits):
    images, labels = digits
    hasher = tfhash.SSGAH(**{**SMALL, "variant": "baseline"})
    hasher.fit(
        images[:40], labels[:40], unlabelled=images[60:], validation=(images[40:60], labels[40:60])
    )
    history = hasher.history["hash"]
    assert len(history["validation_map"]) == 3 and 0 <= min(history["validation_map"])


def test_a_list_of_paths_is_as_good_as_pixels(digits, tmp_path):
    images, labels = digits
    paths = [tmp_path / f"{row:03d}.png" for row in range(30)]
    for path, image in zip(paths, images, strict=False):
        path.write_bytes(tf.io.encode_png(image).numpy())
    of_paths = tfhash.LSH(code_length=8, image_size=8).fit(paths, labels[:30])
    of_pixels = tfhash.LSH(code_length=8).fit(images[:30], labels[:30])
    expected = of_pixels.encode(images[:30])
    np.testing.assert_array_equal(of_paths.encode([str(path) for path in paths]), expected)


def test_a_run_folder_of_the_command_loads(command, digits, tmp_path):
    from tfhash import train

    status, *_ = command(train, "--method=lsh", "--code_length=8", f"--model_dir={tmp_path}")
    assert status == 0
    hasher = tfhash.load(tmp_path)
    assert type(hasher) is tfhash.LSH
    assert hasher.encode(digits[0]).shape == (120, 1)


def test_load_says_what_it_takes(tmp_path):
    with pytest.raises(tfhash.UserError, match="no finished run in"):
        tfhash.load(tmp_path)
    (tmp_path / "hasher.json").write_text("[]")
    with pytest.raises(tfhash.UserError, match="hasher.json .*what save has written"):
        tfhash.load(tmp_path)


def test_there_is_no_other_name():
    with pytest.raises(AttributeError, match="no attribute 'SGAH'"):
        tfhash.SGAH  # noqa: B018


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["python_api.py", str(tmp_path)])
    runpy.run_path(str(REPOSITORY / "examples" / "python_api.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert "mAP 0.8" in output and (tmp_path / "export" / "1" / "saved_model.pb").is_file()
