"""Run folders that are damaged, in use, or on a full disk: one line, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfhash
import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import train
from tfhash.errors import NO_ROOM
from tfhash.export import __main__ as export
from tfhash.training.run import lock

pytestmark = pytest.mark.usefixtures("eagerly")

LSH = ["--method=lsh", "--code_length=16"]
BASELINE = """--ssgah.variant=baseline --code_length=8 --steps=6 --checkpoint_every=2 --batch_size=6
    --labelled_per_class=4 --queries_per_class=3""".split()


def test_weights_that_are_damaged_are_one_line(command, baseline, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(baseline, directory)
    os.truncate(directory / "checkpoints" / "encoder.weights.h5", 3000)
    line = command(export, f"--model_dir={directory}", "--noverify").line(export.NAME)
    assert f"--model_dir: the weights in {directory}/checkpoints are damaged" in line


@pytest.fixture(scope="module")
def baseline(command, tmp_path_factory) -> Path:
    """A finished run with checkpoints of steps 4 and 6."""
    directory = tmp_path_factory.mktemp("baseline") / "run"
    ended = command(train, f"--model_dir={directory}", *BASELINE)
    assert ended.status == 0, ended
    return directory


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    import h5py

    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return found


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_after_a_damaged_checkpoint_the_end_is_that_of_the_undisturbed_run(
    command, baseline, tmp_path, damage
):
    directory = tmp_path / "run"
    shutil.copytree(baseline, directory)
    newest = directory / "checkpoints" / "hash-00000006.weights.h5"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    for name in ("metrics.json", "checkpoints/encoder.weights.h5"):
        (directory / name).unlink()
    ended = command(train, f"--model_dir={directory}", *BASELINE)
    assert ended.status == 0, ended
    assert f"{newest} is damaged" in ended.errors and "from step 4 on" in ended.output
    for name in ("hash-00000006.weights.h5", "encoder.weights.h5"):
        one, other = (arrays_of(d / "checkpoints" / name) for d in (baseline, directory))
        assert one.keys() == other.keys() and len(one) > 4
        for key, array in one.items():
            np.testing.assert_array_equal(array, other[key], err_msg=f"{name} {key}")
    assert newest.with_name(f"{newest.name}.damaged").is_file()


@pytest.mark.parametrize("content", [None, ""])
def test_config_json_that_is_gone_is_one_line(command, baseline, tmp_path, content):
    directory = tmp_path / "run"
    shutil.copytree(baseline, directory)
    (directory / "config.json").unlink()
    if content is not None:
        (directory / "config.json").write_text(content)
    line = command(train, f"--model_dir={directory}", *BASELINE).line(train.NAME)
    assert f"--model_dir: {directory}/config.json tells" in line


SMALL_GAN = """--code_length=8 --steps=1 --batch_size=6 --unlabelled_batch_size=6
    --checkpoint_every=1 --queries_per_class=3 --labelled_per_class=4 --ssgah.gan_steps=1
    --ssgah.gan_size=16 --ssgah.gan_width=2 --ssgah.condition_size=4 --ssgah.noise_size=4""".split()


def test_a_kept_stage_1_is_not_shared_while_it_is_made_and_not_taken_without_its_values(
    command, tmp_path
):
    kept = tmp_path / "stage1"
    arguments = [*SMALL_GAN, f"--ssgah.stage1_dir={kept}"]
    with lock(kept, "stage1_dir"):
        ended = command(train, f"--model_dir={tmp_path}/a", *arguments)
        line = ended.line(train.NAME, status=1)
        assert f"--ssgah.stage1_dir: process {os.getpid()} works in {kept}" in line
    assert command(train, f"--model_dir={tmp_path}/a", *arguments).status == 0
    (kept / "stage1.json").write_text("")
    ended = command(train, f"--model_dir={tmp_path}/b", *arguments)
    assert f"--ssgah.stage1_dir: {kept}/stage1.json tells" in ended.line(train.NAME)


def test_a_run_folder_in_use_is_left_alone(command, tmp_path):
    directory = tmp_path / "run"
    with lock(directory, "model_dir"):
        ended = command(train, f"--model_dir={directory}", *LSH)
        line = ended.line(train.NAME, status=1)
        assert f"--model_dir: process {os.getpid()} works in {directory}" in line
        hasher = tfhash.LSH(code_length=8)
        with pytest.raises(tfhash.UserError, match=f"works in {directory}"):
            hasher.fit(np.zeros((4, 8, 8, 3), np.uint8), [0, 0, 1, 1], run_dir=directory)
        assert [path.name for path in directory.iterdir()] == [".lock"]
    assert command(train, f"--model_dir={directory}", *LSH).status == 0
    with lock(directory, "model_dir"):  # who only reads is not kept out
        assert command(evaluate, f"--model_dir={directory}").status == 0


def on_a_full_disk(*arguments: str) -> str:
    """The one line that `python -m` with these arguments ends in; no file can exceed 16 KiB."""

    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))

    process = subprocess.run(
        [sys.executable, "-m", *arguments],
        preexec_fn=full_disk,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 1, process
    (line,) = process.stderr.splitlines()
    return line


def test_a_training_on_a_full_disk_ends_in_one_line_and_goes_on_later(command, tmp_path):
    """The first checkpoint does not fit."""
    directory = tmp_path / "run"
    assert on_a_full_disk("tfhash.train", f"--model_dir={directory}", *BASELINE) == (
        f"tfhash.train: error: File too large: {directory}/checkpoints/hash-00000000.weights.h5; "
        "what was written before is kept"
    )
    assert list(directory.glob("**/.*.h5")) == []
    assert command(train, f"--model_dir={directory}", *BASELINE).status == 0


def test_an_export_without_room_is_one_line_and_leaves_nothing(lsh_run, tmp_path):
    target = tmp_path / "export"
    arguments = [f"--model_dir={lsh_run}", f"--export_dir={target}", "--noverify"]
    line = on_a_full_disk("tfhash.export", *arguments)
    assert line.startswith(f"tfhash.export: error: --export_dir: cannot write to {target} (")
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("reason", sorted(NO_ROOM))
def test_a_folder_that_cannot_be_written_is_one_line_of_any_export(
    command, lsh_run, tmp_path, monkeypatch, reason
):
    """As of a file system that is full or read-only; the tests may run as root, who may write."""

    def refuse(self, *_, **__):
        raise OSError(reason, os.strerror(reason), os.fspath(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    ended = command(export, f"--model_dir={lsh_run}", f"--export_dir={tmp_path}/x", "--noverify")
    line = ended.line(export.NAME, status=1)
    assert f"--export_dir: cannot write to {tmp_path}/x" in line and os.strerror(reason) in line
