"""Shallow hashing: hash functions learned on features that stay as they are."""

from __future__ import annotations

import abc
import functools
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfhash import codes, config_values
from tfhash.backbone_settings import BackboneSettings, build_backbone
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits, learnable
from tfhash.errors import UserError
from tfhash.features import bag_of_words, descriptors
from tfhash.hasher import Hasher, Run, setting
from tfhash.networks.features import Standardise, cached_features

FEATURES = ("pixels", "gist", "backbone", "bow")
SCALINGS = ("standardise", "centre")
_PARAMETERS, _SCALING = "hash_functions.npz", "standardise/"
_CHUNK = 4096  # rows at once: it bounds the memory of kernels

Scores = Callable[[tf.Tensor, Mapping[str, tf.Tensor]], tf.Tensor]


@dataclass(frozen=True)
class ShallowSettings(BackboneSettings):
    """What the shallow methods share."""

    features: str = setting(
        "pixels",
        "what images are described by: pixels; gist; backbone, a network with --weights; or bow, "
        "the rows of --features_file",
    )
    features_file: str | None = setting(
        None, "npz file of ids and features, a row an image, e.g. bags of words", decides=False
    )
    feature_scaling: str = setting(
        "standardise", "standardise: each feature gets mean 0 and variance 1; centre: mean 0"
    )
    gist_size: int | None = setting(
        None, "side in px at which GIST looks at images; by default their own, 32 or more"
    )

    def __post_init__(self) -> None:
        config_values.check(
            self,
            choices={"features": FEATURES, "feature_scaling": SCALINGS},
            least={"backbone_size": 1, "feature_components": 1, "gist_size": 1},
        )
        if (self.features == "bow") != (self.features_file is not None):
            raise UserError("--features_file: goes with --features=bow, and that with it")
        if self.features == "backbone" and self.weights is None:
            raise UserError("--weights: none; --features=backbone needs trained weights")


