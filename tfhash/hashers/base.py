"""The Hasher contract: what each method of the library can do, from Python and for a command."""

from __future__ import annotations

import abc
import dataclasses
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import keras
import numpy as np
import tensorflow as tf

from tfhash import codes, places
from tfhash.data import arrays
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError, unwritable
from tfhash.hashers.keywords import default_of, plain, signature, whole
from tfhash.settings import build, deciding, fields_of, not_as_published
from tfhash.training.checkpoints import UNREADABLE
from tfhash.training.run import SAVED, Run, write_text

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_METHODS = "tfhash.methods."
MOST_SEED = 10**9  # sums of it and small numbers seed the parts of a run, and have to fit int32


class Hasher(abc.ABC):
    """Learns from images, then turns images into k-bit codes.

    A method is one subclass in one module of tfhash/methods. Config is the frozen dataclass of its
    own hyperparameters, Settings that of what it shares with methods of its kind; the flags of
    both, and the keywords here, are made from their fields.

    Args:
        code_length: k, the bits of a code, at least 1.
        image_size: the side in px that images are resized to; by default that of the images which
            it first learns from.
        seed: of everything random, 0 to 10^9: the same seed and images give the same codes.
        **settings: fields of Settings and Config, such as those that `help` of the class lists.
            cache_dir is None here: features are not kept on disk.

    Raises UserError for an unknown keyword or a value out of its range. A hasher that has learned
    has `encoder`, a keras.Model from RGB images float32 [n, S, S, 3] in [0, 255] to float32 [n, k]
    in [0, 1], and `history`, what it told while it learned, by stage and term.
    """

    Config: ClassVar[type]
    Settings: ClassVar[type]
    paper_backbones: ClassVar[tuple[str, ...]] = ()  # networks of the method's paper, where known
    learns_from_labels: ClassVar[bool] = True
    saves_backbone: ClassVar[bool] = False  # whether `save_weights` keeps that of its network too

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "Config") and hasattr(cls, "Settings"):
            cls.__signature__ = signature(  # type: ignore[attr-defined]
                Hasher.__init__, cls.Settings, cls.Config
            )

    def __init__(
        self,
        *,
        code_length: int = 24,
        image_size: int | None = None,
        seed: int = 0,
        **settings: Any,
    ):
        known = fields_of(self.Settings) | fields_of(self.Config)
        for name in settings:
            if name not in known:
                raise UserError(
                    f"`{name}`: no setting of {type(self).__name__}; allowed: "
                    f"code_length, image_size, seed, {', '.join(known)}"
                )
        values = {name: default_of(name, field.default) for name, field in known.items()}
        values |= {name: plain(value) for name, value in settings.items()}
        self.settings = build(self.Settings, values)
        self.config = build(self.Config, values)
        self.code_length = whole("code_length", code_length, 1)
        self.seed = whole("seed", seed, 0, MOST_SEED)
        self._given_size = None
        if image_size is not None:
            self._given_size = whole("image_size", image_size, 1)
        self._size: int | None = None
        self._has_learned = False
        self.history: dict[str, dict[str, list[float]]] = {}
        self.callbacks: Sequence[keras.callbacks.Callback] = ()

    @classmethod
    def of(
        cls, config: Any, settings: Any, *, code_length: int, image_size: int, seed: int
    ) -> Self:
        """The built hasher of two configurations, as commands have them."""
        hasher = cls(
            code_length=code_length,
            image_size=image_size or None,  # 0 px: given descriptors, no images
            seed=seed,
            **{name: getattr(settings, name) for name in fields_of(cls.Settings)},
            **{name: getattr(config, name) for name in fields_of(cls.Config)},
        )
        hasher.build(image_size)
        return hasher

    @classmethod
    def not_as_published(cls, settings: Any, config: Any) -> dict[str, Any]:
        """What differs from the method's paper, by field: here what `config` says."""
        del settings
        return not_as_published(config)

    def build(self, image_size: int) -> None:
        """Makes what there is before anything is learned, for images of image_size px."""
        self._size = image_size
        self._has_learned = False
        self.history = {}

    @property
    def image_size(self) -> int:
        """The side in px of the images that it learned from. UserError before."""
        if self._size is None:
            raise self._not_learned()
        return self._size

    def _not_learned(self) -> UserError:
        return UserError(f"{type(self).__name__} has not learned yet; call fit first")

    @classmethod
    def start(cls, settings: Any) -> None:
        """What has to happen before anything else uses TensorFlow: nothing by default."""
        del settings

    @classmethod
    def end(cls, settings: Any) -> None:
        """What has to happen before a process of a training leaves: nothing by default."""
        del settings

    @classmethod
    def lasting(cls, settings: Any) -> tuple:
        """What of the settings TensorFlow decides once for a whole process."""
        del settings
        return ()

    @classmethod
    def is_repeatable(cls, settings: Any) -> bool:
        """Whether operations are to be deterministic; with XLA, Keras could not compile them."""
        del settings
        return True

    @classmethod
    def needs_pixels(cls, settings: Any) -> bool:
        """Whether it looks at images, and not at descriptors that a user gives."""
        del settings
        return True

    @property
    def steps(self) -> int:
        """How many updates learning makes: 0 where it is not iterative."""
        return 0

    @property
    def variant(self) -> str | None:
        """The name of the ablation that this is, None for the method itself."""
        return None

    @property
    def encoder(self) -> keras.Model:
        """RGB images float32 [n, S, S, 3] in [0, 255] -> float32 [n, k] in [0, 1].

        UserError before anything has been learned.
        """
        if not self._has_learned:
            raise self._not_learned()
        return self._make_encoder()

    @abc.abstractmethod
    def _make_encoder(self) -> keras.Model:
        """What `encoder` answers, the same object each time until it learns again."""

    def fit(
        self,
        images: np.ndarray | Sequence[str | Path],
        labels: ArrayLike | None = None,
        *,
        unlabelled: np.ndarray | Sequence[str | Path] | None = None,
        validation: tuple[Any, ArrayLike] | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        run_dir: str | Path | None = None,
    ) -> Self:
        """Learns from images, anew at each call, and answers itself.

        images, unlabelled: uint8 [n, H, W, 3], RGB, or paths of JPEG and PNG files. labels: integer
        [n], -1 where there is none, or multi-hot [n, C], a row of 0 where there is none; None: all
        images are unlabelled. validation: images and their labels, which are not learned from but
        watched. callbacks: of Keras, for each stage of a deep method; one that stops training ends
        its stage, with which the same call goes on in a run_dir. run_dir: the folder that
        keeps checkpoints and logs, so that the same call goes on after an interruption; without
        it nothing is written. No other process may work there meanwhile.

        Raises UserError for what the caller can mend and NonFiniteError where training diverged.
        Sets the random seeds of Keras and turns TensorFlow's determinism of operations on.
        """
        self.start(self.settings)
        image_set, splits = arrays.learning_set(
            images, labels, unlabelled, validation, image_size=self._given_size, seed=self.seed
        )
        run = Run(None if run_dir is None else Path(run_dir).expanduser())
        with run.alone():
            run.claim("fit.json", self._deciding() | {"images": splits.fingerprint})
            keras.utils.set_random_seed(self.seed)
            if self.is_repeatable(self.settings):
                tf.config.experimental.enable_op_determinism()
            self.build(image_set.images.shape[1])
            self.callbacks = tuple(callbacks)
            try:
                self.learn(image_set, splits, run)
            finally:
                self.callbacks = ()
            if run.directory is not None:
                self.save(run.directory)
        return self

    def _deciding(self) -> dict[str, Any]:
        """What can change the result of `fit`, by name."""
        own = {"method": self.method(), "code_length": self.code_length, "seed": self.seed}
        return own | deciding(self.settings) | deciding(self.config)

    def learn(self, image_set: ImageSet, splits: RetrievalSplits, run: Run) -> dict[str, Any]:
        """Learns from splits.labelled and splits.unlabelled, and answers facts for metrics.json.

        splits.validation serves to watch the training. Nothing is learned from splits.query. What
        was already computed in run.directory is used, so that an interrupted run goes on.
        """
        facts = self._learn(image_set, splits, run)
        self._has_learned = True
        return facts

    @abc.abstractmethod
    def _learn(self, image_set: ImageSet, splits: RetrievalSplits, run: Run) -> dict[str, Any]:
        """What a kind of methods does for `learn`."""

    def embed(self, images: np.ndarray | Sequence[str | Path]) -> np.ndarray:
        """H(x): images uint8 [n, H, W, 3], or paths of files -> float32 [n, k] in [0, 1]."""
        if not self._has_learned:
            raise self._not_learned()
        checked = arrays.as_images(images, "images", self.image_size)
        if not len(checked):
            return np.empty((0, self.code_length), np.float32)
        return self._embed(checked)

    @abc.abstractmethod
    def _embed(self, images: np.ndarray) -> np.ndarray:
        """H(x): images uint8 [n > 0, S, S, 3] -> float32 [n, k] in [0, 1]."""

    def encode(self, images: np.ndarray | Sequence[str | Path]) -> np.ndarray:
        """B(x): images uint8 [n, H, W, 3], or paths -> packed codes uint8 [n, ceil(k/8)]."""
        return codes.pack(codes.binarize(self.embed(images)))

    def encode_set(self, image_set: ImageSet) -> np.ndarray:
        """B(x) of a whole image set: packed codes uint8 [n, ceil(k/8)]."""
        return self.encode(image_set.images)

    def save(self, directory: str | Path) -> None:
        """Writes a folder that `tfhash.load` makes the same hasher of; it needs no pickle.

        UserError where nothing has been learned, the folder cannot be written, or the class is no
        module of tfhash.methods.
        """
        if not self._has_learned:
            raise self._not_learned()
        if self.method() is None:
            raise UserError(f"{type(self).__name__}: only methods of tfhash.methods can be saved")
        directory = Path(directory).expanduser()
        description = {
            "format": 1,
            "method": self.method(),
            "code_length": self.code_length,
            "image_size": self.image_size,
            "seed": self.seed,
            "settings": dataclasses.asdict(self.settings) | dataclasses.asdict(self.config),
            "places": places.of(self.settings, directory) | places.of(self.config, directory),
        }
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.save_weights(directory)
            write_text(directory / SAVED, json.dumps(description, indent=1) + "\n")
        except OSError as error:
            raise unwritable("directory", directory, error) from None

    @abc.abstractmethod
    def save_weights(self, directory: Path) -> None:
        """Writes what `load_weights` needs to encode."""

    def load_weights(self, directory: Path) -> None:
        """Takes what `save_weights` wrote. UserError where it is not there, or damaged."""
        try:
            self._load_weights(Path(directory))
        except UserError:
            raise
        except UNREADABLE as error:
            reason = textwrap.shorten(str(error), 200)
            words = f"`model_dir`: the weights in {directory} are damaged"
            raise UserError(f"{words} ({reason})") from None
        self._has_learned = True

    @abc.abstractmethod
    def _load_weights(self, directory: Path) -> None: ...

    def draw(self, image_set: ImageSet, splits: RetrievalSplits, directory: Path) -> list[Path]:
        """Draws the method's own figures into a folder and answers their paths: none by default."""
        return []

    @classmethod
    def method(cls) -> str | None:
        """The name of the method, by which --method knows it; None outside of tfhash.methods."""
        if not cls.__module__.startswith(_METHODS):
            return None
        return cls.__module__.removeprefix(_METHODS).split(".")[0]

    def __repr__(self) -> str:
        given = {"code_length": self.code_length, "seed": self.seed}
        for values in (self.settings, self.config):
            for name, field in fields_of(type(values)).items():
                if name != "cache_dir" and getattr(values, name) != field.default:
                    given[name] = getattr(values, name)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled; use save(directory) and tfhash.load"
        )
