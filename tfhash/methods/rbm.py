"""RBM: Semantic Hashing (Salakhutdinov and Hinton, Int. J. Approximate Reasoning 50, 2009).

Written from memory of the paper. What differs from it: features have Gaussian visible units and a
squared error, where the paper has word counts; fine-tuning is by Adam, with gradients of
TensorFlow's tape, where the paper has conjugate gradients; bits are cut at .5, not near .1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import scipy.special
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.hashers.shallow import FeatureData, FeatureHasher
from tfhash.settings import Configuration, setting

THRESHOLDS = ("half", "median")
_FIRST_DEVIATION = 0.01  # of the first weights of an RBM, which are normal

Layer = tuple[np.ndarray, np.ndarray]  # weights [d, units] and biases [units], float32


@dataclass(frozen=True)
class RBMConfig(Configuration):
    """The hyperparameters; defaults are those that the paper's authors publish for RBMs."""

    hidden_units: tuple[int, ...] = setting(
        (512, 512),
        "units of the layers between the features and the code",
        least=1,
        search=((128, 64), (256, 128), (512, 512)),
        open=True,
    )
    epochs: int = setting(50, "passes over all images, for each RBM", least=1, open=True)
    batch_size: int = setting(100, "images a batch", least=1, open=True)
    visible_learning_rate: float = setting(
        1e-3,
        "learning rate of the first RBM, whose visible units are Gaussian",
        above=0,
        search=(1e-3, 3e-3, 5e-3),
    )
    learning_rate: float = setting(
        0.1, "learning rate of the other RBMs", above=0, search=(0.03, 0.1)
    )
    initial_momentum: float = setting(
        0.5, "momentum in the first epochs of each RBM", least=0, below=1
    )
    initial_epochs: int = setting(5, "epochs under initial_momentum", least=0)
    momentum: float = setting(0.9, "momentum after them", least=0, below=1)
    weight_decay: float = setting(2e-4, "weight decay of the RBMs", least=0)
    finetune_epochs: int = setting(
        50,
        "passes over all images in which the autoencoder is fine-tuned; 0: none",
        least=0,
        search=(0, 20, 50),
        open=True,
    )
    finetune_learning_rate: float = setting(
        1e-3, "learning rate of fine-tuning (Adam)", above=0, open=True
    )
    noise_variance: float = setting(
        16.0,
        "variance of the noise before the code's sigmoid in fine-tuning",
        least=0,
        search=(4.0, 16.0),
    )
    threshold: str = setting(
        "half",
        "half: a bit is 1 where its unit is above .5; median: where it is above its median",
        choices=THRESHOLDS,
    )


def layered_scores(
    features: tf.Tensor, parameters: Mapping[str, tf.Tensor], *, layers: int
) -> tf.Tensor:
    """W_L's(... s(W_1'x + b_1) ...) + b_L, s the sigmoid: float32 [n, F] -> [n, k].

    parameters: weights1 [F, units], bias1 [units], and so on to `layers`.
    """
    for number in range(1, layers):
        features = tf.sigmoid(
            features @ parameters[f"weights{number}"] + parameters[f"bias{number}"]
        )
    return features @ parameters[f"weights{layers}"] + parameters[f"bias{layers}"]