@dataclass(frozen=True)
class FeatureData:
    """What the shallow methods learn from: scaled features, without those of queries.

    labelled: float32 [l, F]; labels: multi-hot uint8 [l, C], of these; unlabelled: float32 [u, F].
    """

    labelled: np.ndarray
    labels: np.ndarray
    unlabelled: np.ndarray

    @functools.cached_property
    def everything(self) -> np.ndarray:
        """What an unsupervised method learns from: float32 [l + u, F]."""
        return np.concatenate([self.labelled, self.unlabelled])

    def relevant(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Whether each labelled image of `rows` shares a label with each other: bool [l, l]."""
        labels = self.labels[rows].astype(np.int32)
        return labels @ labels.T > 0


class FeatureHasher(Hasher):
    """A Hasher of k functions on the features of an image: bit = [score > 0].

    A subclass learns the parameters of the functions, arrays by name, in `fit`. Where its scores
    are not linear, it says in `scores` how they come from features and parameters.
    """

    Settings = ShallowSettings
    settings: ShallowSettings

    def __init__(self, config: Any, settings: ShallowSettings, **kwargs: Any):
        super().__init__(config, settings, **kwargs)
        self.standardise: Standardise | None = None
        self.parameters: dict[str, np.ndarray] = {}

    @abc.abstractmethod
    def fit(self, data: FeatureData) -> dict[str, np.ndarray]:
        """Learns the parameters of the k functions from scaled features."""

    def scores(self, features: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """float32 [n, F] -> [n, k]; features @ projection [F, k] + offset [k]."""
        return features @ parameters["projection"] + parameters["offset"]

    @property
    def variant(self) -> str:
        """The features, by the name that papers have for them."""
        return {"backbone": "cnn"}.get(self.settings.features, self.settings.features)

    @functools.cached_property
    def network(self) -> keras.Model:
        """RGB images [n, S, S, 3] in [0, 255] -> features [n, F]."""
        settings = self.settings
        if settings.features == "bow":
            raise UserError("--features=bow: images have no features but those of --features_file")
        if settings.features == "backbone":
            return build_backbone(settings, "all")
        if settings.features == "gist":
            return descriptors.gist_of(self.image_size, settings.gist_size)
        return descriptors.pixels(self.image_size)

    def describe(self, image_set: ImageSet) -> np.ndarray:
        """The features of the images as they are: float32 [n, F]. Kept in --cache_dir."""
        if self.settings.features == "bow":
            return bag_of_words.read(self.settings.features_file, image_set.ids)
        return cached_features(self.network, image_set.images, self.settings.cache_dir)

    def learn(self, image_set: ImageSet, splits: RetrievalSplits, run: Run) -> dict[str, Any]:
        features = self.describe(image_set)
        begin = time.perf_counter()
        width = features.shape[1]
        components = self.settings.feature_components
        if components is not None and components > width:
            raise UserError(f"--feature_components: {components}; allowed: 1 to {width}")
        self.standardise = Standardise(
            width, components, scale=self.settings.feature_scaling == "standardise"
        )
        self.standardise.adapt(features[learnable(splits)])
        data = FeatureData(
            self._scaled(features[splits.labelled]),
            image_set.labels[splits.labelled],
            self._scaled(features[np.concatenate([splits.validation, splits.unlabelled])]),
        )
        self.parameters = {
            name: np.asarray(value, np.float32) for name, value in self.fit(data).items()
        }
        for name, value in self.parameters.items():
            if not np.isfinite(value).all():
                raise UserError(
                    f"--features={self.settings.features}: the learned {name} has values that are "
                    "not finite; are features very large, or the same for all images?"
                )
        return {"learn_seconds": time.perf_counter() - begin, "feature_count": width}

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return self.standardise(features).numpy()

    @property
    def encoder(self) -> keras.Model:
        """RGB images float32 [n, S, S, 3] in [0, 255] -> float32 [n, k] in [0, 1]."""
        return FeatureEncoder(self.network, self.standardise, self._functions())

    def _functions(self) -> HashFunctions:
        return HashFunctions(self.scores, self.parameters)

    def embed_features(self, features: np.ndarray) -> np.ndarray:
        """H of features as `describe` gives them: float32 [n, F] -> float32 [n, k] in [0, 1]."""
        functions = self._functions()
        starts = range(0, len(features), _CHUNK)
        parts = [functions(self._scaled(features[i : i + _CHUNK])).numpy() for i in starts]
        return np.concatenate([np.empty((0, self.code_length), np.float32), *parts])

    def embed(self, images: np.ndarray) -> np.ndarray:
        return self.encoder.predict(images, batch_size=128, verbose=0)

    def encode_set(self, image_set: ImageSet) -> np.ndarray:
        return codes.pack(codes.binarize(self.embed_features(self.describe(image_set))))

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        statistics = {f"{_SCALING}{w.name}": w.numpy() for w in self.standardise.weights}
        np.savez(directory / _PARAMETERS, **statistics, **self.parameters)

    def load(self, directory: Path) -> None:
        path = directory / _PARAMETERS
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            statistics = {
                name.removeprefix(_SCALING): arrays.pop(name)
                for name in list(arrays)
                if name.startswith(_SCALING)
            }
            width, components = len(statistics["mean"]), statistics.get("axes", np.empty((0, 0)))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"--model_dir: cannot read {path} ({error}); is the run finished?"
            ) from None
        self.standardise = Standardise(width, components.shape[1] or None)
        for weight in self.standardise.weights:
            weight.assign(statistics[weight.name])
        self.parameters = arrays


class HashFunctions(keras.layers.Layer):
    """sigmoid(scores(x, parameters)): float32 [n, F] -> [n, k], parameters kept as weights."""

    def __init__(self, scores: Scores, parameters: Mapping[str, np.ndarray]):
        super().__init__(dtype="float32", name="hash_functions")
        self.scores = scores
        self.parameters = {}
        for name, value in parameters.items():
            self.parameters[name] = self.add_weight(value.shape, trainable=False, name=name)
            self.parameters[name].assign(value)
        self.built = True

    def call(self, features):
        # Above .5 where a score is positive, unless float32 cannot tell it from 0.
        return tf.sigmoid(self.scores(features, self.parameters))


class FeatureEncoder(keras.Model):
    """Images [n, S, S, 3] in [0, 255] -> [0, 1] [n, k]: features, scaled, hash functions."""

    def __init__(
        self, network: keras.Model, standardise: Standardise, functions: keras.layers.Layer
    ):
        super().__init__(name="encoder", dtype="float32")
        self.network = network
        self.standardise = standardise
        self.functions = functions
        self.built = True

    def call(self, images, training=False):
        features = keras.ops.cast(self.network(images, training=False), "float32")
        return self.functions(self.standardise(features))
