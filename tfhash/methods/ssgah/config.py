"""The hyperparameters of SSGAH (Wang et al., ECCV 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from tfhash.errors import UserError
from tfhash.hashers.gan_settings import GANConfig
from tfhash.settings import setting

DISCRIMINATORS = ("joint", "siamese")
NEGATIVES = ("generated", "exchanged")
POSITIVES = ("generated", "own", "real")
# Which rankings H minimises, by the variant.
RANKINGS = {
    "ssgah": ("sr", "ssr", "ar"),
    "w_ssr": ("sr", "ssr"),
    "w_ar": ("sr", "ar"),
    "baseline": ("sr",),
}


@dataclass(frozen=True)
class SSGAHConfig(GANConfig):
    """Hyperparameters; the defaults are the paper's, or DCGAN's where the paper is silent."""

    variant: str = setting(
        "ssgah",
        "ssgah, or an ablation of Table 3: w_ssr, w_ar, baseline",
        choices=tuple(RANKINGS),
        open=True,
    )
    margin_sr: float | None = setting(
        None, "margin of L_sr, by default code_length / 4", least=0, search=(None, 3.0, 6.0, 12.0)
    )
    margin_ssr: float | None = setting(None, "margin of L_ssr, by default code_length / 8", least=0)
    margin_ar: float = setting(1.0, "margin of L_ar", least=0)
    weight_ssr: float = setting(
        1.0, "weight of L_ssr in the objective of H", least=0, search=(0.3, 1.0)
    )
    weight_ar: float = setting(
        1.0, "weight of L_ar in the objective of H, and of G where no other", least=0
    )
    weight_ar_generator: float | None = setting(
        None, "weight of L_ar in the objective of G", least=0
    )
    weight_class: float = setting(
        0.0,
        "weight of l_c of a classification stream beside the bits, as DSH-GANs have one, in the "
        "objective of H, in stage 0 too; in no equation of the paper; 0: there is none",
        least=0,
    )
    weight_kl: float = setting(1.0, "weight of the KL term of Eq. 1", least=0)
    ssr_from: int = setting(0, "stage 2 trains H on L_sr alone up to this step", least=0)
    ssr_ramp: int = setting(
        0, "steps over which the weight of L_ssr then rises to its full value", least=0
    )
    gate: bool = setting(False, "scale L_ssr by how much more often G_p keeps x's class than G_n")
    unlabelled_negatives: str = setting(
        "generated",
        "n_syn of an unlabelled u in L_ssr: generated, G_n(u), as Eq. 5 has it; exchanged, the G_p "
        "of other unlabelled images that D takes for negatives of u",
        choices=NEGATIVES,
    )
    unlabelled_positives: str = setting(
        "generated",
        "p_syn of an unlabelled u in L_ssr: generated, G_p(u), as Eq. 5 has it; own, a control: "
        "in L_ssr each image itself, as G sees it, stands for G_p of it; real, a control: L_ssr "
        "has nothing of G, but labelled images, of two classes, in an order that D is sure of",
        choices=POSITIVES,
    )
    stage0_code_length: int | None = setting(
        None,
        "bits of H in stage 0, by default code_length; with others its hash layer is not gone on "
        "with, and a kept stage 0 serves all code lengths",
        least=1,
    )
    rounds: int = setting(
        1,
        "how often the stages after stage 0 are run: in a later round G and D learn anew, on "
        "features of what H has become, and H goes on; in no equation of the paper",
        least=1,
    )
    exchanges: int = setting(
        6, "how many other images are asked (exchanged, real) for each u", least=1
    )
    ssr_confidence: float | None = setting(
        None,
        "L_ssr leaves out triplets of unlabelled images whose order D is not sure of: its logit "
        "must exceed that of the swapped triplet by this much",
        search=(1.0, 2.0, 3.0),
    )
    other_view: bool = setting(False, "in stage 2 G sees another augmented view of x than H")
    ssr_updates_generator: bool = setting(
        False, "G maximises L_ssr, as Eq. 9 has it; Eq. 5 has L_ssr for H alone", open=True
    )
    cooperative_ssr: bool = setting(
        False, "G minimises L_ssr, together with H; in no equation of the paper"
    )
    ar_updates_generator: bool = setting(True, "G maximises L_ar, as Eq. 6 has it")
    label_smoothing: float = setting(
        0.0, "D's target for real triplets is 1 minus this", least=0, below=1
    )
    condition: bool = setting(
        True, "the condition module; without it c is noise alone, the third variant of Fig. 3"
    )
    condition_size: int = setting(128, "length of the condition c", least=1, open=True)
    residual: bool = setting(False, "G_p answers x changed by what it decodes, not an item anew")
    discriminator: str = setting(
        "joint",
        "joint: D sees the three images stacked; siamese: it compares what one trunk makes of each",
        choices=DISCRIMINATORS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage0_code_length is not None and not self.stage0_steps:
            raise UserError(
                "`stage0_code_length`: there is no stage 0; allowed with `stage0_steps` above 0"
            )
        if self.rounds > 1 and self.gan_space != "trunk":
            raise UserError(
                f"`rounds`: {self.rounds}, and G and D would learn the same again; allowed above 1 "
                "with `gan_space`=trunk"
            )
        if self.without_g and self.unlabelled_negatives == "exchanged":
            raise UserError(
                "`unlabelled_negatives`: exchanged, not with `unlabelled_positives`=real, which "
                "has no G; allowed: generated"
            )
        if self.ssr_updates_generator and self.cooperative_ssr:
            raise UserError(
                "`cooperative_ssr`: not with `ssr_updates_generator`, by which G maximises L_ssr"
            )
        if self.weight_ar_generator is not None and not self.ar_updates_generator:
            raise UserError(
                "`weight_ar_generator`: not without `ar_updates_generator`, for G then has no L_ar"
            )
        for name in ("ssr_updates_generator", "cooperative_ssr"):
            if self.without_g and getattr(self, name):
                raise UserError(
                    f"`{name}`: not with `unlabelled_positives`=real, where L_ssr has nothing of G"
                )
        for name, value in (
            ("unlabelled_negatives", "exchanged"),
            ("unlabelled_positives", "real"),
        ):
            if getattr(self, name) == value and self.ssr_confidence is None:
                raise UserError(
                    f"`{name}`: {value} needs `ssr_confidence`, for without it images of the same "
                    "class would be negatives"
                )

    @property
    def without_g(self) -> bool:
        """Whether L_ssr has nothing of G."""
        return self.unlabelled_positives == "real"
