"""Mistakes of a user: one line that names the flag, what came and what is allowed; status 2."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import train
from tfhash.export import __main__ as export

# Keras says this of a weights file of another network, before it refuses it.
pytestmark = pytest.mark.filterwarnings("ignore:Skipping nested container")

IMAGES_A_CLASS = 8


def write_images(root: Path, *classes: str, count: int = IMAGES_A_CLASS) -> None:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Data and weights, each with its flaw; the names below that begin with @ stand here."""
    root = tmp_path_factory.mktemp("files")
    (root / "labels.csv").write_text("path,labels\ncat/0.png,sea;sky\ncat/1.png,sky\n")
    (root / "two.csv").write_text("path,labels\ncat/0.png,sea\ncat/0.png,sky\n")
    (root / "outside.csv").write_text("path,labels\n../cat/0.png,sea\n")
    (root / "missing.csv").write_text("path,labels\ncat/0.png,sea\ncat/9.png,sky\n")
    (root / "triplet.csv").write_text("cat/0.png,cat/1.png,cat/2.png\n")
    two = ["cat/0.png,cat/1.png,cat/2.png", "cat/3.png,cat/4.png,cat/5.png"]
    (root / "two_triplets.csv").write_text("\n".join(two) + "\n")
    write_images(root / "one_class", "cat")
    write_images(root / "two_classes", "cat", "dog")
    write_images(root / "unreadable", "cat", "dog")
    (root / "unreadable" / "dog" / "broken.png").write_bytes(b"this is no image" * 4)
    np.savez(root / "other_shapes.npz", **{"conv1/kernel": np.zeros((3, 3, 3, 7))})
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    other.save_weights(root / "other.weights.h5")
    (root / "a_file").touch()
    return root


FOLDER = "--dataset=folder --image_size=16 --queries_per_class=2 --labelled_per_class=3"

CSV = "--dataset=csv --data_dir=@one_class"
TRIPLETS = "--dataset=images --data_dir=@one_class --protocol=triplets"
TWO_CLASSES = f"{FOLDER} --data_dir=@two_classes"

