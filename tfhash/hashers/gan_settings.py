"""Settings of the methods with a GAN, beside those of every deep one."""

from __future__ import annotations

from dataclasses import dataclass

from tfhash.errors import UserError
from tfhash.hashers.deep_settings import HashConfig
from tfhash.networks.generators import IMAGE_SIZES
from tfhash.settings import setting


@dataclass(frozen=True)
class GANConfig(HashConfig):
    """Hyperparameters of G, D and H; defaults are the papers', or DCGAN's where they are silent."""

    gan_space: str = setting(
        "as_hash",
        "as_hash: G and D work where H does; trunk: on the features of H's backbone as stage 0 "
        "left it (space=pixels)",
        choices=("as_hash", "trunk"),
    )
    stage0_steps: int = setting(
        0, "updates of H on the labelled images alone, before G and D learn; 0 for none", least=0
    )
    stage0_learning_rate: float | None = setting(
        None, "learning rate of H in stage 0, by default as in its last stage", above=0
    )
    minimax: bool = setting(
        False,
        "G minimises the negative of what D minimises, as the paper has it; not -log D",
        open=True,
    )
    gan_steps: int = setting(20000, "updates of stage 1, G and D alone", least=0, open=True)
    gan_learning_rate: float = setting(2e-4, "Adam's rate for G and D", least=0)
    stage2_gan_rate: float = setting(1.0, "factor of that rate in stage 2", least=0)
    gan_beta_1: float = setting(0.5, "Adam's beta_1 for G and D", least=0, below=1)
    gan_size: int = setting(
        32, "side in px of the images of G and D: 16, 32 or 64", choices=IMAGE_SIZES, open=True
    )
    gan_width: int = setting(
        64, "filters (units) of the narrowest layer of G and D", least=1, open=True
    )
    noise_size: int = setting(100, "length of the noise z", least=0, open=True)
    discriminator_batch_norm: bool = setting(True, "batch normalisation in D (pixels)", open=True)
    discriminator_dropout: float = setting(
        0.0, "dropout in D, on what its trunk answers", least=0, below=1
    )
    stage0_dir: str | None = setting(
        None,
        "folder that keeps stage 0, and the features after it, for other runs on the same split",
        decides=False,
        path=True,
        from_run=False,
    )
    stage1_dir: str | None = setting(
        None,
        "folder that keeps stage 1 for other runs on the same split",
        decides=False,
        path=True,
        from_run=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage0_learning_rate is not None and not self.stage0_steps:
            raise UserError(
                "`stage0_learning_rate`: there is no stage 0; allowed with `stage0_steps` above 0"
            )
        if self.gan_space == "trunk":
            if self.space != "pixels":
                raise UserError(
                    f"`gan_space`: trunk, not with `space`={self.space}; allowed: pixels, where "
                    "the backbone learns"
                )
            if not self.stage0_steps:
                raise UserError(
                    "`gan_space`: trunk needs a trained backbone; allowed with `stage0_steps` "
                    "above 0"
                )
