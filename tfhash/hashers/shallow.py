"""Shallow hashing: hash functions learned on features that stay as they are."""

from __future__ import annotations

import abc
import functools
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from tfhash import codes, npz
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits, learnable
from tfhash.errors import UserError
from tfhash.features import bag_of_words, descriptors
from tfhash.hashers import backbone_settings
from tfhash.hashers.backbone_settings import BackboneSettings, build_backbone
from tfhash.hashers.base import Hasher
from tfhash.hashers.spaces import predict
from tfhash.networks.encoder import FeatureEncoder
from tfhash.networks.features import Standardise, cached_features
from tfhash.networks.hash_functions import HashFunctions, Scores, linear_scores
from tfhash.settings import setting
from tfhash.training.run import Run

FEATURES = ("pixels", "gist", "backbone", "bow")
SCALINGS = ("standardise", "centre")
_PARAMETERS, _SCALING = "hash_functions.npz", "standardise/"
_CHUNK = 4096  # rows at once: it bounds the memory of kernels


@dataclass(frozen=True)
class ShallowSettings(BackboneSettings):
    """What the shallow methods share."""

    features: str = setting(
        "pixels",
        "what images are described by: pixels; gist; backbone, a network with --weights; or bow, "
        "the rows of --features_file, by default the bags of words kept with nus_wide",
        choices=FEATURES,
        group="network",
    )
    features_file: str | None = setting(
        None,
        "npz file of ids and features, a row an image, e.g. bags of words",
        decides=False,
        group="network",
        path=True,
    )
    feature_scaling: str = setting(
        "standardise",
        "standardise: each feature gets mean 0 and variance 1; centre: mean 0",
        choices=SCALINGS,
        group="network",
    )
    gist_size: int | None = setting(
        None,
        "side in px at which GIST looks at images; by default their own, 32 or more",
        least=1,
        group="network",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features_file is not None and self.features != "bow":
            raise UserError("`features_file`: goes with `features`=bow alone")
        if self.features == "backbone" and self.weights is None:
            raise UserError("`weights`: none; `features`=backbone needs trained weights")


@dataclass(frozen=True)
class FeatureData:
    """What the shallow methods learn from: scaled features, without those of queries.

    everything: float32 [l + u, F], what an unsupervised method learns from, the labelled images
    first; labels: multi-hot uint8 [l, C], of these.
    """

    everything: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, labelled: np.ndarray, labels: np.ndarray, unlabelled: np.ndarray) -> FeatureData:
        """Of features in two arrays, float32 [l, F] and [u, F]."""
        return cls(np.concatenate([labelled, unlabelled]), labels)

    @property
    def labelled(self) -> np.ndarray:
        """float32 [l, F]."""
        return self.everything[: len(self.labels)]

    @property
    def unlabelled(self) -> np.ndarray:
        """float32 [u, F]."""
        return self.everything[len(self.labels) :]

    def relevant(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Whether each labelled image of `rows` shares a label with each other: bool [l, l]."""
        labels = self.labels[rows].astype(np.int32)
        return labels @ labels.T > 0


class FeatureHasher(Hasher):
    """A Hasher of k functions on the features of an image: bit = [score > 0].

    A subclass learns the parameters of the functions, arrays by name, in `learn_functions`. Where
    its scores are not linear, `scores` is the function that makes them of features and parameters,
    at the top of its module, and `score_options` are further arguments of it, plain values.
    """

    Settings = ShallowSettings
    settings: ShallowSettings
    scores: ClassVar[Scores] = staticmethod(linear_scores)
    # That of SSGAH and DSH-GANs, which ran the traditional methods on its features.
    paper_backbones = ("alexnet",)

    def build(self, image_size: int) -> None:
        super().build(image_size)
        self.standardise: Any = None  # a Standardise, once something is learned or loaded
        self.parameters: dict[str, np.ndarray] = {}
        self._encoder: FeatureEncoder | None = None
        self.__dict__.pop("network", None)

    @classmethod
    def needs_pixels(cls, settings: ShallowSettings) -> bool:
        return settings.features != "bow"

    @classmethod
    def not_as_published(cls, settings: ShallowSettings, config: Any) -> dict[str, Any]:
        of_network = {}
        if settings.features == "backbone":
            of_network = backbone_settings.not_as_published(settings, cls.paper_backbones)
        return of_network | super().not_as_published(settings, config)

    @abc.abstractmethod
    def learn_functions(self, data: FeatureData) -> dict[str, np.ndarray]:
        """Learns the parameters of the k functions from scaled features."""

    def score_options(self) -> dict[str, Any]:
        """What `scores` is told beside features and parameters."""
        return {}

    @property
    def variant(self) -> str:
        """The features, by the name that papers have for them."""
        return {"backbone": "cnn"}.get(self.settings.features, self.settings.features)

    @functools.cached_property
    def network(self) -> keras.Model:
        """RGB images [n, S, S, 3] in [0, 255] -> features [n, F]."""
        settings = self.settings
        if settings.features == "bow":
            raise UserError("`features`=bow: images have no features but those of `features_file`")
        if settings.features == "backbone":
            return build_backbone(settings, "all")
        if settings.features == "gist":
            return descriptors.gist_of(self.image_size, settings.gist_size)
        return descriptors.pixels(self.image_size)

    def describe(self, image_set: ImageSet) -> np.ndarray:
        """The features of the images as they are: float32 [n, F]. Kept in --cache_dir."""
        settings = self.settings
        if settings.features == "bow":
            if settings.features_file is None:
                raise UserError("`features_file`: missing; `features`=bow needs it here")
            return bag_of_words.read(settings.features_file, image_set.ids, settings.storage.empty)
        return cached_features(self.network, image_set.images, self.settings.cache_dir)

    def _learn(self, image_set: ImageSet, splits: RetrievalSplits, run: Run) -> dict[str, Any]:
        self._encoder = None
        if image_set.triplets is not None and (self.learns_from_labels or not len(splits.held_out)):
            # Those that learn from images alone may be judged by triplets.
            kind = "labels" if self.learns_from_labels else "images alone"
            raise UserError(
                f"`triplets_csv`: not with `method`={self.method()}, which learns from {kind}"
            )
        features = self.describe(image_set)
        begin = time.perf_counter()
        width = features.shape[1]
        components = self.settings.feature_components
        self.standardise = Standardise(
            width, components, scale=self.settings.feature_scaling == "standardise"
        )
        storage, positions = self.settings.storage, learnable(splits)
        self.standardise.adapt(features, positions, storage)
        everything = storage.empty((len(positions), components or width), np.float32)
        self.standardise.of(features, positions, everything)
        data = FeatureData(everything, image_set.labels[splits.labelled])
        if len(data.everything) < 2:
            raise UserError("images: one alone to learn from; at least 2 are needed")
        self.parameters = {
            name: np.asarray(value, np.float32)
            for name, value in self.learn_functions(data).items()
        }
        for name, value in self.parameters.items():
            if not np.isfinite(value).all():
                raise UserError(
                    f"`features`={self.settings.features}: the learned {name} has values that are "
                    "not finite; are features very large, or the same for all images?"
                )
        facts: dict[str, Any] = {
            "learn_seconds": time.perf_counter() - begin,
            "feature_count": width,
        }
        most = getattr(self.config, "labelled_images", None)
        if most is not None:
            facts["labels_used"] = min(len(splits.labelled), most)
        if self.settings.features_file is not None:  # the name of a file does not tell what it has
            content = np.ascontiguousarray(features).data
            facts["features_digest"] = hashlib.sha256(content).hexdigest()[:16]
        return facts

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return self.standardise(features).numpy()

    def _make_encoder(self) -> keras.Model:
        if self._encoder is None:
            self._encoder = FeatureEncoder(self.network, self.standardise, self._functions())
        return self._encoder

    def _functions(self) -> HashFunctions:
        shapes = {name: value.shape for name, value in self.parameters.items()}
        functions = HashFunctions(self.scores, shapes, self.score_options())
        for name, value in self.parameters.items():
            functions.parameters[name].assign(value)
        return functions

    def embed_features(self, features: np.ndarray) -> np.ndarray:
        """H of features as `describe` gives them: float32 [n, F] -> float32 [n, k] in [0, 1]."""
        if not self._has_learned:
            raise UserError(f"{type(self).__name__} has not learned yet; call fit first")
        functions = self._functions()
        starts = range(0, len(features), _CHUNK)
        parts = [functions(self._scaled(features[i : i + _CHUNK])).numpy() for i in starts]
        return np.concatenate([np.empty((0, self.code_length), np.float32), *parts])

    def _embed(self, images: np.ndarray) -> np.ndarray:
        return predict(self.encoder, images, 128)

    def encode_set(self, image_set: ImageSet) -> np.ndarray:
        return codes.pack(codes.binarize(self.embed_features(self.describe(image_set))))

    def save_weights(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        statistics = {f"{_SCALING}{w.name}": w.numpy() for w in self.standardise.weights}
        arrays: dict[str, Any] = statistics | self.parameters
        npz.write(directory / _PARAMETERS, arrays, np.savez)

    def _load_weights(self, directory: Path) -> None:
        path = directory / _PARAMETERS
        try:
            arrays = npz.read(path)
            statistics = {
                name.removeprefix(_SCALING): arrays.pop(name)
                for name in list(arrays)
                if name.startswith(_SCALING)
            }
            width, components = len(statistics["mean"]), statistics.get("axes", np.empty((0, 0)))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"`model_dir`: cannot read {path} ({error}); is the run finished?"
            ) from None
        self.standardise = Standardise(width, components.shape[1] or None)
        for weight in self.standardise.weights:
            weight.assign(statistics[weight.name])
        self.parameters = arrays
        self._encoder = None