MISTAKES = [
    # Unknown names
    ("--method=nosuch", "--method 'nosuch' ssgah"),
    ("--dataset=nosuch", "--dataset=nosuch digits cifar10 folder"),
    ("--protocol=nosuch", "--protocol 'nosuch' per_class unseen_classes triplets"),
    ("--backbone=nosuch", "--backbone 'nosuch' alexnet squeezenet small_cnn vgg19"),
    ("--feature_layers=conv3,nosuch", "--feature_layers 'nosuch' conv3"),
    ("--frozen_through=nosuch", "--frozen_through 'nosuch' all conv3"),
    ("--method=rbm --rbm.batch_size=0", "--rbm.batch_size: 0"),  # --batch_size is of other methods
    ("--strategy=foo", "--strategy 'foo' one_device mirrored multi_worker"),
    ("--triplets=foo", "--triplets 'foo' in_batch sampled"),
    ("--ties=foo", "--ties 'foo' expected stable best worst"),
    ("--ssgah.variant=foo", "--ssgah.variant 'foo' ssgah w_ssr w_ar baseline"),
    ("--nosuchflag=1", "nosuchflag Unknown"),
    ("stray", "'stray' --flag"),
    ("--flagfile=@missing", "flagfile @missing"),
    # Data
    ("--dataset=cifar10", "--data_dir cifar10"),
    ("--dataset=cifar10 --data_dir=@missing", "--data_dir=@missing cifar10"),
    ("--dataset=folder", "--data_dir missing"),
    (f"{FOLDER} --data_dir=@missing", "--data_dir=@missing folder"),
    (f"{FOLDER} --data_dir=@one_class", "--data_dir=@one_class one two"),
    (f"{FOLDER} --data_dir=@unreadable",
     "--data_dir=@unreadable 1 17 dog/broken.png --unreadable=skip"),
    (f"{FOLDER} --data_dir=@unreadable --unreadable=maybe", "--unreadable 'maybe' refuse skip"),
    (f"{FOLDER} --data_dir=@unreadable --unreadable=skip --queries_per_class=6",
     "'cat' 8 9 --queries_per_class --labelled_per_class"),
    ("--triplets_csv=@missing", "--triplets_csv @missing"),
    ("--dataset=csv --data_dir=@one_class", "--labels_csv missing --dataset=csv"),
    ("--dataset=csv --labels_csv=@labels.csv", "--data_dir missing --features=bow"),
    ("--labels_csv=@labels.csv", "--labels_csv=@labels.csv --dataset=csv digits"),
    (f"{CSV} --labels_csv=@nosuch.csv", "--labels_csv @nosuch.csv"),
    (f"{CSV} --labels_csv=@triplet.csv", "--labels_csv @triplet.csv path labels"),
    (f"{CSV} --labels_csv=@two.csv", "--labels_csv @two.csv line 3 cat/0.png twice one"),
    (f"{CSV} --labels_csv=@outside.csv", "--labels_csv @outside.csv line 2 cat/0.png --data_dir"),
    (f"{CSV} --labels_csv=@missing.csv",
     "--labels_csv @missing.csv 1 2 cat/9.png --unreadable=skip"),
    (f"{CSV} --labels_csv=@labels.csv", "csv 'sea' 1 images 30 --labelled_per_class"),
    ("--dataset=images", "--data_dir missing --dataset=images"),
    ("--dataset=images --data_dir=@one_class", "--protocol=per_class no classes triplets"),
    (TRIPLETS, "--triplets_csv missing --protocol=triplets"),
    (f"{TRIPLETS} --triplets_csv=@triplet.csv", "--triplets_csv 1 --held_out_fraction"),
    (f"{TRIPLETS} --triplets_csv=@triplet.csv --held_out_fraction=1", "--held_out_fraction 1.0 0"),
    (f"{TRIPLETS} --triplets_csv=@two_triplets.csv --held_out_fraction=.5 --method=dsh_gan",
     "--method=dsh_gan labels --protocol=triplets"),
    (f"{TWO_CLASSES} --triplets_csv=@two_triplets.csv --method=dsh_gan",
     "--triplets_csv --method=dsh_gan"),
    # Weights
    ("--weights=@missing.npz", "--weights @missing.npz"),
    ("--weights=@a_file", "--weights @a_file .npz .npy .h5"),
    ("--weights=@other_shapes.npz", "--weights conv1/kernel (3,3,3,7) (3,3,3,32)"),
    ("--weights=@other.weights.h5", "--weights @other.weights.h5"),
    ("--weights=imagenet", "--weights 'imagenet' small_cnn"),
    ("--ssgah.space=features", "--weights features"),
    # Numbers
    ("--code_length=0", "--code_length 0 1"),
    ("--steps=0", "--steps 0 1"),
    ("--steps=many", "steps=many"),
    ("--batch_size=0", "--batch_size 0 1"),
    ("--batch_size=2", "--batch_size 2 3 triplet"),
    ("--batch_size=4 --groups=2", "--batch_size 2 --groups 3 triplet"),
    ("--groups=3 --batch_size=64", "--batch_size 64 --groups=3"),
    ("--unlabelled_batch_size=-64", "--unlabelled_batch_size -64 0"),
    ("--shift=-1", "--shift -1 0"),
    ("--seed=-1", "--seed -1 0"),
    ("--seed=5000000000", "--seed 5000000000 1000000000"),
    ("--split_seed=-1", "--split_seed -1 0"),
    ("--radius=-1", "--radius -1 0"),
    ("--map_at=50,0", "--map_at 0 1"),
    ("--precision_at=x", "--precision_at x ints"),
    ("--validation_fraction=0.9", "--validation_fraction 0.9 0.5"),
    ("--labelled_per_class=1 --validation_fraction=0 --ssgah.variant=baseline",
     "--labelled_per_class 10 two one"),
    ("--ssgah.gan_size=20", "--ssgah.gan_size 20 16 32 64"),
    ("--method=dsh_gan --dsh_gan.gan_size=20", "--dsh_gan.gan_size 20 16 32 64"),
    ("--method=dsh_gan --dsh_gan.real_fraction=1.5", "--dsh_gan.real_fraction 1.5 0 1"),
    ("--method=dsh_gan --dsh_gan.real_fraction=-0.5", "--dsh_gan.real_fraction -0.5 0"),
    ("--method=dsh_gan --dsh_gan.hash_schedule=x",
     "--dsh_gan.hash_schedule 'x' constant cosine step"),
    ("--method=dsh_gan --dsh_gan.hash_decay_steps=0", "--dsh_gan.hash_decay_steps 0 1"),
    ("--xla --strategy=mirrored", "--xla --strategy=mirrored one_device"),
    # The run folder
    ("--model_dir=@a_file/run", "--model_dir @a_file/run"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_trained(command, files, tmp_path, arguments, words):
    arguments, words = (text.replace("@", f"{files}/").split() for text in (arguments, words))
    line = command(train, f"--model_dir={tmp_path}/run", *arguments).line(train.NAME)
    message = line.replace(", ", ",")
    whole = (rf"(?<!\w){re.escape(word)}(?!\w)" for word in words)
    assert [word for word in whole if not re.search(word, message)] == []
    assert list(tmp_path.glob("run/checkpoints/*.weights.h5")) == []


def test_skipped_images_are_counted_and_the_run_goes_on(command, files, tmp_path):
    """To the next mistake, which comes after the split of the 16 readable images."""
    ended = command(
        train,
        f"--model_dir={tmp_path}",
        *FOLDER.split(),
        f"--data_dir={files}/unreadable",
        "--unreadable=skip",
        "--weights=missing.npz",
    )
    assert "missing.npz" in ended.line(train.NAME)
    assert "1 unreadable files skipped" in ended.output
    assert "4 query, 12 database" in ended.output


def test_a_mistake_can_be_mended_in_the_same_folder(command, tmp_path):
    """The folder belongs to the values of its first run only once something is learned there."""
    folder = f"--model_dir={tmp_path}"
    first = command(train, folder, "--labelled_per_class=1000")
    assert "'0' has 178 images, 1020 are needed" in first.line(train.NAME)
    second = command(train, folder, "--labelled_per_class=10", "--weights=missing.npz")
    assert "missing.npz" in second.line(train.NAME)
    assert "--labelled_per_class=10\n" in (tmp_path / "flags.txt").read_text()


def test_a_run_folder_of_other_flags_is_refused(command, tmp_path):
    folder = f"--model_dir={tmp_path}"
    command(train, folder, "--code_length=16", "--weights=missing.npz").line(train.NAME)
    (tmp_path / "checkpoints").mkdir()
    flags_before = (tmp_path / "flags.txt").read_text()
    ended = command(train, folder, "--code_length=24", "--weights=missing.npz")
    line = ended.line(train.NAME)
    assert f"--code_length: 24, but {tmp_path} was made with 16" in line
    assert (tmp_path / "flags.txt").read_text() == flags_before


SMALL_DSH_GAN = """--method=dsh_gan --image_size=16 --steps=2 --batch_size=6 --checkpoint_every=2
    --unlabelled_batch_size=6 --dsh_gan.gan_steps=2 --dsh_gan.gan_size=16 --dsh_gan.gan_width=4
    --dsh_gan.noise_size=4""".split()


def test_dsh_gan_says_that_there_are_no_unlabelled_images_and_takes_one_image_a_class(
    command, files, tmp_path
):
    """Of 8 images a class 7 are queries, so that one a class is labelled and none is left."""
    arguments = ["--dataset=folder", f"--data_dir={files}/two_classes", "--labelled_per_class=1"]
    arguments += ["--queries_per_class=7", f"--model_dir={tmp_path}", *SMALL_DSH_GAN]
    ended = command(train, *arguments)
    assert ended.status == 0, ended
    assert "14 query, 2 database, 2 labelled, 0 validation, 0 unlabelled" in ended.output
    assert "dsh_gan: no unlabelled images" in ended.output


@pytest.mark.parametrize("module", [evaluate, export], ids=["evaluate", "export"])
@pytest.mark.parametrize("content", [None, "", "[]", "{}"], ids=["missing", "cut", "list", "other"])
def test_a_folder_without_a_finished_run(command, tmp_path, module, content):
    run = tmp_path / "run"
    if content is not None:
        run.mkdir()
        (run / "metrics.json").write_text(content)
    line = command(module, f"--model_dir={run}").line(module.NAME)
    assert f"--model_dir: no finished run in {run}" in line


@pytest.mark.parametrize("module", [evaluate, export], ids=["evaluate", "export"])
def test_a_missing_model_dir_flag(command, module):
    assert "--model_dir" in command(module).line(module.NAME)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("tfhash.train", ["--ties=foo"], "--ties: 'foo'"),
        ("tfhash.export", ["--model_dir=no/such/run"], "no finished run in no/such/run"),
    ],
)
def test_as_a_process_there_is_no_traceback(tmp_path, name, arguments, words):
    process = subprocess.run(
        [sys.executable, "-m", name, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    *_, last = process.stderr.splitlines()  # TensorFlow may have written before
    assert last.startswith(f"{name}: error: ") and words in last
