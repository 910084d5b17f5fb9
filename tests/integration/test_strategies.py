"""The same losses on one device and on two, for the same global batch."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tfhash import methods
from tfhash.hashers import deep
from tfhash.hashers.gan import GANHasher

# One MirroredStrategy a process, and logical devices are to be set before TensorFlow starts.
SCRIPT = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
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
from tfhash.training.run import Run

strategy, directory = sys.argv[1:]
if strategy == "mirrored":
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    deep.make_strategy = lambda name: two
history = []
class Record(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        history[-1][1].append({k: float(v) for k, v in logs.items()})
fit = deep.Stage.fit
def recorded(self, *args, callbacks, **options):
    return fit(self, *args, callbacks=[Record(), *callbacks], **options)
deep.Stage.fit = recorded
image_set, parts = experiment.load_data(experiment.Experiment())
wanted = dict(gan_steps=3, gan_size=16, gan_width=8, noise_size=8, hash_learning_rate=0.05,
              anchors=100, slice_units=4)
settings = DeepSettings(steps=3, batch_size=16, unlabelled_batch_size=8, groups=2,
                        checkpoint_every=3, strategy=strategy, backbone="small_cnn")
for name in methods.names():
    method = methods.get(name)
    if not issubclass(method, deep.HashNetworkHasher):
        continue
    history.append((name, []))
    has = fields_of(method.Config)
    config = method.Config(**{field: value for field, value in wanted.items() if field in has})
    keras.utils.set_random_seed(0)
    hasher = method.of(config, settings, code_length=12, image_size=16, seed=0)
    hasher.learn(image_set, parts, Run(Path(directory) / name))
print("HISTORY" + json.dumps(dict(history)))
"""
# SSDH draws neighbours for each replica; its own tests compare that with a group by group mean.
DEEP = [
    name
    for name in methods.names()
    if issubclass(methods.get(name), deep.HashNetworkHasher) and name != "ssdh"
]


def losses(directory, strategy):
    """What each deep method tells of each step, under a strategy."""
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, strategy, str(directory / strategy)],
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    (line,) = (row for row in process.stdout.splitlines() if row.startswith("HISTORY"))
    return json.loads(line.removeprefix("HISTORY"))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    directory = tmp_path_factory.mktemp("strategies")
    return [losses(directory, strategy) for strategy in ("one_device", "mirrored")]


@pytest.mark.parametrize("method", DEEP)
def test_two_replicas_get_the_losses_of_one_device(told, method):
    """All stages, step by step, batch normalisation, Adam and what a stage keeps of images."""
    one, two = (of_strategy[method] for of_strategy in told)
    assert len(one) == len(two) == (6 if issubclass(methods.get(method), GANHasher) else 3)
    for step, (single, mirrored) in enumerate(zip(one, two, strict=True)):
        assert single.keys() == mirrored.keys()
        for term, value in single.items():
            # bit_balance is of the bits of one replica's images, not a mean over images.
            if term != "bit_balance":
                assert abs(value - mirrored[term]) <= 1e-3 * max(abs(value), 0.1), (step, term)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_two_workers_train_one_model(tmp_path):
    """Two processes of two steps: both end, and the first one alone writes."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    flags = """--strategy=multi_worker --groups=2 --steps=2 --checkpoint_every=2 --batch_size=8
        --unlabelled_batch_size=4 --ssgah.variant=baseline --code_length=12""".split()
    processes = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        command = [sys.executable, "-m", "tfhash.train", *flags, f"--model_dir={tmp_path}"]
        environment = os.environ | {"TF_CONFIG": json.dumps(task)}
        with open(tmp_path / f"worker{index}.log", "w") as log:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    try:
        for index, process in enumerate(processes):
            status = process.wait(timeout=300)
            log = (tmp_path / f"worker{index}.log").read_text()
            assert status == 0, log[-3000:]
            assert ("run folder:" in log) == (index == 0)
    finally:
        for process in processes:
            process.kill()
    assert (tmp_path / "metrics.json").is_file()
