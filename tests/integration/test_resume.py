"""Kill -9, the same command again: the weights of an uninterrupted run, bit for bit."""

import json
import os
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest

from tfhash import train

FLAGS = """
--code_length=12
--steps=28
--checkpoint_every=4
--batch_size=16
--unlabelled_batch_size=8
--METHOD.gan_steps=16
--METHOD.gan_size=16
--METHOD.gan_width=8
--METHOD.noise_size=8
--METHOD.hidden_units=16
--METHOD.dropout=0.5
"""
METHODS = {
    "ssgah": """
        --ssgah.condition_size=8
        --ssgah.hash_optimizer=adamw
        --ssgah.hash_learning_rate=0.001
        --ssgah.hash_schedule=cosine""",
    # The learning rate falls, and which images are real changes, before and after the kill.
    "dsh_gan": """
        --method=dsh_gan
        --dsh_gan.discriminator_dropout=0.5
        --dsh_gan.real_fraction=0.5
        --dsh_gan.hash_learning_rate=0.001
        --dsh_gan.hash_decay_steps=16""",
}


def flags(directory, method="ssgah"):
    of_method = (FLAGS.replace("METHOD", method) + METHODS[method]).split()
    return [*of_method, f"--model_dir={directory}"]


def start(python, directory, method):
    """A process of its own, to be killed; all else is as good in this one, and sooner."""
    command = [python, "-m", "tfhash.train", *flags(directory, method)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_once_there(process, path, seconds=200):
    deadline = time.monotonic() + seconds
    while not path.is_file():
        assert process.poll() is None, process.stderr.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def arrays(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


@pytest.fixture(scope="module")
def uninterrupted(command, tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    ended = command(train, *flags(directory))
    assert ended.status == 0, ended
    return directory


@pytest.mark.parametrize("method", ["ssgah", pytest.param("dsh_gan", marks=pytest.mark.long)])
def test_killed_in_both_stages_it_ends_with_the_same_weights(
    method, command, python, tmp_path, request
):
    if method == "ssgah":
        uninterrupted = request.getfixturevalue("uninterrupted")
    else:
        uninterrupted = tmp_path / "uninterrupted"
        assert command(train, *flags(uninterrupted, method)).status == 0
    tmp_path /= "killed"
    checkpoints = tmp_path / "checkpoints"
    kill_once_there(start(python, tmp_path, method), checkpoints / "gan-00000008.weights.h5")
    assert not (checkpoints / "gan-00000016.weights.h5").exists()
    kill_once_there(start(python, tmp_path, method), checkpoints / "hash-00000012.weights.h5")
    assert not (checkpoints / "hash-00000028.weights.h5").exists()
    ended = command(train, *flags(tmp_path, method))
    assert ended.status == 0, ended
    assert "stage 2 of 2 (hash network): 28 updates, from step " in ended.output
    assert "stage 1 of 2" not in ended.output
    for name in ("gan-00000016.weights.h5", "hash-00000028.weights.h5", "encoder.weights.h5"):
        expected, found = (arrays(d / "checkpoints" / name) for d in (uninterrupted, tmp_path))
        assert expected.keys() == found.keys() and len(expected) > 4
        for key, array in expected.items():
            np.testing.assert_array_equal(array, found[key], err_msg=f"{name} {key}")
    runs = (uninterrupted, tmp_path)
    before, after = (json.loads((d / "metrics.json").read_text()) for d in runs)
    different = {key for key in before if before[key] != after[key]}
    assert different <= {"command", "train_seconds", "stage1_seconds", "stage2_seconds"}


def test_a_finished_run_is_not_trained_again(uninterrupted, command):
    ended = command(train, *flags(uninterrupted))
    assert (ended.status, ended.errors) == (0, "")
    assert "stage" not in ended.output
    assert "mAP" in ended.output


def test_a_folder_of_other_flags_is_refused(uninterrupted, command):
    line = command(train, *flags(uninterrupted), "--code_length=16").line(train.NAME)
    assert line.startswith("tfhash.train: error: --code_length: 16") and "12" in line


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(command, tmp_path):
    ended = command(train, *flags(tmp_path), "--ssgah.variant=baseline",
                    "--ssgah.hash_optimizer=sgd", "--ssgah.hash_learning_rate=1e38")  # fmt: skip
    assert ended.status == 1
    last = ended.errors.strip().splitlines()[-1]
    assert "nan" in last.lower() or "inf" in last.lower()
    assert f"is kept in {tmp_path}/checkpoints. " in last
    assert last.endswith("may help, in another --model_dir")
    assert "Traceback" not in ended.errors
    (kept,) = (tmp_path / "checkpoints").glob("hash-*.weights.h5")
    assert all(np.isfinite(a).all() for a in arrays(kept).values())


def test_nan_in_a_kept_stage_names_its_folder(command, tmp_path):
    """With another rate neither the run's folder nor that of the stage would be taken."""
    kept = tmp_path / "stage0"
    ended = command(train, *flags(tmp_path / "run"), "--ssgah.variant=baseline",
                    "--ssgah.stage0_steps=8", f"--ssgah.stage0_dir={kept}",
                    "--ssgah.hash_optimizer=sgd", "--ssgah.stage0_learning_rate=1e38")  # fmt: skip
    assert ended.status == 1
    last = ended.errors.strip().splitlines()[-1]
    assert f"is kept in {kept}. " in last
    assert last.endswith("may help, in another --model_dir and --ssgah.stage0_dir")
