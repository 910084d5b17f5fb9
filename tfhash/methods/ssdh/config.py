"""The hyperparameters of SSDH (Zhang & Peng, TCSVT 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from tfhash.errors import UserError
from tfhash.hashers.deep_settings import HashConfig
from tfhash.settings import setting, with_default

GRAPHS = ("features", "codes")


@dataclass(frozen=True)
class SSDHConfig(HashConfig):
    """Hyperparameters; the defaults are those of the authors' code for batches of 128 images."""

    margin: float = setting(
        1.0,
        "margin of the ranking term, of squared distances",
        least=0,
        search=(1.0, 3.0, 6.0, 12.0),
    )
    graph: str = setting(
        "features",
        "what neighbours are near in: features, those that the hash layer sees; or codes, H(x)",
        choices=GRAPHS,
    )
    neighbours: int = setting(
        8, "how many of the nearest images of its group are neighbours of an image", least=1
    )
    far_from: float = setting(
        0.89,
        "a far image has this share of the other images of the group nearer than itself, or more",
        least=0,
        below=1,
    )
    far_to: float = setting(0.97, "and less than this share", above=0, most=1)
    graph_pairs: int = setting(1, "neighbours, and far images, drawn for an image a step", least=1)
    margin_graph: float | None = setting(
        None,
        "margin of the graph term and the pseudo term, of distances that are not squared; by "
        "default 2.5 up to 12 bits, else 3",
        least=0,
    )
    weight_graph: float = setting(0.1, "weight of the graph term", least=0, search=(0.03, 0.1, 0.3))
    weight_pseudo: float = setting(
        0.1, "weight of the term of pseudo-labels (classification)", least=0, search=(0.1, 0.3, 1.0)
    )
    pseudo_confidence: float = setting(
        0.0,
        "an unlabelled image has a pseudo-label where its best class is likelier than this",
        least=0,
        below=1,
    )
    graph_from: int = setting(
        0, "no weight for the graph term and the pseudo term up to this step", least=0
    )
    graph_ramp: int = setting(
        0, "steps over which their weights then rise to their full values", least=0
    )
    classification: bool = setting(True, "a class head on the features that the hash layer sees")
    weight_class: float = setting(1.0, "weight of the class loss (classification)", least=0)
    hash_schedule: str = with_default(HashConfig, "hash_schedule", "step")
    hash_decay_steps: int = with_default(HashConfig, "hash_decay_steps", 30000)
    weight_decay: float = with_default(HashConfig, "weight_decay", 5e-4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.far_from >= self.far_to:
            raise UserError(f"`far_from`: {self.far_from}; allowed: below `far_to`={self.far_to}")
