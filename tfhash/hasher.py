"""The Hasher contract: what each method of the library can do, and the run that it does it in."""

from __future__ import annotations

import abc
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tfhash import codes
from tfhash.checkpoints import write_text
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError


def setting(default: Any, explanation: str, *, decides: bool = True) -> Any:
    """A field of a configuration dataclass, from which its command line flag is made.

    decides: whether the field can change the result of a run; a run folder refuses to go on under
    other values of the fields that do.
    """
    return field(default=default, metadata={"help": explanation, "decides": decides})


@dataclass(frozen=True)
class Run:
    """Where a run leaves what it makes, and whether this process is the one that writes.

    directory: the run folder; writes: False in all but the first process of several.
    """

    directory: Path
    writes: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes directory/name in one move."""
        if self.writes:
            write_text(self.directory / name, json.dumps(content, indent=1) + "\n")


class Hasher(abc.ABC):
    """Learns from images, then turns images into k-bit codes.

    A method is one subclass in one module of tfhash/methods. Config is the frozen dataclass of its
    own hyperparameters, Settings that of what it shares with methods of its kind; the flags of
    both are made from their fields.
    """

    Config: ClassVar[type]
    Settings: ClassVar[type]

    def __init__(
        self, config: Any, settings: Any, *, code_length: int, image_size: int, seed: int
    ):
        if code_length < 1:
            raise UserError(f"--code_length: {code_length}; at least 1 bit is allowed")
        self.config = config
        self.settings = settings
        self.code_length = code_length
        self.image_size = image_size
        self.seed = seed

    @classmethod
    def start(cls, settings: Any) -> None:
        """What has to happen before anything else uses TensorFlow: nothing by default."""
        del settings

    @property
    def steps(self) -> int:
        """How many updates learning makes: 0 where it is not iterative."""
        return 0

    @property
    def variant(self) -> str | None:
        """The name of the ablation that this is, None for the method itself."""
        return None

    @abc.abstractmethod
    def learn(self, image_set: ImageSet, splits: RetrievalSplits, run: Run) -> dict[str, Any]:
        """Learns from splits.labelled and splits.unlabelled, and answers facts for metrics.json.

        splits.validation serves to watch the training. Nothing is learned from splits.query. What
        was already computed in run.directory is used, so that an interrupted run goes on.
        """

    @abc.abstractmethod
    def embed(self, images: np.ndarray) -> np.ndarray:
        """H(x): images uint8 [n, S, S, 3] -> float32 [n, k] in [0, 1]."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        """B(x): images uint8 [n, S, S, 3] -> packed codes uint8 [n, ceil(k/8)]."""
        return codes.pack(codes.binarize(self.embed(images)))

    def encode_set(self, image_set: ImageSet) -> np.ndarray:
        """B(x) of a whole image set: packed codes uint8 [n, ceil(k/8)]."""
        return self.encode(image_set.images)

    @abc.abstractmethod
    def save(self, directory: Path) -> None:
        """Writes what `load` needs to encode."""

    @abc.abstractmethod
    def load(self, directory: Path) -> None:
        """Takes what `save` wrote. UserError where it is not there."""

    def draw(self, image_set: ImageSet, splits: RetrievalSplits, directory: Path) -> list[Path]:
        """Draws the method's own figures into a folder and answers their paths: none by default."""
        return []
