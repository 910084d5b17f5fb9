"""The hyperparameters of DSH-GANs (Qiu et al., SIGIR 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from tfhash.errors import UserError
from tfhash.hashers.gan_settings import GANConfig
from tfhash.settings import setting, with_default


@dataclass(frozen=True)
class DSHGANConfig(GANConfig):
    """Hyperparameters; the defaults are the paper's, section 4.2."""

    classification: bool = setting(
        True, "the classification stream; without it, DSH-GANs-", open=True
    )
    real_fraction: float = setting(
        0.0,
        "part of the positives and negatives that are real images, 0 to 1 (Fig. 6)",
        least=0,
        most=1,
        open=True,
    )
    margin: float = setting(1.0, "margin of the triplet loss", least=0, search=(1.0, 3.0, 6.0))
    weight_adversary: float = setting(
        1.0, "weight of l_a in stage 2", least=0, search=(0.01, 0.1, 1.0)
    )
    weight_class: float = setting(1.0, "weight of l_c", least=0)
    unlabelled_confidence: float | None = setting(
        None,
        "in stage 2 the classification stream also learns from unlabelled images: the class that "
        "it gives a weak view with at least this probability, of H's view; by default they are "
        "for G and D alone, as in the paper",
        above=0,
        most=1,
        search=(0.8, 0.95),
    )
    weight_unlabelled: float = setting(
        1.0, "weight of what it learns from these (`unlabelled_confidence`)", least=0
    )
    train_generator: bool = setting(True, "G keeps training in stage 2, as Eq. 9 has it")
    gan_beta_1: float = with_default(GANConfig, "gan_beta_1", 0.9)
    hash_schedule: str = with_default(GANConfig, "hash_schedule", "step")
    weight_decay: float = with_default(GANConfig, "weight_decay", 5e-4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabelled_confidence is not None and not self.classification:
            raise UserError(
                "`unlabelled_confidence`: not without `classification`, the stream that learns"
            )

    @property
    def synthesises(self) -> bool:
        """Whether any image of a triplet is synthetic; if not, there is no G."""
        return self.real_fraction < 1
