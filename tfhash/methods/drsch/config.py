"""The hyperparameters of DRSCH (Zhang et al., TIP 2015)."""

from __future__ import annotations

from dataclasses import dataclass

from tfhash.errors import UserError
from tfhash.hashers.deep_settings import HashConfig
from tfhash.settings import setting, with_default

VARIANTS = ("drsch", "dsch")
NEIGHBOURS_BY = ("features", "inputs")


@dataclass(frozen=True)
class DRSCHConfig(HashConfig):
    """Hyperparameters; those that the paper fixes are from memory of it."""

    variant: str = setting(
        "drsch", "drsch; or dsch, without the Laplacian term", choices=VARIANTS, open=True
    )
    margin: float | None = setting(
        None,
        "margin of the triplets, in bits; by default code_length / 2",
        least=0,
        search=(None, 3.0, 6.0, 12.0),
    )
    beta: tuple[float, ...] = setting(
        (2.0, 4.0, 10.0, 100.0, 1000.0),
        "how steep the tanh is, one value for each of as many equal parts of the training",
        above=0,
        search=((2.0, 4.0, 8.0, 16.0), (2.0, 4.0, 10.0, 100.0, 1000.0)),
    )
    learn_bit_weights: bool = setting(True, "bits have learned weights in the distance, else all 1")
    classes_per_group: int = setting(
        10, "classes that the images of a group are drawn of, in equal parts", least=2, open=True
    )
    weight_laplacian: float = setting(
        0.1, "weight of the Laplacian term (drsch)", least=0, search=(0.001, 0.01, 0.1), open=True
    )
    neighbours: int = setting(
        3,
        "nearest other images of a group that an image is kept near to (drsch)",
        least=1,
        open=True,
    )
    neighbours_by: str = setting(
        "features",
        "nearest by the features that the hash layer sees, or by the inputs of H (drsch)",
        choices=NEIGHBOURS_BY,
        open=True,
    )
    hash_learning_rate: float = with_default(HashConfig, "hash_learning_rate", 1e-3)
    weight_decay: float = with_default(HashConfig, "weight_decay", 5e-4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta:
            raise UserError("`beta`: none; allowed: at least one number above 0")

    @property
    def regularised(self) -> bool:
        """Whether the Laplacian term is there."""
        return self.variant == "drsch"
