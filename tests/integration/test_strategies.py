"""The same losses on one device, on two and in two processes, for the same global batch."""

import json
import os
import subprocess
from typing import NamedTuple

import numpy as np
import pytest

from tfhash import methods
from tfhash.hashers import deep
from tfhash.hashers.gan import GANHasher

# One strategy of several replicas a process, and logical devices are to be set before TensorFlow
# starts. FOLDER STRATEGIES METHODS -> what each stage tells of each step, and the codes of one.
SCRIPT = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
folder, (strategies, names) = sys.argv[1], (argument.split(",") for argument in sys.argv[2:])
if "mirrored" in strategies:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import json
from pathlib import Path
import keras
from tfhash import methods
from tfhash.hashers import deep
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.runs import experiment
from tfhash.settings import fields_of
from tfhash.training import strategies as known, workers
from tfhash.training.run import Run

if "mirrored" in strategies:
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    known._mirrored = lambda: two
is_first = True
if "multi_worker" in strategies:
    known.start_strategy("multi_worker", 300)
    is_first = workers.read_cluster(os.environ["TF_CONFIG"]).is_first
history, codes = {}, {}
class Record(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        history[name, strategy].append({k: float(v) for k, v in logs.items()})
fit = deep.Stage.fit
def recorded(self, *args, callbacks, **options):
    return fit(self, *args, callbacks=[Record(), *callbacks], **options)
deep.Stage.fit = recorded
image_set, parts = experiment.load_data(experiment.Experiment(validation_fraction=0))
wanted = dict(gan_steps=3, gan_size=16, gan_width=8, noise_size=8, hash_learning_rate=0.05,
              anchors=100, slice_units=4)
trunk = dict(gan_space="trunk", stage0_steps=3)
for name in names:
    method = methods.get(name.removesuffix("+trunk"))
    has = fields_of(method.Config)
    config = {field: value for field, value in wanted.items() if field in has}
    config = method.Config(**config, **trunk if name.endswith("+trunk") else {})
    for strategy in strategies:
        if name.endswith("+trunk") and strategy == "mirrored":
            continue
        tf.config.run_functions_eagerly(strategy == "one_device")  # saves the time of a graph
        history[name, strategy] = []
        settings = DeepSettings(steps=3, batch_size=16, unlabelled_batch_size=8, groups=2,
                                checkpoint_every=3, strategy=strategy, backbone="small_cnn",
                                clip_norm=0.1, trunk_rate=0.5, standardise_features=True)
        keras.utils.set_random_seed(0)
        hasher = method.of(config, settings, code_length=12, image_size=16, seed=0)
        hasher.learn(image_set, parts, Run(Path(folder) / name / strategy, is_first))
        if name == "dpsh":
            codes[strategy] = hasher.encode_set(image_set).tolist()
        keras.backend.clear_session()
print("TOLD" + json.dumps([[[*key, steps] for key, steps in history.items()], codes]))
"""
# SSDH draws neighbours for each replica; its own tests compare that with a group by group mean.
DEEP = [
    name
    for name in methods.names()
    if issubclass(methods.get(name), deep.HashNetworkHasher) and name != "ssdh"
]


# One that keeps something of each image, and the two with G and D; one of these in three stages.
# What a strategy divides, the others have in common with one of them: their turn is at night.
OFTEN = ("dpsh", "dsh_gan", "ssgah", "ssgah+trunk")
STAGES = {name: 2 if issubclass(methods.get(name), GANHasher) else 1 for name in DEEP}
STAGES["ssgah+trunk"] = 3
OF_WORKERS = [*(name for name in DEEP if name != "ssgah"), "ssgah+trunk"]


def asked_for(names) -> list[str]:
    """Of these methods those that train now."""
    return [name for name in names if name in OFTEN or os.environ.get("TFHASH_LONG") == "1"]


def marked(names) -> list:
    """The same as parameters of a test."""
    long = pytest.mark.long
    return [name if name in OFTEN else pytest.param(name, marks=long) for name in names]


class Told(NamedTuple):
    """What a process tells: of each step, by method and strategy; the codes by strategy."""

    steps: dict[tuple[str, str], list[dict[str, float]]]
    codes: dict[str, list]


def start(python, directory, strategies, names, tf_config="") -> subprocess.Popen:
    """SCRIPT in a process; its output goes into two files of the folder."""
    directory.mkdir()
    with open(directory / "output", "w") as output, open(directory / "errors", "w") as errors:
        return subprocess.Popen(
            [python, "-c", SCRIPT, str(directory), strategies, ",".join(names)],
            stdout=output,
            stderr=errors,
            env=os.environ | ({"TF_CONFIG": tf_config} if tf_config else {}),
        )


def ended(process, directory) -> Told:
    assert process.wait(timeout=900) == 0, (directory / "errors").read_text()[-3000:]
    output = (directory / "output").read_text().splitlines()
    (line,) = (row for row in output if row.startswith("TOLD"))
    rows, codes = json.loads(line.removeprefix("TOLD"))
    return Told({(method, strategy): steps for method, strategy, steps in rows}, codes)


@pytest.fixture(scope="module")
def told(python, tmp_path_factory) -> Told:
    """What each deep method tells on one device and on two."""
    directory = tmp_path_factory.mktemp("strategies") / "one"
    process = start(python, directory, "one_device,mirrored", asked_for([*DEEP, "ssgah+trunk"]))
    return ended(process, directory)


@pytest.fixture(scope="module")
def of_workers(python, tmp_path_factory, free_ports) -> list[Told]:
    """What each of two processes tells that train together, of one deep method after the other."""
    directory = tmp_path_factory.mktemp("workers")
    folders = [directory / str(index) for index in range(2)]
    configs = tf_configs(free_ports(2))
    names = asked_for(OF_WORKERS)
    processes = [start(python, folders[i], "multi_worker", names, configs[i]) for i in range(2)]
    try:
        return [ended(processes[i], folders[i]) for i in range(2)]
    finally:
        for process in processes:
            process.kill()


def tf_configs(ports) -> list[str]:
    """TF_CONFIG of each of the workers that listen on these ports of this machine."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        for index in range(len(ports))
    ]