class RBM(FeatureHasher):
    """The code layer of a deep autoencoder of the features, which begins as a stack of RBMs.

    Each RBM learns from what the one below makes of the images. The stack is unrolled, its
    transposed weights as decoder, and all of it learns to restore the features from codes to which
    each image adds noise of its own, so that only activations near 0 and 1 tell anything.
    """

    Config = RBMConfig
    learns_from_labels = False
    config: RBMConfig
    scores = staticmethod(layered_scores)

    def score_options(self) -> dict[str, Any]:
        return {"layers": len(self.config.hidden_units) + 1}

    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        features = data.everything
        if np.ptp(features, axis=0).max() == 0:
            raise UserError("`method`=rbm: all images have the same features")
        encoder, decoder = self._stack(features)
        if self.config.finetune_epochs:
            encoder = self._finetuned(features, encoder, decoder)
        return self._parameters(encoder, features)

    def _stack(self, features: np.ndarray) -> tuple[list[Layer], list[Layer]]:
        """Greedy learning: the layers upwards, and those of the unrolled decoder, downwards."""
        config = self.config
        encoder: list[Layer] = []
        decoder: list[Layer] = []
        visible = features
        for number, units in enumerate((*config.hidden_units, self.code_length)):
            rng = np.random.Generator(np.random.PCG64([self.seed, number]))
            weights, hidden_bias, visible_bias = learn_rbm(
                visible, units, config, gaussian=number == 0, rng=rng
            )
            encoder.append((weights, hidden_bias))
            decoder.insert(0, (weights.T.copy(), visible_bias))
            visible = scipy.special.expit(visible @ weights + hidden_bias)
        return encoder, decoder

    def _finetuned(
        self, features: np.ndarray, encoder: Sequence[Layer], decoder: Sequence[Layer]
    ) -> list[Layer]:
        config = self.config
        noise = fixed_noise(len(features), self.code_length, config.noise_variance, self.seed)
        rng = np.random.Generator(np.random.PCG64([self.seed, 1000]))
        batches = (
            rows
            for _ in range(config.finetune_epochs)
            for rows in shuffled(len(features), config.batch_size, rng)
        )
        rate = config.finetune_learning_rate
        return finetune(features, noise, encoder, decoder, batches, rate)

    def _parameters(self, encoder: Sequence[Layer], features: np.ndarray) -> dict[str, np.ndarray]:
        """The encoder by names, its last bias less the threshold of each bit."""
        layers = dict(enumerate(encoder, start=1))
        parameters = {f"weights{number}": weights for number, (weights, _) in layers.items()}
        parameters |= {f"bias{number}": bias for number, (_, bias) in layers.items()}
        activations = features
        for weights, bias in encoder[:-1]:
            activations = scipy.special.expit(activations @ weights + bias)
        weights, bias = encoder[-1]
        scores = activations @ weights + bias
        if self.config.threshold == "median":
            parameters[f"bias{len(encoder)}"] = bias - np.median(scores, axis=0)
        else:
            ones = (scores > 0).mean(axis=0)
            idle = int(((ones == 0) | (ones == 1)).sum())
            if idle:
                print(
                    f"rbm: {idle} of {self.code_length} bits are the same for all images; "
                    "`threshold`=median makes them halves"
                )
        return parameters


