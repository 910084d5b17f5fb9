"""Backbones: networks from RGB images to features, with resizing and normalisation inside."""

from __future__ import annotations

import contextlib
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import keras
from keras import layers

from tfhash.errors import UserError
from tfhash.networks import efficientnet_lite
from tfhash.networks import weights as weights_files
from tfhash.networks.image_layers import (
    ApplicationPreprocessing,
    BgrMeanSubtraction,
    GroupedConv2D,
    LocalResponseNormalization,
)

_APPLICATIONS = {
    name.lower(): function
    for name, function in inspect.getmembers(keras.applications, inspect.isfunction)
}

# Image side in pixels where it is not 224; None: the image's own size.
_NATIVE_SIZE = {
    "alexnet": 227,
    "efficientnetb1": 240,
    "efficientnetb2": 260,
    "efficientnetb3": 300,
    "efficientnetb4": 380,
    "efficientnetb5": 456,
    "efficientnetb6": 528,
    "efficientnetb7": 600,
    **{name: scaling.size for name, scaling in efficientnet_lite.NETWORKS.items()},
    "efficientnetv2b1": 240,
    "efficientnetv2b2": 260,
    "efficientnetv2b3": 300,
    "efficientnetv2l": 480,
    "efficientnetv2m": 480,
    "efficientnetv2s": 384,
    "inceptionresnetv2": 299,
    "inceptionv3": 299,
    "nasnetlarge": 331,
    "small_cnn": None,
    "squeezenet": 227,
    "xception": 299,
}


_FOLLOW: ContextVar[bool] = ContextVar("weights_follow", default=False)


def names() -> list[str]:
    """The names `build` takes: our networks, then keras.applications in lower case."""
    return [*_OWN, *_APPLICATIONS]


@contextlib.contextmanager
def weights_follow() -> Iterator[None]:
    """Networks built meanwhile have random weights in the place of ImageNet's: others follow.

    So what a run has saved can be loaded where the package of those weights is not installed, and
    without a download.
    """
    token = _FOLLOW.set(True)
    try:
        yield
    finally:
        _FOLLOW.reset(token)


def build(
    name: str,
    *,
    input_size: int | None = None,
    weights: str | Path | None = None,
    allow_pickle: bool = False,
    frozen_through: str | None = None,
    feature_layers: Sequence[str] = (),
) -> keras.Model:
    """A model from RGB images [N, H, W, 3] in [0, 255], of any size, to features [N, F].

    Images are resized (bilinear) to `input_size` pixels a side, by default the network's native
    size. Gradients flow back to the images. Features: fc7 (4096) of alexnet, otherwise the last
    feature map averaged over space (small_cnn: its mean and its maximum, 256).

    Args:
        weights: None (random), a file (see `weights.load`), or "imagenet": for a network of
            keras.applications, which downloads them, and for efficientnet_lite0 to 2, whose are in
            pip packages (extra `weights`).
        allow_pickle: read a pickled .npy file; it can run any code.
        frozen_through: this layer and every one before it do not learn; "all": none learns.
        feature_layers: the features are the averages over space of these layers' outputs, one
            after the other, instead.

    Call networks that have batch normalisation or dropout with training=False, as `HashNetwork`
    does: batch statistics would make an image's features depend on its neighbours in the batch.

    Raises ValueError for an unknown name or layer, an impossible size, or weights that do not fit.
    """
    if name not in names():
        raise UserError(f"`backbone`: unknown {name!r}; allowed: {', '.join(names())}")
    if input_size is not None and input_size < 1:
        raise UserError(f"`backbone_size`: {input_size} is not allowed; at least 1 pixel")
    size = _NATIVE_SIZE.get(name, 224) if input_size is None else input_size
    if weights == "imagenet" and _FOLLOW.get():
        weights = None
    trunk = _trunk(name, size, weights)
    if weights == "imagenet" and name in efficientnet_lite.NETWORKS:
        efficientnet_lite.load_imagenet(trunk)
    elif weights not in (None, "imagenet"):
        weights_files.load(trunk, weights, allow_pickle=allow_pickle)
    if frozen_through is not None:
        _freeze(trunk, frozen_through)
    if feature_layers:
        trunk = _averages(trunk, feature_layers)
    images = keras.Input((None, None, 3), name="images")
    x = images if size is None else layers.Resizing(size, size, dtype="float32")(images)
    return keras.Model(images, trunk(_preprocessing(name)(x)), name=name)


def _trunk(name: str, size: int | None, weights: str | Path | None) -> keras.Model:
    """The network from preprocessed images to features."""
    if name in _APPLICATIONS:
        return _application(name, size, "imagenet" if weights == "imagenet" else None)
    if weights == "imagenet" and name not in efficientnet_lite.NETWORKS:
        raise UserError(f"`weights`: 'imagenet' is not there for {name}; give the path of a file")
    try:
        return _OWN[name](size)
    except ValueError as error:
        raise UserError(f"`backbone_size`: {size} pixels are too few for {name}") from error


def _application(name: str, size: int | None, weights: str | None) -> keras.Model:
    try:
        return _APPLICATIONS[name](
            include_top=False, pooling="avg", input_shape=(size, size, 3), weights=weights
        )
    # A failed download raises a bare Exception.
    except Exception as error:
        raise UserError(
            f"`backbone`: keras cannot build {name} for `backbone_size`={size} and "
            f"`weights`={weights}: {textwrap.shorten(str(error), 300)}"
        ) from error


def _preprocessing(name: str) -> layers.Layer:
    if name == "small_cnn":
        return layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32")
    if name in efficientnet_lite.NETWORKS:
        return efficientnet_lite.preprocessing()
    if name in _OWN:
        return BgrMeanSubtraction()
    return ApplicationPreprocessing(_APPLICATIONS[name].__module__.rpartition(".")[-1])