def check_equal(one: list[dict], two: list[dict], stages: int) -> None:
    """All stages, step by step."""
    assert len(one) == len(two) == 3 * stages
    for step, (single, other) in enumerate(zip(one, two, strict=True)):
        assert single.keys() == other.keys()
        for term, value in single.items():
            # bit_balance is of the bits of one replica's images, not a mean over images.
            if term != "bit_balance":
                assert abs(value - other[term]) <= 1e-3 * max(abs(value), 0.1), (step, term)


@pytest.mark.parametrize("name", marked(DEEP))
def test_two_replicas_get_the_losses_of_one_device(told, name):
    """All stages, step by step, batch normalisation, Adam and what a stage keeps of images."""
    check_equal(told.steps[name, "one_device"], told.steps[name, "mirrored"], STAGES[name])


@pytest.mark.parametrize("name", marked(OF_WORKERS))
def test_two_workers_get_the_losses_of_one_device(told, of_workers, name):
    """The same of two processes, which both know what all of them found."""
    first, second = (worker.steps[name, "multi_worker"] for worker in of_workers)
    assert first == second
    check_equal(told.steps[name, "one_device"], first, STAGES[name])


def test_workers_encode_what_one_device_encodes(told, of_workers):
    """Images are divided among them; all of 12 bits but those that rounding turns."""
    first, second = (np.uint8(worker.codes["multi_worker"]) for worker in of_workers)
    one = np.uint8(told.codes["one_device"])
    assert np.array_equal(first, second) and first.shape == one.shape == (1797, 2)
    assert len(np.unique(one, axis=0)) > 10
    assert np.unpackbits(first ^ one).mean() < 0.01


def test_the_first_worker_alone_writes(of_workers, tmp_path_factory):
    first, second = (tmp_path_factory.getbasetemp() / "workers0" / str(i) for i in range(2))
    written = {path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()}
    assert "ssgah+trunk/multi_worker/checkpoints/gan-00000003.weights.h5" in written
    assert any(name.startswith("dpsh/multi_worker/logs/hash/") for name in written)
    assert {path.name for path in second.iterdir()} == {"output", "errors"}
