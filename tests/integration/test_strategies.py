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

two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
make_strategy = deep.make_strategy
deep.make_strategy = lambda name: two if name == "mirrored" else make_strategy(name)
history = {}
class Record(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        history[name, strategy].append({k: float(v) for k, v in logs.items()})
fit = deep.Stage.fit
def recorded(self, *args, callbacks, **options):
    return fit(self, *args, callbacks=[Record(), *callbacks], **options)
deep.Stage.fit = recorded
image_set, parts = experiment.load_data(experiment.Experiment())
wanted = dict(gan_steps=3, gan_size=16, gan_width=8, noise_size=8, hash_learning_rate=0.05,
              anchors=100, slice_units=4)
for name in sys.argv[2:]:
    method = methods.get(name)
    has = fields_of(method.Config)
    config = method.Config(**{field: value for field, value in wanted.items() if field in has})
    for strategy in ("one_device", "mirrored"):
        tf.config.run_functions_eagerly(strategy == "one_device")  # saves the time of a graph
        history[name, strategy] = []
        settings = DeepSettings(steps=3, batch_size=16, unlabelled_batch_size=8, groups=2,
                                checkpoint_every=3, strategy=strategy, backbone="small_cnn",
                                clip_norm=0.1, trunk_rate=0.5, standardise_features=True)
        keras.utils.set_random_seed(0)
        hasher = method.of(config, settings, code_length=12, image_size=16, seed=0)
        hasher.learn(image_set, parts, Run(Path(sys.argv[1]) / name / strategy))
        keras.backend.clear_session()
print("HISTORY" + json.dumps([[*key, steps] for key, steps in history.items()]))
"""
# SSDH draws neighbours for each replica; its own tests compare that with a group by group mean.
DEEP = [
    name
    for name in methods.names()
    if issubclass(methods.get(name), deep.HashNetworkHasher) and name != "ssdh"
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each deep method tells of each step: by its name and the strategy."""
    directory = tmp_path_factory.mktemp("strategies")
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(directory), *DEEP],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    (line,) = (row for row in process.stdout.splitlines() if row.startswith("HISTORY"))
    rows = json.loads(line.removeprefix("HISTORY"))
    return {(method, strategy): steps for method, strategy, steps in rows}


@pytest.mark.parametrize("method", DEEP)
def test_two_replicas_get_the_losses_of_one_device(told, method):
    """All stages, step by step, batch normalisation, Adam and what a stage keeps of images."""
    one, two = (told[method, strategy] for strategy in ("one_device", "mirrored"))
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