def _freeze(trunk: keras.Model, last: str) -> None:
    if last == "all":
        trunk.trainable = False
        return
    _, *learners = trunk.layers  # the first is the input
    layer_names = [layer.name for layer in learners]
    if last not in layer_names:
        raise UserError(
            f"`frozen_through`: {trunk.name} has no layer {last!r}; "
            f"allowed: all, {', '.join(layer_names)}"
        )
    for layer in learners[: layer_names.index(last) + 1]:
        layer.trainable = False


def _averages(trunk: keras.Model, layer_names: Sequence[str]) -> keras.Model:
    _, *with_outputs = trunk.layers  # the first is the input
    maps = {layer.name: layer.output for layer in with_outputs if len(layer.output.shape) == 4}
    for name in layer_names:
        if name not in maps:
            raise UserError(
                f"`feature_layers`: {trunk.name} has no layer {name!r} with a map; "
                f"allowed: {', '.join(maps)}"
            )
    averages = [layers.GlobalAveragePooling2D(name=f"{n}_average")(maps[n]) for n in layer_names]
    features = averages[0] if len(averages) == 1 else layers.Concatenate(name="averages")(averages)
    return keras.Model(trunk.input, features, name=trunk.name)


def _convolution(filters: int, size: int, name: str, **options) -> layers.Conv2D:
    defaults = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
    layer = GroupedConv2D if options.get("groups", 1) > 1 else layers.Conv2D
    return layer(filters, size, name=name, **{**defaults, **options})


def _caffe_max_pooling(x, name: str):
    """3 x 3 max pooling with stride 2, rounding up as Caffe does: n becomes ceil((n - 1) / 2).

    TensorFlow's "same" pads an even size by one row at the end, which is that rounding up; an odd
    size needs no padding. The padding never wins a maximum.
    """
    padding = "same" if x.shape[1] % 2 == 0 else "valid"
    return layers.MaxPooling2D(3, 2, padding=padding, name=name)(x)


def _alexnet(size: int) -> keras.Model:
    """AlexNet (Krizhevsky et al., NIPS 2012) up to fc7, as Caffe's bvlc_alexnet.

    Without the dropout of fc6 and fc7: Keras' dropout keeps a state that no checkpoint saves.
    """
    images = keras.Input((size, size, 3))
    x = _convolution(96, 11, "conv1", strides=4, padding="valid")(images)
    x = LocalResponseNormalization(name="norm1")(x)
    x = _caffe_max_pooling(x, "pool1")
    x = _convolution(256, 5, "conv2", groups=2)(x)
    x = LocalResponseNormalization(name="norm2")(x)
    x = _caffe_max_pooling(x, "pool2")
    x = _convolution(384, 3, "conv3")(x)
    x = _convolution(384, 3, "conv4", groups=2)(x)
    x = _convolution(256, 3, "conv5", groups=2)(x)
    x = _caffe_max_pooling(x, "pool5")
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(4096, activation="relu", name="fc6")(x)
    x = layers.Dense(4096, activation="relu", name="fc7")(x)
    return keras.Model(images, x, name="alexnet")


def _squeezenet(size: int) -> keras.Model:
    """SqueezeNet v1.0 (Iandola et al., 2016) up to fire9, averaged over space: 512 features."""
    images = keras.Input((size, size, 3))
    x = _convolution(96, 7, "conv1", strides=2, padding="valid")(images)
    x = _caffe_max_pooling(x, "pool1")
    squeezed = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
    for number, filters in squeezed.items():
        x = _fire(x, filters, f"fire{number}")
        if number in (4, 8):
            x = _caffe_max_pooling(x, f"pool{number}")
    x = layers.GlobalAveragePooling2D(name="pool9")(x)
    return keras.Model(images, x, name="squeezenet")


def _fire(x, filters: int, name: str):
    """SqueezeNet's module: 1 x 1 down to `filters`, then 1 x 1 and 3 x 3 up to 4 times as many."""
    x = _convolution(filters, 1, f"{name}_squeeze1x1")(x)
    expanded = [
        _convolution(4 * filters, 1, f"{name}_expand1x1")(x),
        _convolution(4 * filters, 3, f"{name}_expand3x3")(x),
    ]
    return layers.Concatenate(name=name)(expanded)


def _small_cnn(size: int | None) -> keras.Model:
    """A network for images of about 16 to 32 pixels, to be learned from nothing in minutes.

    Group normalisation, in which images of a batch do not meet, took the mAP of 32 bits learned
    from 100 labelled digits from .84 to .89; in every block it gained no more and cost twice the
    time.
    """
    images = keras.Input((size, size, 3))
    x = _convolution(32, 3, "conv1")(images)
    x = layers.MaxPooling2D(2, padding="same", name="pool1")(x)
    x = _convolution(64, 3, "conv2")(x)
    x = layers.MaxPooling2D(2, padding="same", name="pool2")(x)
    x = _convolution(128, 3, "conv3", activation=None)(x)
    x = layers.GroupNormalization(8, name="norm3")(x)
    x = layers.ReLU(name="relu3")(x)
    mean = layers.GlobalAveragePooling2D(name="mean")(x)
    maximum = layers.GlobalMaxPooling2D(name="maximum")(x)
    features = layers.Concatenate(name="mean_and_maximum")([mean, maximum])
    return keras.Model(images, features, name="small_cnn")


_OWN: dict[str, Callable[[Any], keras.Model]] = {  # of a size in px, or None
    "alexnet": _alexnet,
    "squeezenet": _squeezenet,
    "small_cnn": _small_cnn,
    **{
        name: functools.partial(efficientnet_lite.build, name)
        for name in efficientnet_lite.NETWORKS
    },
}
