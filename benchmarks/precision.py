"""What `--mixed_bfloat16` is worth here: milliseconds an image of a network, in turn with float32.

    python benchmarks/precision.py [--network=efficientnet_lite0] [--side=128] [--batch=48]

A training step is forward and backward through all layers and the update of their weights (AdamW);
"forward" is what features and codes cost. Weights and images are random. The median of several.
TF_ENABLE_ONEDNN_OPTS=0 in the environment tells what both take without oneDNN.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

import tfhash  # noqa: F401 - before TensorFlow, as in a command: it turns oneDNN on

# isort: split
import keras
import tensorflow as tf

from tfhash.networks import backbones
from tfhash.training.strategies import precision

POLICIES = ("float32", "mixed_bfloat16")


def functions(network: str, side: int, policy: str) -> dict[str, Callable[[tf.Tensor], tf.Tensor]]:
    """By its name in the table, what is timed: each takes float32 images [N, side, side, 3]."""
    with precision(policy):
        model = backbones.build(network, input_size=side)
    optimizer = keras.optimizers.AdamW(1e-5)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.cast(model(images, training=False), tf.float32)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    @tf.function
    def forward(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    return {"training step": step, "forward": forward}


def milliseconds(calls: Sequence[Callable[[], tf.Tensor]], repeats: int) -> list[float]:
    """The median time of each call, all of them in turn."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call().numpy()  # compiles
    for _ in range(repeats):
        for call, of_call in zip(calls, times, strict=True):
            start = time.perf_counter()
            call().numpy()
            of_call.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(of_call) for of_call in times]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="efficientnet_lite0", choices=backbones.names())
    parser.add_argument("--side", type=int, default=128, help="pixels a side")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--policies", nargs="+", default=POLICIES, choices=POLICIES)
    options = parser.parse_args(argv)
    images = tf.random.uniform((options.batch, options.side, options.side, 3), 0, 255)
    of_policy = [functions(options.network, options.side, policy) for policy in options.policies]
    size = f"{options.network}, {options.side} px, batches of {options.batch}"
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "as TensorFlow has it")
    print(f"{size}, TF_ENABLE_ONEDNN_OPTS={onednn}: ms an image\n")
    columns = " | ".join("--:" for _ in of_policy)
    print(f"| | {' | '.join(options.policies)} |\n| --- | {columns} |")
    for name in of_policy[0]:
        calls = [lambda of=of[name]: of(images) for of in of_policy]
        times = [each / options.batch for each in milliseconds(calls, options.repeats)]
        print(f"| {name} | {' | '.join(f'{each:.2f}' for each in times)} |", flush=True)


if __name__ == "__main__":
    main()