def learn_rbm(
    visible: np.ndarray,
    units: int,
    config: RBMConfig,
    *,
    gaussian: bool,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W [d, units], hidden biases [units] and visible biases [d], learned by CD-1.

    visible: float32 [n, d]; gaussian: whether its units are Gaussian ones of variance 1, and not
    binary ones of which `visible` has the probabilities. UserError where the weights diverge.
    """
    count, width = visible.shape
    weights = rng.standard_normal((width, units), np.float32) * np.float32(_FIRST_DEVIATION)
    hidden_bias, visible_bias = np.zeros(units, np.float32), np.zeros(width, np.float32)
    parameters = (weights, hidden_bias, visible_bias)  # updated in place
    velocities = [np.zeros_like(parameter) for parameter in parameters]
    name = "visible_learning_rate" if gaussian else "learning_rate"
    rate = getattr(config, name)
    for epoch in range(config.epochs):
        momentum = config.initial_momentum if epoch < config.initial_epochs else config.momentum
        for rows in shuffled(count, config.batch_size, rng):
            uniform = rng.random((len(rows), units), np.float32)
            with np.errstate(over="ignore", invalid="ignore"):  # is told below
                steps = contrastive_divergence(
                    visible[rows], weights, hidden_bias, visible_bias, uniform, gaussian
                )
                steps[0] -= config.weight_decay * weights
                for parameter, velocity, step in zip(parameters, velocities, steps, strict=True):
                    velocity *= momentum
                    velocity += rate * step
                    parameter += velocity
        if not all(np.isfinite(parameter).all() for parameter in parameters):
            raise UserError(
                f"`{name}`: {rate}; an RBM of {units} units diverged; a lower one works"
            )
    return parameters


def contrastive_divergence(
    visible: np.ndarray,
    weights: np.ndarray,
    hidden_bias: np.ndarray,
    visible_bias: np.ndarray,
    uniform: np.ndarray,
    gaussian: bool,
) -> list[np.ndarray]:
    """<vh>_0 - <vh>_1, and so for the biases: the steps of W, hidden and visible ones (CD-1).

    visible: v_0 [b, d]; uniform: [b, units] in [0, 1), by which hidden units are drawn. The units
    of the restored images are means, s(W h + a), or W h + a where they are Gaussian, and the hidden
    ones of the products probabilities: what is drawn there would only add noise (Hinton, 2002).
    """
    hidden = scipy.special.expit(visible @ weights + hidden_bias)
    drawn = (uniform < hidden).astype(visible.dtype)
    restored = drawn @ weights.T + visible_bias
    if not gaussian:
        restored = scipy.special.expit(restored)
    again = scipy.special.expit(restored @ weights + hidden_bias)
    return [
        (visible.T @ hidden - restored.T @ again) / np.float32(len(visible)),
        (hidden - again).mean(axis=0),
        (visible - restored).mean(axis=0),
    ]


def shuffled(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The positions of one pass in a random order, int64 [size] each; the last may be shorter."""
    order = rng.permutation(count)
    yield from (order[start : start + size] for start in range(0, count, size))


def fixed_noise(count: int, bits: int, variance: float, seed: int) -> np.ndarray:
    """The noise of each image, which stays what it is: normal, float32 [n, k].

    It follows from the seed and the image's position, whatever the order of the batches.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 1001]))
    return rng.standard_normal((count, bits), np.float32) * np.float32(variance**0.5)


def reconstruction_error(
    features: tf.Tensor,
    noise: tf.Tensor,
    encoder: Sequence[tuple[tf.Tensor, tf.Tensor]],
    decoder: Sequence[tuple[tf.Tensor, tf.Tensor]],
) -> tf.Tensor:
    """The mean over images of |x - decoder(s(encoder(x) + noise))|^2, s the sigmoid: a scalar.

    features: x [b, F]; noise: [b, k]; encoder, decoder: weights and biases of each layer. All
    layers end in a sigmoid but the last one, which is linear.
    """
    x = features
    for weights, bias in encoder[:-1]:
        x = tf.sigmoid(x @ weights + bias)
    x = tf.sigmoid(x @ encoder[-1][0] + encoder[-1][1] + noise)
    for weights, bias in decoder[:-1]:
        x = tf.sigmoid(x @ weights + bias)
    x = x @ decoder[-1][0] + decoder[-1][1]
    return tf.reduce_mean(tf.reduce_sum(tf.math.squared_difference(features, x), axis=-1))


def finetune(
    features: np.ndarray,
    noise: np.ndarray,
    encoder: Sequence[Layer],
    decoder: Sequence[Layer],
    batches: Iterator[np.ndarray],
    rate: float,
) -> list[Layer]:
    """The encoder after one step of Adam for each batch; the decoder's layers are its own.

    features: float32 [n, F]; noise: float32 [n, k]; batches: positions of images.
    """
    layers = [
        tuple(keras.Variable(array, dtype="float32") for array in layer)
        for layer in (*encoder, *decoder)
    ]
    variables = [variable for layer in layers for variable in layer]
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def step(x: tf.Tensor, of_x: tf.Tensor) -> None:
        values = [tuple(variable.value for variable in layer) for layer in layers]
        with tf.GradientTape() as tape:
            error = reconstruction_error(x, of_x, values[: len(encoder)], values[len(encoder) :])
        gradients = tape.gradient(error, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)

    for rows in batches:
        step(tf.constant(features[rows]), tf.constant(noise[rows]))
    arrays = [keras.ops.convert_to_numpy(variable) for variable in variables[: 2 * len(encoder)]]
    return list(zip(arrays[::2], arrays[1::2], strict=True))
