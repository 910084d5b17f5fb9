"""Batch normalisation folded into the convolution before it: the same function, in less time."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
from keras import layers

from tfhash.networks.encoder import FeatureEncoder
from tfhash.networks.features import Standardise

# The kernel that scales the output channels of a layer, and how many of its last axes these are.
_KERNELS: dict[type, tuple[str, int]] = {
    layers.Conv2D: ("kernel", 1),
    layers.Dense: ("kernel", 1),
    layers.DepthwiseConv2D: ("kernel", 2),
    layers.SeparableConv2D: ("pointwise_kernel", 1),
}


def folded(network: keras.Model) -> keras.Model:
    """A copy of a functional network that answers the same, up to rounding, in inference mode.

    In the copy a batch normalisation that alone follows a linear convolution or dense layer is part
    of that layer: gamma (w x + b - mean) / deviation + beta is another w and b. Others stay.
    Networks within the network are copied in the same way.
    """
    pairs = dict(_pairs(network))  # by the names of convolution and normalisation

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in pairs.values():
            return layers.Identity(name=layer.name, dtype=config["dtype"])
        if layer.name in pairs:
            config["use_bias"] = True
        if isinstance(layer, keras.Model):
            return folded(layer)
        return type(layer).from_config(config)

    def call(layer: keras.layers.Layer, *inputs, **options):
        # An identity takes no mask, as the normalisation did in whose place it is.
        return layer(*inputs) if isinstance(layer, layers.Identity) else layer(*inputs, **options)

    copy = keras.models.clone_model(network, clone_function=clone, call_function=call)
    for layer in network.layers:
        if layer.name in pairs:
            normalisation = network.get_layer(pairs[layer.name])
            _fold(layer, normalisation, copy.get_layer(layer.name))
        elif layer.weights and layer.name not in pairs.values():
            if not isinstance(layer, keras.Model):  # those are copied with their weights
                copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def count(network: keras.Model) -> int:
    """How many batch normalisations `folded` would make part of another layer."""
    inner = (layer for layer in network.layers if isinstance(layer, keras.Model))
    return len(dict(_pairs(network))) + sum(map(count, inner))


def _pairs(network: keras.Model) -> Iterator[tuple[str, str]]:
    """The names of each layer that can take the normalisation after it, and of that one."""
    answers = {id(tensor._keras_history.operation) for tensor in network.outputs}
    for layer in network.layers:
        if not isinstance(layer, layers.BatchNormalization) or layer.axis not in (-1, 3):
            continue
        (before,) = {node.operation for of in layer._inbound_nodes for node in of.parent_nodes}
        alone = len(before._outbound_nodes) == 1 and len(layer._inbound_nodes) == 1
        alone = alone and id(before) not in answers
        if alone and type(before) in _KERNELS and before.activation is keras.activations.linear:
            yield before.name, layer.name


def _fold(
    layer: keras.layers.Layer, normalisation: layers.BatchNormalization, target: keras.layers.Layer
) -> None:
    """Sets the weights of the target, in float64 on the way."""
    name, axes = _KERNELS[type(layer)]
    mean, variance = _array(normalisation.moving_mean), _array(normalisation.moving_variance)
    gamma, beta = _array(normalisation.gamma, 1.0), _array(normalisation.beta)
    factor = gamma / np.sqrt(variance + normalisation.epsilon)
    shift = (_array(layer.bias) - mean) * factor + beta
    kernel = _array(getattr(layer, name))
    # Of a depthwise one, [height, width, in, multiplier], the channels are the last two axes.
    scaled = kernel * factor.reshape(kernel.shape[-axes:])
    for weight in target.weights:
        if weight.path.rpartition("/")[2] == name:
            weight.assign(scaled)
        elif weight.path.endswith("/bias"):
            weight.assign(shift)
        else:  # the depthwise kernel of a separable convolution
            weight.assign(getattr(layer, weight.path.rpartition("/")[2]))


def _array(weight: keras.Variable | None, without: float = 0.0) -> np.ndarray:
    value = without if weight is None else keras.ops.convert_to_numpy(weight)
    return np.asarray(value, np.float64)


def folded_encoder(encoder: keras.Model) -> keras.Model:
    """An encoder whose backbone is `folded`; the same one where there is nothing to fold.

    What is above the backbone is shared, or copied with its weights.
    """
    backbone = getattr(encoder, "backbone", None)
    if backbone is None or not count(backbone):
        return encoder
    if isinstance(encoder, FeatureEncoder):
        standardise, above = encoder.standardise, encoder.hash_network
        return FeatureEncoder(folded(backbone), standardise, above, mirrored=encoder.mirrored)
    width = backbone.output_shape[-1]
    # What is above sees features, which the whole encoder has of both images.
    config = {**encoder.get_config(), "backbone": None, "mirrored": False}
    above = type(encoder).from_config(config)
    above.build((None, width))
    of_backbone = {id(weight) for weight in backbone.weights}
    above.set_weights(
        [
            keras.ops.convert_to_numpy(weight)
            for weight in encoder.weights
            if id(weight) not in of_backbone
        ]
    )
    # Standardised by a mean of 0 and a deviation of 1, features stay as they are.
    return FeatureEncoder(folded(backbone), Standardise(width), above, mirrored=encoder.mirrored)
